"""Compile a graph with OpenVINO for exactly the device and the precision that were asked for.

OpenVINO takes another precision on its own: bfloat16 where the processor has it, and that also for
float16. So a device is asked what it can do before, and the compiled graph what it does after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.engines.base import EngineOptions, Precision
from tinysaver_edge.engines.model_file import one_line
from tinysaver_edge.errors import EngineError
from tinysaver_edge.preprocess import Batch

Core: TypeAlias = Any  # openvino.Core
Graph: TypeAlias = Any  # openvino.Model
Compiled: TypeAlias = Any  # openvino.CompiledModel

_HINTS = {Precision.FLOAT32: "f32", Precision.FLOAT16: "f16", Precision.BFLOAT16: "bf16"}
_CAPABILITIES = {Precision.FLOAT32: "FP32", Precision.FLOAT16: "FP16", Precision.BFLOAT16: "BF16"}
_COMBINED = frozenset({"AUTO", "MULTI", "HETERO", "BATCH"})
_UNCHECKED_BEFORE = frozenset({"AUTO", "MULTI", "HETERO"})
_STREAMS = "NUM_STREAMS"
_THREADS = "INFERENCE_NUM_THREADS"
_PINNING = "ENABLE_CPU_PINNING"


def compile_for(
    core: Core, graph: Graph, device: str, options: EngineOptions, *, model: Path
) -> Compiled:
    """Compile for exactly that device and precision.

    Raises:
        EngineError: the device is not there, cannot compute so, or cannot run the model.
    """
    parts = _parts(device)
    _require_devices(core, device, parts)
    if device.partition(":")[0] not in _UNCHECKED_BEFORE:
        _require_precision(core, parts, options.precision)
    try:
        compiled = core.compile_model(graph, device, _settings(core, device, parts, options))
    except RuntimeError as error:
        raise EngineError(
            f"model {model}: openvino cannot compile it for {device}: {one_line(error)}"
        ) from error
    found = _precisions(compiled)
    if found != {_HINTS[options.precision]}:
        names = (word.value for word, hint in _HINTS.items() if hint in found)
        raise EngineError(
            f"{model.name} would compute in {_list(names)} on {device}, asked for "
            f"{options.precision.value}: ask for a precision that the device has"
        )
    return compiled


def _parts(device: str) -> list[str]:
    """Return the devices that a name like ``"HETERO:GPU.1,CPU"`` stands for."""
    kind, _, listed = device.partition(":")
    if kind not in _COMBINED:
        return [device]
    names = (name.strip().partition("(")[0] for name in listed.split(","))
    return [name.removeprefix("-") for name in names if name]


def _require_devices(core: Core, device: str, parts: list[str]) -> None:
    available = list(core.available_devices)
    kinds = {name.partition(".")[0] for name in available}
    missing = [name for name in parts if name not in available and name not in kinds]
    if missing:
        raise EngineError(
            f"engine openvino has no device {device} here, only {_list(available)} (and AUTO, "
            "HETERO over them): ask for one of these, or install the device's driver"
        )


def _require_precision(core: Core, parts: list[str], precision: Precision) -> None:
    """Refuse a precision that a device does not name, before it quietly takes another."""
    for name in parts:
        capabilities = core.get_property(name, "OPTIMIZATION_CAPABILITIES")
        if _CAPABILITIES.get(precision) not in capabilities:
            there = [known.value for known, word in _CAPABILITIES.items() if word in capabilities]
            raise EngineError(
                f"{name} cannot compute in {precision.value} here, it has {_list(there)}"
            )


def _settings(core: Core, device: str, parts: list[str], options: EngineOptions) -> dict[str, Any]:
    """Settings for latency; what only some devices know goes to these alone."""
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _HINTS[options.precision],
    }
    if options.cache_dir is not None:
        options.cache_dir.mkdir(parents=True, exist_ok=True)
        settings["CACHE_DIR"] = str(options.cache_dir)
    # Left alone, OpenVINO binds each model's threads to the same first cores: saver and large model
    # then take turns on one core while others idle.
    own: dict[str, Any] = {_STREAMS: 1, _PINNING: False}
    if options.threads is not None:
        own[_THREADS] = options.threads
    if device.partition(":")[0] not in _COMBINED:
        return settings | _known(core, device, own)
    each = {name: _known(core, name, own) for name in parts or core.available_devices}
    return settings | {"DEVICE_PROPERTIES": {name: what for name, what in each.items() if what}}


def _known(core: Core, device: str, settings: dict[str, Any]) -> dict[str, Any]:
    supported = core.get_property(device, "SUPPORTED_PROPERTIES")
    return {key: value for key, value in settings.items() if key in supported}


def _precisions(compiled: Compiled) -> set[str]:
    """Return the precisions that a compiled model says it computes in."""
    try:
        return {compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()}
    except RuntimeError:
        devices = compiled.get_property("DEVICE_PROPERTIES").values()
    hints = (what.get("INFERENCE_PRECISION_HINT") for what in devices)
    return {hint.get_type_name() for hint in hints if hint is not None}


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


TOLERANCE = 1e-4
"""How far an answer may move, as a share of the largest: what another order of sums comes to."""


def reshaped(graph: Graph, shape: Sequence[int]) -> Graph | None:
    """Return the graph for another input shape, where -1 is any; None where it keeps to its own.

    Args:
        graph: left as it is.
        shape: of the input.
    """
    other = graph.clone()
    try:
        other.reshape(list(shape))
    except RuntimeError:
        return None
    return other


def same_answers(
    single: Callable[[Batch], NDArray[Any]],
    several: Callable[[Batch], NDArray[Any]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> bool:
    """Whether some samples get the same answers at once as one by one.

    A graph may mix its samples up where a constant of its own tells their number.

    Args:
        single: runs one sample.
        several: runs as many as ``shape`` has.
        shape: of the samples.
        dtype: of the samples.
    """
    noise = np.random.default_rng(0).integers(0, 128, shape).astype(dtype)
    alone = [np.array(single(noise[place : place + 1])).ravel() for place in range(len(noise))]
    expected = np.stack(alone).astype(np.float64)
    try:
        found = np.array(several(noise), np.float64)
    except RuntimeError:
        return False
    if found.shape[0] != len(noise) or found.size != expected.size:
        return False
    moved = np.abs(found.reshape(expected.shape) - expected).max()
    return bool(moved <= TOLERANCE * np.abs(expected).max())
