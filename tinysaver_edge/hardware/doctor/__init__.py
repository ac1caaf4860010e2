"""Doctor: everything that makes an installation fail, each with the command that mends it.

engines  engines and OpenCV
system   drivers, devices, folders
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinysaver_edge.hardware.doctor.engines import device_checks, engine_checks, opencv_check
from tinysaver_edge.hardware.doctor.system import (
    Access,
    accelerator_checks,
    cache_check,
    camera_check,
    driver_check,
    may_open,
    owner_checks,
    python_check,
    throttling_check,
    version_checks,
)
from tinysaver_edge.hardware.engines import Engines, probe_engines
from tinysaver_edge.hardware.finding import ROOT, Checkup, Standing
from tinysaver_edge.hardware.nvidia import read_jetson, read_nvidia

__all__ = ["Checkup", "Diagnosis", "Standing", "examine"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was looked at, in order."""

    checks: tuple[Checkup, ...]

    @property
    def broken(self) -> tuple[Checkup, ...]:
        """What is broken."""
        return tuple(check for check in self.checks if check.state is Standing.BROKEN)

    @property
    def healthy(self) -> bool:
        """Whether nothing is broken."""
        return not self.broken

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {"healthy": self.healthy, "checks": [check.to_dict() for check in self.checks]}


def examine(
    root: Path = ROOT, *, engines: Engines | None = None, access: Access = may_open
) -> Diagnosis:
    """Look at everything that makes an installation fail.

    Args:
        root: folder that stands for ``/``.
        engines: what was found of them; by default this machine's are tried.
        access: whether a device node may be opened.
    """
    found = probe_engines() if engines is None else engines
    jetson = read_jetson(root)
    has_nvidia = jetson is not None or read_nvidia(root) is not None
    return Diagnosis(
        (
            python_check(),
            *owner_checks(has_nvidia=has_nvidia),
            *version_checks(),
            opencv_check(),
            *engine_checks(found),
            *device_checks(found, jetson=jetson, has_nvidia=has_nvidia),
            driver_check(root),
            *accelerator_checks(root, access=access),
            camera_check(root, access=access),
            cache_check(),
            throttling_check(root),
        )
    )
