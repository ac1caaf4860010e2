"""Remedies: from what a loader, an import or a driver says to the command that mends it."""

from __future__ import annotations

import re

_CUDA = "pip install 'onnxruntime-gpu[cuda,cudnn]'"

TENSORRT = "pip install tensorrt-cu13 (-cu12 where onnxruntime-gpu was made for CUDA 12)"
"""What brings TensorRT to a computer that is no Jetson."""

NO_GPU = "pip uninstall -y onnxruntime-gpu && pip install onnxruntime, or install NVIDIA's driver"
"""What to do with a GPU build where there is no NVIDIA GPU."""

_REMEDIES = (
    (r"libGL\.so", "sudo apt install libgl1"),
    (r"lib(gthread|glib)-2\.0\.so", "sudo apt install libglib2.0-0"),
    (r"lib(SM|Xext|Xrender|ICE)\.so", "sudo apt install libsm6 libxext6 libxrender1"),
    (r"libxcb[\w-]*\.so", "sudo apt install libxcb1"),
    (r"libgomp\.so", "sudo apt install libgomp1"),
    (r"libatomic\.so", "sudo apt install libatomic1"),
    (r"libtbb\.so", "sudo apt install libtbb12"),
    (r"libOpenCL\.so", "sudo apt install ocl-icd-libopencl1"),
    (r"libze_loader\.so", "sudo apt install libze1"),
    (r"libcudnn\w*\.so", _CUDA),
    (r"lib(cudart|cublas\w*|cufft|curand|nvrtc|nvJitLink)\.so", _CUDA),
    (r"libnvinfer\w*\.so|libnvonnxparser\.so", TENSORRT),
    (r"libcuda\.so", NO_GPU),
    (
        r"GLIBC(XX)?_[\d.]+' not found|version `GLIBC",
        "its wheel needs a newer system: update the system, or install an older version of it",
    ),
    (
        r"compiled using NumPy 1|_ARRAY_API not found|numpy\.core\.multiarray failed",
        "pip install 'numpy<2'",
    ),
    (
        r"SIGILL",
        "this processor lacks an instruction that its wheel uses: install an older version of it",
    ),
    (
        r"[Dd]river/library version mismatch",
        "start the machine anew: the driver was updated under it",
    ),
    (
        r"driver version is insufficient|CUDA_ERROR_SYSTEM_DRIVER_MISMATCH|CUDA_ERROR_COMPAT",
        "update NVIDIA's driver, or install a build for an older CUDA",
    ),
    (
        r"no kernel image|NoKernelImageForDevice",
        "install a build of onnxruntime-gpu that was made for this very GPU",
    ),
    (r"no CUDA-capable device|CUDA_ERROR_NO_DEVICE|CUDA failure 100", NO_GPU),
)
"""What messages contain, and what mends it; the first that fits counts."""


def remedy(message: str) -> str | None:
    """Return what mends the cause of a message, or None where none is known."""
    for pattern, command in _REMEDIES:
        if re.search(pattern, message):
            return command
    missing = re.search(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object", message)
    if missing:
        return f"install the system package that has {missing[1]} (apt-file search {missing[1]})"
    return None
