"""System: drivers that do not fit, devices and folders that this user may not open."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distributions, requires, version
from pathlib import Path
from types import MappingProxyType

from tinysaver_edge._support.resources import default_cache_dir
from tinysaver_edge.hardware.cpu import throttling
from tinysaver_edge.hardware.finding import ROOT, Checkup, broken, note, ok
from tinysaver_edge.hardware.nvidia import read_nvidia

OLDEST_PYTHON = (3, 10)
"""What this package runs on."""

PROJECT = "tinysaver-edge"

_PREFERRED = MappingProxyType(
    {
        "onnxruntime": (
            "onnxruntime-gpu",
            "onnxruntime-openvino",
            "onnxruntime-rocm",
            "onnxruntime",
        ),
        "cv2": (
            "opencv-contrib-python",
            "opencv-python",
            "opencv-contrib-python-headless",
            "opencv-python-headless",
        ),
        "openvino": ("openvino",),
    }
)
"""Modules that several distributions bring, and which of these to keep where there are several."""


def python_check(
    found: tuple[int, int, int] = sys.version_info[:3], *, bits: int = sys.maxsize.bit_length() + 1
) -> Checkup:
    """Check the interpreter: new enough, and 64 bits wide."""
    text = f"{'.'.join(map(str, found))}, {bits} bits, {platform.machine()}"
    if found[:2] < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return broken("Python", f"{text}: {wanted} or newer is needed", f"python{wanted} -m venv …")
    if bits < 64:
        return broken(
            "Python",
            f"{text}: no engine has wheels for 32 bits",
            "install the 64-bit system (uname -m says aarch64 or x86_64)",
        )
    return ok("Python", text)


def owner_checks(path: Sequence[str] = sys.path, *, has_nvidia: bool = True) -> list[Checkup]:
    """Check that no module is brought by two distributions, one written over the other.

    Args:
        path: folders that modules are looked for in.
        has_nvidia: whether an NVIDIA GPU can be expected to work; else its builds are not kept.
    """
    installed = list(distributions(path=list(path)))
    return [_owners(module, installed, path, has_nvidia=has_nvidia) for module in _PREFERRED]


def _owners(
    module: str, installed: Sequence[Distribution], path: Sequence[str], *, has_nvidia: bool
) -> Checkup:
    owners = sorted({one.metadata["Name"] for one in installed if _brings(one, module)})
    name = f"module {module}"
    if len(owners) > 1:
        wanted = [one for one in _PREFERRED[module] if has_nvidia or one != "onnxruntime-gpu"]
        keep = next((one for one in wanted if one in owners), owners[0])
        return broken(
            name,
            f"written by {' and '.join(owners)}, one over the other",
            f"pip uninstall -y {' '.join(owners)} && pip install {keep}",
        )
    places = [place for place in dict.fromkeys(path) if _holds(Path(place), module)]
    if len(places) > 1:
        return note(name, f"is in {places[0]}, which hides the one in {', '.join(places[1:])}")
    if owners:
        return ok(name, f"brought by {owners[0]}")
    return ok(name, f"is in {places[0]}, not from pip") if places else note(name, "not installed")


def _brings(distribution: Distribution, module: str) -> bool:
    files = distribution.files
    if files is None:
        return module in (distribution.read_text("top_level.txt") or "").split()
    return any(file.parts[0] == module and file.suffix == ".py" for file in files)


def _holds(place: Path, module: str) -> bool:
    # A .so alone is how Debian and JetPack bring OpenCV.
    return (place / module / "__init__.py").is_file() or any(place.glob(f"{module}*.so"))


def version_checks(project: str = PROJECT) -> list[Checkup]:
    """Check what is installed of the optional packages against the oldest versions that will do."""
    try:
        wanted = requires(project) or []
    except PackageNotFoundError:
        return [note("versions", f"{project} runs from its source: its needs are not known")]
    oldest = {
        match[1]: match[2]
        for line in wanted
        if (match := re.match(r"([\w.-]+)\s*>=\s*([\d.]+)[^;]*;\s*extra ==", line))
    }
    checks = []
    for package, needed in sorted(oldest.items()):
        try:
            have = version(package)
        except PackageNotFoundError:
            continue
        if _numbers(have) < _numbers(needed):
            checks.append(
                broken(
                    f"version of {package}",
                    f"{have}, {needed} or newer is needed",
                    f"pip install --upgrade '{package}>={needed}'",
                )
            )
    return checks or [ok("versions", "all that is installed is new enough")]


def _numbers(version_text: str) -> tuple[int, ...]:
    leading = re.match(r"[\d.]+", version_text)
    return tuple(int(part) for part in (leading[0] if leading else "0").split(".") if part)


Access = Callable[[Path], bool]
"""Whether a device may be read and written by this user."""


def may_open(path: Path) -> bool:
    """Whether this user may read and write a file."""
    return os.access(path, os.R_OK | os.W_OK)


def driver_check(root: Path = ROOT) -> Checkup:
    """Check that the NVIDIA driver in the kernel is the one whose libraries are on disk."""
    name = "NVIDIA driver"
    driver = read_nvidia(root)
    if driver is None:
        return ok(name, "none is loaded, none is needed without an NVIDIA GPU")
    if driver.mismatched:
        return broken(
            name,
            f"the kernel runs {driver.version}, its libraries are "
            f"{', '.join(driver.library_versions)}",
            "sudo reboot",
        )
    return ok(name, f"{driver.version}, {', '.join(driver.gpus) or 'no GPU listed'}")


def camera_check(root: Path = ROOT, *, access: Access = may_open) -> Checkup:
    """Check that cameras may be opened."""
    return _nodes("camera", root, "dev/video*", "video", access)


def accelerator_checks(root: Path = ROOT, *, access: Access = may_open) -> list[Checkup]:
    """Check that GPU and NPU nodes may be opened."""
    return [
        _nodes("GPU node", root, "dev/dri/renderD*", "render", access),
        _nodes("NPU node", root, "dev/accel/accel*", "render", access),
    ]


def _nodes(name: str, root: Path, pattern: str, group: str, access: Access) -> Checkup:
    nodes = sorted(root.glob(pattern))
    if not nodes:
        return ok(name, f"there is none (/{pattern})")
    shut = [node for node in nodes if not access(node)]
    if not shut:
        return ok(name, ", ".join(f"/{node.relative_to(root)}" for node in nodes))
    listed = ", ".join(f"/{node.relative_to(root)}" for node in shut)
    return broken(
        name,
        f"this user may not open {listed}",
        f"sudo usermod -aG {_group(shut[0]) or group} $USER, then log in again",
    )


def _group(node: Path) -> str | None:
    """Return the name of the group that may open a device, unless that is root's own."""
    import grp

    try:
        name = grp.getgrgid(node.stat().st_gid).gr_name
    except (KeyError, OSError):
        return None
    return None if name in ("root", "wheel") else name


def cache_check() -> Checkup:
    """Check that compiled models can be kept."""
    folder = default_cache_dir()
    if folder is not None:
        return ok("cache folder", str(folder))
    return broken(
        "cache folder",
        "~/.cache/tinysaver-edge (or that below $XDG_CACHE_HOME) cannot be written: every start "
        "compiles the models anew",
        'sudo chown -R "$USER" ~/.cache, or export XDG_CACHE_HOME=/path/that/can/be/written',
    )


def throttling_check(root: Path = ROOT) -> Checkup:
    """Note heat or a weak supply that slows the processor down."""
    found = throttling(root)
    if found is None:
        return ok("throttling", "the system does not count it")
    if not found:
        return ok("throttling", "none since it started")
    mend = "a better supply or cable" if "voltage" in found else "a heat sink or a fan"
    return note("throttling", found, mend)
