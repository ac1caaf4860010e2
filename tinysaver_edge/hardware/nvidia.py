"""NVIDIA: driver and GPUs of a computer that is no Jetson, and the libraries beside them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tinysaver_edge.hardware.finding import Finding
from tinysaver_edge.hardware.system_files import ROOT, fields, installed_packages, read

_LIBRARY_FOLDERS = ("usr/lib", "usr/lib64", "usr/lib/*-linux-gnu", "usr/lib/wsl/lib")


@dataclass(frozen=True, slots=True)
class NvidiaDriver:
    """The driver in the kernel and what it drives.

    Attributes:
        version: of the module that the kernel has loaded.
        gpus: names of the GPUs.
        library_versions: versions of the driver's libraries on disk. One other than `version`
            means that the driver was updated and the machine not started anew.
    """

    version: str
    gpus: tuple[str, ...]
    library_versions: tuple[str, ...]

    @property
    def mismatched(self) -> bool:
        """Whether the libraries on disk are of another version than the kernel's module."""
        return bool(self.library_versions) and self.version not in self.library_versions


def read_nvidia(root: Path = ROOT) -> NvidiaDriver | None:
    """Read the driver off a system's files; None where none is loaded."""
    text = read(root, "proc/driver/nvidia/version") or ""
    match = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", text)
    if match is None:
        return None
    gpus = [
        fields(read(root, str(path.relative_to(root))) or "").get("Model", path.parent.name)
        for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    ]
    return NvidiaDriver(match[1], tuple(gpus), _library_versions(root))


def nvidia_findings(root: Path = ROOT) -> tuple[Finding, ...]:
    """Return what to show of driver, GPUs, CUDA and TensorRT."""
    driver = read_nvidia(root)
    if driver is None:
        reason = "no NVIDIA driver is loaded (/proc/driver/nvidia is not there)"
        return (Finding.absent("NVIDIA driver", reason), *_libraries(root))
    found = [Finding("NVIDIA driver", driver.version)]
    found += [Finding("NVIDIA GPU", name) for name in driver.gpus]
    if not driver.gpus:
        found.append(Finding.absent("NVIDIA GPU", "the driver lists none"))
    return (*found, *_libraries(root))


def _library_versions(root: Path) -> tuple[str, ...]:
    versions = {
        match[1]
        for folder in _LIBRARY_FOLDERS
        for path in root.glob(f"{folder}/libnvidia-ml.so.*")
        if (match := re.fullmatch(r"libnvidia-ml\.so\.(\d+\.\d[\d.]*)", path.name))
    }
    return tuple(sorted(versions))


def _libraries(root: Path) -> list[Finding]:
    """Return CUDA and TensorRT as the system's packages and /usr/local tell of them.

    Those that pip has installed lie in site-packages, where ONNX Runtime finds them itself.
    """
    packages = installed_packages(root)
    cuda = re.search(r'"version"\s*:\s*"([\d.]+)"', read(root, "usr/local/cuda/version.json") or "")
    tensorrt = next(
        (version for name, version in packages.items() if re.fullmatch(r"libnvinfer\d+", name)),
        None,
    )
    elsewhere = "not among the system's packages; pip may have brought it"
    return [
        Finding("CUDA toolkit", cuda[1]) if cuda else Finding.absent("CUDA toolkit", elsewhere),
        Finding("TensorRT", tensorrt) if tensorrt else Finding.absent("TensorRT", elsewhere),
    ]
