"""Processor: model, cores, instruction sets for neural networks; its heat, clock, throttling."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tinysaver_edge.hardware.finding import ROOT, Finding, fields, read, read_all, read_int

_CPUS = "sys/devices/system/cpu/cpu[0-9]*"
_PI_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
_PI_BITS = MappingProxyType(
    {
        0: "too little voltage now",
        1: "clock capped now",
        2: "throttled now",
        3: "at its soft temperature limit now",
        16: "too little voltage since it started",
        17: "clock capped since it started",
        18: "throttled since it started",
        19: "at its soft temperature limit since it started",
    }
)
"""What the bits of ``get_throttled`` mean (Raspberry Pi documentation, vcgencmd)."""

_X86_SETS = MappingProxyType(
    {
        "AVX2": "avx2",
        "AVX-VNNI": "avx_vnni",
        "AVX-512": "avx512f",
        "AVX-512 VNNI": "avx512_vnni",
        "AVX-512 BF16": "avx512_bf16",
        "AVX-512 FP16": "avx512_fp16",
        "AMX INT8": "amx_int8",
        "AMX BF16": "amx_bf16",
    }
)
"""Names of instruction sets and the flags by which /proc/cpuinfo tells of them."""

_ARM_SETS = MappingProxyType(
    {
        "NEON": "asimd",
        "NEON FP16": "asimdhp",
        "dot product": "asimddp",
        "i8mm": "i8mm",
        "BF16": "bf16",
        "SVE": "sve",
        "SVE2": "sve2",
    }
)

_SETS = MappingProxyType({"x86_64": _X86_SETS, "aarch64": _ARM_SETS})
_ARM_CORES = MappingProxyType(
    {
        "0xd03": "Cortex-A53",
        "0xd04": "Cortex-A35",
        "0xd05": "Cortex-A55",
        "0xd07": "Cortex-A57",
        "0xd08": "Cortex-A72",
        "0xd09": "Cortex-A73",
        "0xd0a": "Cortex-A75",
        "0xd0b": "Cortex-A76",
        "0xd0c": "Neoverse-N1",
        "0xd0d": "Cortex-A77",
        "0xd0e": "Cortex-A76AE",
        "0xd40": "Neoverse-V1",
        "0xd41": "Cortex-A78",
        "0xd42": "Cortex-A78AE",
        "0xd46": "Cortex-A510",
        "0xd47": "Cortex-A710",
        "0xd49": "Neoverse-N2",
        "0xd4b": "Cortex-A78C",
        "0xd4d": "Cortex-A715",
        "0xd4f": "Neoverse-V2",
        "0xd80": "Cortex-A520",
        "0xd81": "Cortex-A720",
        "0xd83": "Neoverse-V3AE",
        "0xd84": "Neoverse-V3",
        "0xd8e": "Neoverse-N3",
    }
)
"""Part numbers of Arm's own cores (implementer 0x41), from Arm's technical reference manuals."""

_ARM = "0x41"

_INT8_SETS = (
    "AMX INT8",
    "AVX-512 VNNI",
    "AVX-VNNI",
    "AVX-512",
    "AVX2",
    "i8mm",
    "dot product",
    "NEON",
)
"""What arithmetic on 8 bits is done with, the widest first: engines take the first there is."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """A processor as Linux describes it.

    Attributes:
        architecture: ``"x86_64"``, ``"aarch64"`` or ``"unknown"``.
        model: the maker's name for it, or the names of its cores.
        cores: cores that do not share an arithmetic unit; None where it is not told.
        threads: logical processors that the system schedules on.
        usable: how many of these a container's quota leaves; a fraction where it grants one.
        instruction_sets: those of the known ones that it has.
        lacking: those of the known ones that it has not.
    """

    architecture: str
    model: str
    cores: int | None
    threads: int
    usable: float
    instruction_sets: tuple[str, ...]
    lacking: tuple[str, ...]

    @property
    def family(self) -> str:
        """Processors on which INT8 models answer alike, such as ``"x86_64 with AVX-512 VNNI"``.

        An engine's kernels round sums of 8-bit products where their instructions do: the same file
        answers otherwise on another family, by up to 0.06 of a probability.
        """
        has = next((name for name in _INT8_SETS if name in self.instruction_sets), None)
        return self.architecture if has is None else f"{self.architecture} with {has}"

    def findings(self) -> tuple[Finding, ...]:
        """Return what to show."""
        cores = f"{self.cores or '?'} cores, {self.threads} threads"
        if self.usable < self.threads:
            cores += f", of which this container may use {self.usable:g}"
        return (
            Finding("processor", f"{self.model} ({self.architecture})"),
            Finding("cores", cores),
            *(Finding(name, "yes") for name in self.instruction_sets),
            *(Finding.absent(name, "this processor has it not") for name in self.lacking),
        )


def read_cpu(root: Path = ROOT) -> Cpu | None:
    """Read the processor off a system's files; None where there is no /proc/cpuinfo."""
    text = read(root, "proc/cpuinfo")
    if text is None:
        return None
    blocks = [fields(block) for block in re.split(r"\n\s*\n", text)]
    processors = [block for block in blocks if "processor" in block]
    flags = {flag for one in processors for flag in _flags(one)}
    architecture = _architecture(processors)
    known = _SETS.get(architecture, MappingProxyType({}))
    threads = max(len(processors), 1)
    return Cpu(
        architecture=architecture,
        model=_model(processors),
        cores=_cores(root, processors, architecture),
        threads=threads,
        usable=_usable(root, threads),
        instruction_sets=tuple(name for name, flag in known.items() if flag in flags),
        lacking=tuple(name for name, flag in known.items() if flag not in flags),
    )


