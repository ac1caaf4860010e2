"""Memory: how much there is, how much is free, and how much a container may take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tinysaver_edge.hardware.finding import Finding
from tinysaver_edge.hardware.system_files import ROOT, fields, read

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory in MiB; on boards whose GPU has none of its own it is the GPU's as well.

    Attributes:
        total_mb: all of it.
        available_mb: what programs can still take, or None where it is not told.
        limit_mb: what a container grants, or None.
        swap_mb: swap space.
    """

    total_mb: int
    available_mb: int | None
    limit_mb: int | None
    swap_mb: int

    @property
    def usable_mb(self) -> int:
        """What this process may come to hold."""
        return self.total_mb if self.limit_mb is None else min(self.limit_mb, self.total_mb)

    def findings(self) -> tuple[Finding, ...]:
        """Return what to show."""
        text = f"{self.total_mb} MiB"
        if self.available_mb is not None:
            text += f", {self.available_mb} MiB available"
        if self.usable_mb < self.total_mb:
            text += f", of which this container may use {self.limit_mb} MiB"
        swap = (
            Finding("swap", f"{self.swap_mb} MiB")
            if self.swap_mb
            else Finding.absent("swap", "none is set up")
        )
        return (Finding("memory", text), swap)


def read_memory(root: Path = ROOT) -> Memory | None:
    """Read the memory off a system's files; None where there is no /proc/meminfo."""
    text = read(root, "proc/meminfo")
    sizes = {} if text is None else fields(text)
    total = _mebibytes(sizes.get("MemTotal"))
    if total is None:
        return None
    return Memory(
        total_mb=total,
        available_mb=_mebibytes(sizes.get("MemAvailable")),
        limit_mb=_limit(root),
        swap_mb=_mebibytes(sizes.get("SwapTotal")) or 0,
    )


def _mebibytes(text: str | None) -> int | None:
    """Read ``"16270928 kB"``, of 1024 bytes each."""
    match = re.fullmatch(r"(\d+) kB", text or "")
    return int(match[1]) // 1024 if match else None


def _limit(root: Path) -> int | None:
    """Return a container's limit (cgroup v2, then v1), or None where there is none."""
    for path in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = read(root, path)
        if text is not None and text.isdigit():
            return int(text) // _MIB
    return None
