"""Probe: what this device is, and what of it a cascade can use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinysaver_edge.hardware.cpu import Cpu, read_cpu
from tinysaver_edge.hardware.engines import Engines, probe_engines
from tinysaver_edge.hardware.finding import Finding, Section
from tinysaver_edge.hardware.jetson import Jetson, read_board, read_jetson
from tinysaver_edge.hardware.memory import Memory, read_memory
from tinysaver_edge.hardware.nvidia import nvidia_findings
from tinysaver_edge.hardware.system_files import ROOT, fields, read
from tinysaver_edge.hardware.thermal import thermal_findings


@dataclass(frozen=True, slots=True)
class Probe:
    """Everything that was found, and why the rest was not.

    Attributes:
        system: name of the operating system.
        board: what the board calls itself, or None.
        cpu: the processor, or None where the system does not tell.
        memory: the memory, or None where the system does not tell.
        jetson: what runs on a Jetson, or None where this is none.
        engines: the engines and their devices.
        sections: all of it, to be shown.
    """

    system: str
    board: str | None
    cpu: Cpu | None
    memory: Memory | None
    jetson: Jetson | None
    engines: Engines
    sections: tuple[Section, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {"sections": [section.to_dict() for section in self.sections]}


def probe(root: Path = ROOT, *, engines: Engines | None = None) -> Probe:
    """Look at a device.

    Args:
        root: folder that stands for ``/``; another than that shows what a recorded system is.
        engines: what was found of them; by default this machine's are tried.
    """
    found = probe_engines() if engines is None else engines
    system, board = _system(root), read_board(root) or _product(root)
    cpu, memory, jetson = read_cpu(root), read_memory(root), read_jetson(root)
    accelerators = nvidia_findings(root) if jetson is None else jetson.findings()
    unsaid = "the system does not say"
    sections = (
        Section(
            "system",
            (
                Finding("operating system", system),
                Finding("board", board) if board else Finding.absent("board", unsaid),
            ),
        ),
        Section(
            "processor",
            cpu.findings() if cpu else (Finding.absent("processor", "no /proc/cpuinfo"),),
        ),
        Section(
            "memory",
            memory.findings() if memory else (Finding.absent("memory", "no /proc/meminfo"),),
        ),
        Section("Jetson" if jetson else "NVIDIA", accelerators),
        Section("engines", found.findings(root)),
        Section("heat and power", thermal_findings(root)),
    )
    return Probe(system, board, cpu, memory, jetson, found, sections)


def _system(root: Path) -> str:
    """Read the distribution's name and the kernel's version."""
    lines = (read(root, "etc/os-release") or "").replace("=", ":")
    name = fields(lines).get("PRETTY_NAME", "unknown").strip("\"'")
    kernel = read(root, "proc/sys/kernel/osrelease")
    return f"{name}, kernel {kernel}" if kernel else name


def _product(root: Path) -> str | None:
    """Read a computer's name off its firmware, which has placeholders where the maker left them."""
    names = [read(root, f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")]
    known = [name for name in names if name and "O.E.M." not in name and name != "Default string"]
    return " ".join(known) or None
