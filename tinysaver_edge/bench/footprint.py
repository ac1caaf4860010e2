"""Memory that this process holds, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path

from tinysaver_edge.hardware.system_files import ROOT, fields, read


def resident_mb(root: Path = ROOT) -> float | None:
    """Return what the process holds in main memory now, in MiB; None where nobody tells."""
    return _status(root, "VmRSS")


def peak_mb(root: Path = ROOT) -> float | None:
    """Return the most that it ever held, in MiB; None where nobody tells."""
    return _status(root, "VmHWM")


def _status(root: Path, name: str) -> float | None:
    words = fields(read(root, "proc/self/status") or "").get(name, "").split()
    return int(words[0]) / 1024 if len(words) == 2 and words[0].isdigit() else None
