"""Probe: what this device is and what of it a cascade can use; a profile drafted from that."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinysaver_edge.errors import InputError
from tinysaver_edge.hardware.cpu import Cpu, read_cpu, thermal_findings
from tinysaver_edge.hardware.engines import EngineDevice, Engines, probe_engines
from tinysaver_edge.hardware.finding import ROOT, Finding, Section, fields, read
from tinysaver_edge.hardware.nvidia import Jetson, nvidia_findings, read_board, read_jetson

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory in MiB; on boards whose GPU has none of its own it is the GPU's as well.

    Attributes:
        available_mb: what programs can still take, or None where it is not told.
        limit_mb: what a container grants, or None.
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
        swap = f"{self.swap_mb} MiB" if self.swap_mb else None
        return (Finding("memory", text), Finding.of("swap", swap, "none is set up"))


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


@dataclass(frozen=True, slots=True)
class Probe:
    """Everything that was found, and why the rest was not.

    Attributes:
        board: what the board calls itself, or None.
        jetson: what runs on a Jetson, or None where this is none.
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


def machine(root: Path = ROOT) -> dict[str, Any]:
    """Return what tells one machine from another: processor, memory, power mode."""
    cpu, memory, jetson = read_cpu(root), read_memory(root), read_jetson(root)
    return {
        "board": read_board(root),
        "processor": None if cpu is None else cpu.model,
        "threads": None if cpu is None else cpu.threads,
        "memory_mb": None if memory is None else memory.usable_mb,
        "power_mode": None if jetson is None else jetson.power_mode,
    }


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
    sections = (
        Section(
            "system",
            (
                Finding("operating system", system),
                Finding.of("board", board, "the system does not say"),
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


def draft_profile(name: str, probe: Probe) -> str:
    """Return the text of a profile: what was found, and what only its owner knows as comments.

    Args:
        name: of the profile and of its file, in small letters, digits, dots and dashes.
        probe: what was found.

    Raises:
        InputError: the name cannot be one, or no engine runs here.
    """
    check_device_name(name)
    working = sorted(probe.engines.working, key=_rank)
    if not working:
        raise InputError(
            "no engine runs a model here, so there is nothing to profile: tinysaver-edge doctor "
            "tells what is missing"
        )
    lines = [
        f"name = {json.dumps(name)}",
        f"description = {json.dumps(_description(probe))}",
        f"kind = {json.dumps(_kind(probe))}",
    ]
    if probe.memory is not None:
        lines.append(f"memory_mb = {probe.memory.usable_mb}")
    lines.append("# power_w = the most that it draws, in watts")
    lines += ["", "# All that run a model here. Put the best first: tinysaver-edge bench tells."]
    for one in working:
        lines += ["[[engines]]", *_engine(one), ""]
    lines += [
        "# Limits in force unless others are asked for.",
        "[budgets]",
        "# p95_latency_ms = 33",
        "# memory_mb = 512",
        "",
        "[verified]",
        "on_hardware = true",
        f"ran = [{json.dumps(_ran(probe, working))}]",
        "",
    ]
    return "\n".join(lines)


def check_device_name(name: str) -> None:
    """Refuse a name that cannot be a profile's.

    Raises:
        InputError: it holds something else than small letters, digits, dots and dashes.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise InputError(
            f"device name {name!r}: small letters, digits, dots, dashes and underscores only"
        )


def _rank(one: EngineDevice) -> tuple[bool, str, str]:
    """Put accelerators before processors."""
    is_cpu = one.listed.device in ("CPU", "CPUExecutionProvider")
    return (is_cpu, one.engine, one.listed.device)


def _engine(one: EngineDevice) -> list[str]:
    lines = [
        f"engine = {json.dumps(one.engine)}",
        f"device = {json.dumps(one.listed.device)}",
    ]
    if one.listed.title:
        lines.append(f"note = {json.dumps(one.listed.title)}")
    return lines


def _description(probe: Probe) -> str:
    parts = (probe.board, probe.cpu and probe.cpu.model, probe.system)
    return ", ".join(part for part in parts if part)


def _kind(probe: Probe) -> str:
    if probe.jetson is not None:
        return "jetson"
    return "board" if "Raspberry Pi" in (probe.board or "") else "computer"


def _ran(probe: Probe, working: list[EngineDevice]) -> str:
    versions = {one.engine: one.version for one in probe.engines.inventories}
    tried = ", ".join(
        f"{one.engine} {versions.get(one.engine)} on {one.listed.device}" for one in working
    )
    return f"a model of one convolution answers rightly with {tried}"
