"""Engines and OpenCV: do they import, does what they list really run, and what mends it?"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from tinysaver_edge._support.packages import python_command
from tinysaver_edge.errors import install_command
from tinysaver_edge.hardware.engines import EngineDevice, Engines
from tinysaver_edge.hardware.finding import Checkup, broken, note, ok
from tinysaver_edge.hardware.nvidia import Jetson
from tinysaver_edge.hardware.trial import TIMEOUT_S, Apart, run_apart

_CUDA_WHEELS = "pip install 'onnxruntime-gpu[cuda,cudnn]'"

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
    (r"libcudnn\w*\.so", _CUDA_WHEELS),
    (r"lib(cudart|cublas\w*|cufft|curand|nvrtc|nvJitLink)\.so", _CUDA_WHEELS),
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


FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
"""Whether this Python is built without the lock that extensions of the stable ABI rely on."""

_TENSORRT = "TensorrtExecutionProvider"
_CUDA = "CUDAExecutionProvider"


def import_module(module: str) -> Apart:
    """Import a module in a process of its own; the answer is its version.

    A folder that an uninstall left, with nothing but caches in it, imports as an empty module.
    """
    program = (
        f"import sys, {module}\n"
        f"if getattr({module}, '__file__', None) is None:\n"
        f"    sys.exit('only an empty folder is left: ' + ', '.join({module}.__path__))\n"
        f"print(getattr({module}, '__version__', 'no version'))"
    )
    return run_apart(python_command(program), timeout_s=TIMEOUT_S)


def opencv_check(
    *,
    installed: bool | None = None,
    importing: Callable[[str], Apart] = import_module,
    free_threaded: bool = FREE_THREADED,
) -> Checkup:
    """Check that OpenCV is there and loads: every frame is resized with it.

    Args:
        installed: whether there is such a module; by default looked up.
        importing: imports it; by default in a process of its own.
        free_threaded: whether this Python is, for which OpenCV has no wheels.
    """
    name = "OpenCV"
    there = find_spec("cv2") is not None if installed is None else installed
    result = importing("cv2") if there else None
    if result is not None and result.answer is not None:
        return ok(name, result.answer)
    why = "not installed: frames cannot be resized"
    if result is not None:
        why = f"cannot be imported: {result.why}"
    if free_threaded:
        why += "; this Python is free-threaded, and OpenCV has no wheels for it"
        return broken(name, why, "take the Python of that version without a t at its end")
    if result is None:
        return broken(name, why, "pip install opencv-python")
    mend = remedy(f"{result.said} {result.why}") or "pip install --force-reinstall opencv-python"
    if "libgl1" in mend or "libx" in mend:
        mend += ", or on a machine without a screen: pip install opencv-python-headless instead"
    return broken(name, why, mend)


def engine_checks(engines: Engines) -> list[Checkup]:
    """Check every engine's package, and that there is one that runs at all."""
    checks: list[Checkup] = []
    for inventory in engines.inventories:
        if inventory.version is not None:
            checks.append(ok(inventory.engine, inventory.version))
        elif (inventory.why or "").startswith("not installed"):
            mend = install_command(inventory.engine)
            checks.append(note(inventory.engine, "not installed", mend))
        else:
            why = inventory.why or "it did not say why"
            mend = remedy(why) or f"pip install --force-reinstall {inventory.engine}"
            checks.append(broken(inventory.engine, f"cannot be imported: {why}", mend))
    if not engines.working and not engines.others:
        mend = install_command("cpu")
        checks.append(broken("engines", "there is none that runs a model", mend))
    return checks


def device_checks(
    engines: Engines, *, jetson: Jetson | None = None, has_nvidia: bool = True
) -> list[Checkup]:
    """Check that every device that an engine lists runs a model."""
    checks = [_device(one, engines.working, has_nvidia=has_nvidia) for one in engines.devices]
    providers = {one.listed.device for one in engines.devices if one.engine == "onnxruntime"}
    if jetson is not None and providers and _CUDA not in providers:
        checks.append(
            note(
                "onnxruntime on this Jetson",
                "its build has no CUDAExecutionProvider: models run on the processor only",
                "pip uninstall -y onnxruntime && pip install onnxruntime-gpu "
                "--index-url https://pypi.jetson-ai-lab.io/jp6/cu126",
            )
        )
    return checks


def _device(one: EngineDevice, working: Sequence[EngineDevice], *, has_nvidia: bool) -> Checkup:
    name = f"{one.engine}, {one.listed.device}"
    if one.trial.works:
        return ok(name, "runs a model")
    detail = f"is listed but does not run: {one.trial.detail}"
    mend = remedy(one.trial.detail)
    if one.listed.device in (_CUDA, _TENSORRT) and not has_nvidia:
        return broken(name, f"{detail}; no NVIDIA driver is loaded", NO_GPU)
    if one.listed.device == _TENSORRT:
        # Every GPU build lists TensorRT; nothing fails without it unless it is asked for.
        if any(other.listed.device == _CUDA for other in working):
            return note(name, detail, mend or TENSORRT)
        mend = mend or "mend CUDAExecutionProvider first"
    return broken(name, detail, mend or "tinysaver-edge devices probe tells more")
