"""Inventory: what an installed engine says of itself, asked in a process of its own.

python -m tinysaver_edge.hardware.inventory openvino
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from tinysaver_edge._support.packages import import_engine
from tinysaver_edge.hardware.trial import run_apart

TIMEOUT_S = 60.0
"""Importing an engine from a slow card takes several seconds."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A device as an engine lists it.

    Attributes:
        device: the engine's string for it.
        title: what it calls itself, or "".
        capabilities: what it says it can do, or nothing.
    """

    device: str
    title: str = ""
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """An engine's package and the devices that it lists, be they of use or not.

    Attributes:
        engine: its name, which is also that of the package.
        version: of the package, or None where it cannot be imported.
        devices: what it lists.
        why: why it cannot be imported, or None.
    """

    engine: str
    version: str | None
    devices: tuple[Listed, ...] = field(default_factory=tuple)
    why: str | None = None


def take(engine: str) -> Inventory:
    """Ask ``onnxruntime`` or ``openvino`` what it lists."""
    command = [sys.executable, "-m", "tinysaver_edge.hardware.inventory", engine]
    result = run_apart(command, timeout_s=TIMEOUT_S)
    if result.answer is None:
        return Inventory(engine, None, why=result.why)
    found = json.loads(result.answer)
    devices = tuple(
        Listed(one["device"], one["title"], tuple(one["capabilities"])) for one in found["devices"]
    )
    return Inventory(engine, found["version"], devices)


def _onnxruntime() -> tuple[str, list[Listed]]:
    onnxruntime = import_engine("onnxruntime")

    return onnxruntime.__version__, [
        Listed(provider) for provider in onnxruntime.get_available_providers()
    ]


def _openvino() -> tuple[str, list[Listed]]:
    openvino = import_engine("openvino")

    core = openvino.Core()
    devices = [
        Listed(
            device,
            str(core.get_property(device, "FULL_DEVICE_NAME")).strip(),
            tuple(sorted(map(str, core.get_property(device, "OPTIMIZATION_CAPABILITIES")))),
        )
        for device in core.available_devices
    ]
    return openvino.__version__, devices


def main() -> None:
    """Print what the engine that the command line names says of itself, as JSON."""
    version, devices = {"onnxruntime": _onnxruntime, "openvino": _openvino}[sys.argv[1]]()
    answer: dict[str, Any] = {"version": version, "devices": [asdict(one) for one in devices]}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
