"""NVIDIA: driver and GPUs of a computer, what a Jetson has; and what boards call themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tinysaver_edge.hardware.finding import ROOT, Finding, fields, installed_packages, read

_LIBRARY_FOLDERS = ("usr/lib", "usr/lib64", "usr/lib/*-linux-gnu", "usr/lib/wsl/lib")
_JETPACKS = MappingProxyType({"32": "4", "35": "5", "36": "6", "38": "7", "39": "7"})
"""Major releases of Jetson Linux and of the JetPack that they belong to."""


@dataclass(frozen=True, slots=True)
class NvidiaDriver:
    """The driver in the kernel and what it drives.

    Attributes:
        version: of the module that the kernel has loaded.
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
        Finding.of("CUDA toolkit", cuda and cuda[1], elsewhere),
        Finding.of("TensorRT", tensorrt, elsewhere),
    ]


@dataclass(frozen=True, slots=True)
class Jetson:
    """What runs on a Jetson; None where the system does not say.

    Attributes:
        release: of Jetson Linux, ``"36.4.3"``.
        jetpack: version of JetPack, or only its major one where it was not installed as a package.
        power_mode: name of the power mode in force, as ``nvpmodel -q`` gives it.
    """

    release: str | None
    jetpack: str | None
    cuda: str | None
    cudnn: str | None
    tensorrt: str | None
    power_mode: str | None

    def findings(self) -> tuple[Finding, ...]:
        """Return what to show."""
        missing = "not installed: sudo apt install nvidia-jetpack"
        unsaid = "the system does not say"
        return (
            Finding.of("Jetson Linux", self.release, unsaid),
            Finding.of("JetPack", self.jetpack, unsaid),
            Finding.of("CUDA", self.cuda, missing),
            Finding.of("cuDNN", self.cudnn, missing),
            Finding.of("TensorRT", self.tensorrt, missing),
            Finding.of("power mode", self.power_mode, "nvpmodel has left no status"),
        )


def read_board(root: Path = ROOT) -> str | None:
    """Return what a board's device tree calls it; None on machines without one."""
    return read(root, "proc/device-tree/model") or read(root, "sys/firmware/devicetree/base/model")


def read_jetson(root: Path = ROOT) -> Jetson | None:
    """Read what runs on a Jetson; None where this is none."""
    release = _release(root)
    if release is None and "Jetson" not in (read_board(root) or ""):
        return None
    packages = installed_packages(root)
    major = (release or "").partition(".")[0]
    jetpack = packages.get("nvidia-jetpack")
    if jetpack is None and major in _JETPACKS:
        jetpack = f"{_JETPACKS[major]} (its package nvidia-jetpack is not installed)"
    return Jetson(
        release=release,
        jetpack=jetpack,
        cuda=_version(packages, r"cuda-cudart-\d+-\d+"),
        cudnn=_version(packages, r"libcudnn\d+(-cuda-\d+)?"),
        tensorrt=_version(packages, r"libnvinfer\d+"),
        power_mode=_power_mode(root),
    )


def _release(root: Path) -> str | None:
    """Read ``# R36 (release), REVISION: 4.3, GCID: …``."""
    text = read(root, "etc/nv_tegra_release") or ""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{match[1]}.{match[2]}" if match else None


def _version(packages: dict[str, str], pattern: str) -> str | None:
    """Return the version of the newest package of that name, less what Debian adds to it."""
    found = [version for name, version in packages.items() if re.fullmatch(pattern, name)]
    if not found:
        return None
    newest = max(found, key=lambda version: [int(part) for part in re.findall(r"\d+", version)])
    return re.split(r"[-+]", newest)[0]


def _power_mode(root: Path) -> str | None:
    """Look up the mode that nvpmodel has noted as ``pmode:0002`` among those it knows."""
    status = re.search(r"pmode:(\d+)", read(root, "var/lib/nvpmodel/status") or "")
    if status is None:
        return None
    number = int(status[1])
    modes = re.findall(
        r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", read(root, "etc/nvpmodel.conf") or ""
    )
    return next((name for mode, name in modes if int(mode) == number), f"mode {number}")
