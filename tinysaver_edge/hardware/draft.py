"""Draft: a device profile written from what a probe has found, to be completed by its owner."""

from __future__ import annotations

import json
import re

from tinysaver_edge.errors import InputError
from tinysaver_edge.hardware.engines import EngineDevice
from tinysaver_edge.hardware.probe import Probe


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
