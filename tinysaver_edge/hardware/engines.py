"""Engines: which are installed, which devices they list, and on which of these they really run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from tinysaver_edge.engines.registry import engine_names
from tinysaver_edge.errors import install_command
from tinysaver_edge.hardware.finding import ROOT, Finding, read
from tinysaver_edge.hardware.trial import Inventory, Listed, Trial, take_inventory, try_engine

REMOTE_PROVIDER = "AzureExecutionProvider"
"""Listed by every build of ONNX Runtime; it calls a service in the network and runs no model."""

_LOOKED_FOR = MappingProxyType(
    {
        "onnxruntime": (
            "CUDAExecutionProvider",
            "TensorrtExecutionProvider",
            "OpenVINOExecutionProvider",
        ),
        "openvino": ("GPU", "NPU"),
    }
)
"""Devices worth a line even where an engine does not list them."""

_INTEL = "0x8086"


@dataclass(frozen=True, slots=True)
class EngineDevice:
    """A device that an engine lists, and what came of trying it."""

    engine: str
    listed: Listed
    trial: Trial

    def finding(self) -> Finding:
        """Return what to show."""
        name = f"{self.engine}, {self.listed.device}"
        if not self.trial.works:
            return Finding.absent(name, f"listed, but does not run: {self.trial.detail}")
        told = [self.listed.title, " ".join(self.listed.capabilities)]
        return Finding(name, "; ".join(["runs a model", *(text for text in told if text)]))


@dataclass(frozen=True, slots=True)
class Engines:
    """All engines that were looked for.

    Attributes:
        inventories: of the built-in ones.
    """

    inventories: tuple[Inventory, ...]
    devices: tuple[EngineDevice, ...]
    others: tuple[str, ...]

    @property
    def working(self) -> tuple[EngineDevice, ...]:
        """The devices on which a model ran."""
        return tuple(device for device in self.devices if device.trial.works)

    def findings(self, root: Path = ROOT) -> tuple[Finding, ...]:
        """Return what to show."""
        found: list[Finding] = []
        for inventory in self.inventories:
            if inventory.version is None:
                found.append(Finding.absent(inventory.engine, inventory.why or "not installed"))
                continue
            found.append(Finding(inventory.engine, inventory.version))
            mine = [one for one in self.devices if one.engine == inventory.engine]
            found += [one.finding() for one in mine]
            kinds = {one.listed.device.partition(".")[0] for one in mine}
            found += [
                Finding.absent(f"{inventory.engine}, {device}", _why_not(device, root))
                for device in _LOOKED_FOR[inventory.engine]
                if device not in kinds
            ]
        return (*found, *(Finding(name, "installed as a plug-in") for name in self.others))


def probe_engines(
    *,
    inventory: Callable[[str], Inventory] | None = None,
    trial: Callable[[str, str], Trial] = try_engine,
) -> Engines:
    """Ask every installed engine for its devices and run a tiny model on each.

    Args:
        inventory: asks one engine; by default in a process of its own, where it is installed.
        trial: tries one device; by default in a process of its own.
    """
    ask = inventory or _ask
    inventories = tuple(ask(engine) for engine in _LOOKED_FOR)
    devices = tuple(
        EngineDevice(one.engine, listed, trial(one.engine, listed.device))
        for one in inventories
        for listed in one.devices
        if listed.device != REMOTE_PROVIDER
    )
    others = tuple(name for name in engine_names() if name not in _LOOKED_FOR and _is_there(name))
    return Engines(inventories, devices, others)


def _ask(engine: str) -> Inventory:
    if find_spec(engine) is None:
        why = f"not installed: {install_command(engine)}"
        return Inventory(engine, None, why=why)
    return take_inventory(engine)


def _is_there(engine: str) -> bool:
    """Whether the package of an engine is installed that this one knows; plug-ins always are."""
    return engine != "torch" or find_spec("torch") is not None


def _why_not(device: str, root: Path) -> str:
    """Say why an engine does not list a device, as far as the system's files tell."""
    if device.endswith("ExecutionProvider"):
        return "this build of onnxruntime was made without it"
    nodes = {"GPU": "dev/dri/renderD*", "NPU": "dev/accel/accel*"}[device]
    found = sorted(root.glob(nodes))
    if device == "GPU":
        found = [node for node in found if _is_intel(root, node.name)]
    if not found:
        return f"the kernel shows no such device (/{nodes} of Intel's)"
    package = {"GPU": "intel-opencl-icd", "NPU": "intel-level-zero-npu"}[device]
    return (
        f"the kernel shows /{found[0].relative_to(root)}, but OpenVINO's driver for it is missing "
        f"({package}) or the user may not open it (group render)"
    )


def _is_intel(root: Path, node: str) -> bool:
    return read(root, f"sys/class/drm/{node}/device/vendor") == _INTEL