def _flags(processor: dict[str, str]) -> list[str]:
    return (processor.get("flags") or processor.get("Features") or "").split()


def _architecture(processors: list[dict[str, str]]) -> str:
    first = processors[0] if processors else {}
    if "flags" in first:
        return "x86_64"
    return "aarch64" if "asimd" in _flags(first) else "unknown"


def _model(processors: list[dict[str, str]]) -> str:
    """Return the maker's name, else that of each kind of core with how many there are."""
    named = next((one["model name"] for one in processors if one.get("model name")), None)
    if named is not None:
        return named
    kinds: dict[str, int] = {}
    for one in processors:
        part = one.get("CPU part")
        if part is not None:
            name = _ARM_CORES.get(part) if one.get("CPU implementer") == _ARM else None
            name = name or f"core {one.get('CPU implementer', '?')}:{part}"
            kinds[name] = kinds.get(name, 0) + 1
    return ", ".join(f"{count} x {name}" for name, count in kinds.items()) or "unknown"


def _cores(root: Path, processors: list[dict[str, str]], architecture: str) -> int | None:
    if architecture == "x86_64":
        places = {(one.get("physical id", "0"), one.get("core id")) for one in processors}
        return None if any(core is None for _, core in places) else len(places)
    return len(set(read_all(root, f"{_CPUS}/topology/thread_siblings_list"))) or None


def _usable(root: Path, threads: int) -> float:
    """Return how many logical processors a container's quota grants (cgroup v2, then v1)."""
    quota = (read(root, "sys/fs/cgroup/cpu.max") or "").split()
    if len(quota) != 2:
        quota = [
            read(root, f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us") or "" for name in ("quota", "period")
        ]
    try:
        granted = float(quota[0]) / float(quota[1])
    except (ValueError, ZeroDivisionError):
        return threads
    return min(granted, threads) if granted > 0 and math.isfinite(granted) else threads


def thermal_findings(root: Path = ROOT) -> tuple[Finding, ...]:
    """Return temperatures, governor, platform profile and throttling as far as a system tells."""
    return (
        *_temperatures(root),
        _governor(root),
        Finding.of(
            "platform profile",
            read(root, "sys/firmware/acpi/platform_profile"),
            "its firmware has none",
        ),
        _throttling(root),
    )


def temperatures_c(root: Path = ROOT) -> dict[str, float]:
    """Return the temperature of every thermal zone that tells one, in degrees Celsius."""
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*"), key=_number):
        path = zone.relative_to(root)
        millidegrees = read_int(root, f"{path}/temp")
        # Zones of parts that are switched off tell the lowest number there is.
        if millidegrees is not None and millidegrees > -100_000:
            kind = read(root, f"{path}/type") or zone.name
            found[kind if kind not in found else f"{kind} ({zone.name})"] = millidegrees / 1e3
    return found


def _number(zone: Path) -> int:
    digits = zone.name.removeprefix("thermal_zone")
    return int(digits) if digits.isdigit() else 0


def _temperatures(root: Path) -> list[Finding]:
    found = temperatures_c(root)
    if not found:
        return [Finding.absent("temperature", "no thermal zone tells one")]
    return [Finding(f"temperature {zone}", f"{value:.1f} °C") for zone, value in found.items()]


def _governor(root: Path) -> Finding:
    governors = sorted(set(read_all(root, f"{_CPUS}/cpufreq/scaling_governor")))
    reason = "the system does not scale clocks, or does not say"
    return Finding.of("clock governor", ", ".join(governors), reason)


def _throttling(root: Path) -> Finding:
    found = throttling(root)
    if found is None:
        return Finding.absent("throttling", "the system does not count it")
    return Finding("throttling", found or "not since it started")


def throttling(root: Path = ROOT) -> str | None:
    """Say how heat or a weak supply has slowed the processor down since it started.

    Returns:
        What happened, "" where nothing did, None where the system does not count it.
    """
    text = read(root, _PI_THROTTLED)
    if text is not None and re.fullmatch(r"(0x)?[0-9a-fA-F]+", text):
        bits = int(text, 16)
        return ", ".join(meaning for bit, meaning in _PI_BITS.items() if bits >> bit & 1)
    counts = read_all(root, f"{_CPUS}/thermal_throttle/core_throttle_count")
    known = [int(count) for count in counts if count.isdigit()]
    if not known:
        return None
    return f"{max(known)} times since it started" if max(known) else ""
