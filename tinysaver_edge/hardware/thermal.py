"""Heat and power: temperatures, clock governors, power modes, and whether it was throttled."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

from tinysaver_edge.hardware.finding import Finding
from tinysaver_edge.hardware.system_files import ROOT, read, read_int

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


def thermal_findings(root: Path = ROOT) -> tuple[Finding, ...]:
    """Return temperatures, governor, platform profile and throttling as far as a system tells."""
    return (
        *_temperatures(root),
        _governor(root),
        _told(
            root, "platform profile", "sys/firmware/acpi/platform_profile", "its firmware has none"
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
    folder = root / "sys/devices/system/cpu"
    governors = {
        read(root, str(path.relative_to(root)))
        for path in folder.glob("cpu[0-9]*/cpufreq/scaling_governor")
    }
    names = sorted(name for name in governors if name is not None)
    if not names:
        return Finding.absent("clock governor", "the system does not scale clocks, or does not say")
    return Finding("clock governor", ", ".join(names))


def _told(root: Path, name: str, path: str, reason: str) -> Finding:
    value = read(root, path)
    return Finding.absent(name, reason) if value is None else Finding(name, value)


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
    counts = [
        read_int(root, str(path.relative_to(root)))
        for path in (root / "sys/devices/system/cpu").glob(
            "cpu[0-9]*/thermal_throttle/core_throttle_count"
        )
    ]
    known = [count for count in counts if count is not None]
    if not known:
        return None
    return f"{max(known)} times since it started" if max(known) else ""
