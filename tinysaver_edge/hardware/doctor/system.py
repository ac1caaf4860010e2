"""System: drivers that do not fit, devices and folders that this user may not open."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tinysaver_edge._support.files import default_cache_dir
from tinysaver_edge.hardware.doctor.check import Checkup, broken, note, ok
from tinysaver_edge.hardware.nvidia import read_nvidia
from tinysaver_edge.hardware.system_files import ROOT
from tinysaver_edge.hardware.thermal import throttling

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


def cache_check(cache: Callable[[], Path | None] = default_cache_dir) -> Checkup:
    """Check that compiled models can be kept."""
    folder = cache()
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
