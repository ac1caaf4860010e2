"""OpenVINO: runs .onnx, .xml and .tflite on CPU, GPU, NPU, or several of them.

OpenVINO takes another precision on its own: bfloat16 where the processor has it, and that also for
float16. So a device is asked what it can do before, and the compiled graph what it does after.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import import_engine, needs
from tinysaver_edge.engines.base import Engine, EngineOptions, ModelSignature, Precision, as_rows
from tinysaver_edge.engines.batching import SIZES
from tinysaver_edge.engines.model_file import check_model_file, one_line
from tinysaver_edge.engines.signature import TensorInfo, signature_of
from tinysaver_edge.errors import EngineError, ModelError
from tinysaver_edge.preprocess import Batch

Core: TypeAlias = Any  # openvino.Core
Graph: TypeAlias = Any  # openvino.Model
Compiled: TypeAlias = Any  # openvino.CompiledModel
OpenVino: TypeAlias = Any  # the package
Port: TypeAlias = Any  # an input or output of a graph

_HINTS = {Precision.FLOAT32: "f32", Precision.FLOAT16: "f16", Precision.BFLOAT16: "bf16"}
_CAPABILITIES = {Precision.FLOAT32: "FP32", Precision.FLOAT16: "FP16", Precision.BFLOAT16: "BF16"}
_COMBINED = frozenset({"AUTO", "MULTI", "HETERO", "BATCH"})
_UNCHECKED_BEFORE = frozenset({"AUTO", "MULTI", "HETERO"})
_STREAMS = "NUM_STREAMS"
_THREADS = "INFERENCE_NUM_THREADS"
_PINNING = "ENABLE_CPU_PINNING"
TOLERANCE = 1e-4
"""How far an answer may move, as a share of the largest: what another order of sums comes to."""

_SOUND_TFLITE = (2025, 2)  # 2025.0 took the ends of input and output ranges for others


class OpenVinoEngine(Engine):
    """Runs a model file with OpenVINO.

    Devices are OpenVINO's: ``"CPU"``, ``"GPU"``, ``"GPU.1"``, ``"NPU"``, ``"AUTO"``,
    ``"AUTO:GPU,CPU"``, ``"HETERO:NPU,CPU"`` and so on.
    """

    name: ClassVar[str] = "openvino"
    suffixes: ClassVar[frozenset[str]] = frozenset({".onnx", ".xml", ".tflite"})

    @classmethod
    def accepts_device(cls, device: str) -> bool:
        """Whether the name is not that of one of ONNX Runtime's providers."""
        return not device.partition(":")[0].endswith("ExecutionProvider")

    @classmethod
    def inspect(cls, model: Path, *, output: str | None = None) -> ModelSignature:
        """Read a file's signature, without compiling it."""
        return model_signature(model, read_model(open_core(), model), output)

    def _load(self) -> tuple[str, ModelSignature]:
        self._core = open_core()
        self._graph = read_model(self._core, self.model)
        self._for_several: dict[int | None, _Request | None] = {}
        signature = model_signature(self.model, self._graph, self.output.name)
        self._answer = place_of(self._graph.outputs, signature.output_name)
        single = self._of_one(signature)
        device = self.options.device or "CPU"
        try:
            self._single = self._compile(single, device, self.options)
        except EngineError:
            if not self.options.allow_fallback or device == "CPU":
                raise
            device, self.precision, self.fell_back = "CPU", Precision.FLOAT32, True
            self._single = self._compile(single, device, self.options)
        return device, signature

    def _of_one(self, signature: ModelSignature) -> Graph:
        """Return the graph for one sample, which runs a fifth quicker than for any number."""
        if signature.batch_size is not None:
            return self._graph
        # A graph may insist on its open axes, and a description may be wrong.
        return reshaped(self._graph, [1, *self._sample_shape]) or self._graph

    def _compile(self, graph: Graph, device: str, options: EngineOptions) -> _Request:
        options = replace(options, precision=self.precision)
        compiled = compile_for(self._core, graph, device, options, model=self.model)
        return _Request(compiled, self._answer)

    def _run(self, batch: Batch) -> NDArray[Any]:
        try:
            raw = self._request_for(batch)(batch)
        except RuntimeError as error:
            raise EngineError(
                f"{self.model.name} failed on {self.device} with a batch of {batch.shape}: "
                f"{one_line(error)}"
            ) from error
        return as_rows(raw, len(batch), model=self.model.name)

    def _takes(self, samples: int) -> bool:
        return super()._takes(samples) or self._several(samples) is not None

    def _request_for(self, batch: Batch) -> _Request:
        """Return what runs a batch of that length."""
        several = (
            None if len(batch) in (1, self.signature.batch_size) else self._several(len(batch))
        )
        return several or self._single

    def _several(self, samples: int) -> _Request | None:
        """Return what runs so many samples, compiled when first needed; None: nothing does."""
        size = samples if samples in SIZES else None  # a fifth quicker than for any number
        if size not in self._for_several:
            self._for_several[size] = self._request_of(size)
        return self._for_several[size]

    def _request_of(self, size: int | None) -> _Request | None:
        """Return what runs that many samples, or any number.

        Published files often fix their number at one, mostly for no reason.
        """
        fixed = self.signature.batch_size
        if fixed not in (None, 1):
            return None
        graph = reshaped(self._graph, [size or -1, *self._sample_shape])
        if fixed is None:
            return self._compile(graph or self._graph, self.device, self.options)
        if graph is None:
            return None
        try:
            several = self._compile(graph, self.device, self.options)
        except EngineError:
            return None
        same = same_answers(self._single, several, (size or 3, *self._sample_shape), self._dtype)
        return several if same else None

    def _release(self) -> None:
        del self._core, self._graph, self._single, self._for_several


class _Request:
    """A compiled graph, called on the batch's own memory and answering with the graph's own."""

    def __init__(self, compiled: Compiled, answer: int) -> None:
        self._request = compiled.create_infer_request()
        # By place: compiling may leave an output with fewer names, or others.
        self._answer = compiled.outputs[answer]
        self._tensor = _import().Tensor
        self._bound: Batch | None = None

    def __call__(self, batch: Batch) -> NDArray[Any]:
        """Run on a batch; a caller who refills one array saves the binding."""
        if batch is not self._bound:
            self._bound = np.require(batch, requirements=("C", "W"))
            self._request.set_input_tensor(self._tensor(self._bound, shared_memory=True))
        self._request.infer(share_outputs=True)
        raw: NDArray[Any] = self._request.get_tensor(self._answer).data
        return raw


def read_model(core: Core, model: Path) -> Graph:
    """Read a model file into OpenVINO's graph.

    Raises:
        ModelError: the file is missing, truncated or of no format that OpenVINO reads.
    """
    check_model_file(model)
    if model.suffix == ".xml" and not model.with_suffix(".bin").is_file():
        raise ModelError(
            f"model {model}: its weights {model.with_suffix('.bin').name} are not beside it"
        )
    if model.suffix == ".tflite":
        _require_sound_tflite(model)
    try:
        return core.read_model(str(model))
    except (RuntimeError, ValueError) as error:  # names that are no UTF-8 among them
        raise ModelError(f"model {model}: openvino cannot read it: {one_line(error)}") from error


def save_model(graph: Graph, out: Path) -> None:
    """Write .xml and .bin under other names first, and move them into place, the .xml last."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        made = Path(folder) / out.name
        _import().save_model(graph, str(made), compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            path = made.with_suffix(suffix)
            with path.open("rb+") as file:
                os.fsync(file.fileno())
            path.replace(out.with_suffix(suffix))


def _require_sound_tflite(model: Path) -> None:
    """Refuse releases that misread the integers of quantised models without a word."""
    found = _import().__version__
    if tuple(int(part) for part in found.split(".")[:2]) < _SOUND_TFLITE:
        raise EngineError(
            f"model {model}: openvino {found.partition('-')[0]} misreads quantised .tflite files: "
            f"pip install 'openvino>={'.'.join(map(str, _SOUND_TFLITE))}'"
        )


def model_signature(model: Path, graph: Graph, answer: str | None = None) -> ModelSignature:
    """Return the signature of a graph that was read from a file."""
    try:
        inputs, outputs = ([_info(one) for one in ends] for ends in (graph.inputs, graph.outputs))
    except (RuntimeError, UnicodeDecodeError) as error:
        raise ModelError(f"model {model}: openvino cannot read it: {one_line(error)}") from error
    return signature_of(model, inputs, outputs, answer=answer)


def _import() -> OpenVino:
    with needs("openvino", extra="openvino", purpose="Running models with engine openvino"):
        return import_engine("openvino")


def open_core() -> Core:
    """Return a core of its own: cheap, and settings made on it reach nobody else.

    Raises:
        MissingDependencyError: openvino is not installed.
    """
    core = _import().Core()
    # Weights that stay in their file can be changed in it while the model runs.
    core.set_property({"ENABLE_MMAP": False})
    return core


def _info(port: Port) -> TensorInfo:
    kind = port.get_element_type()
    try:
        dtype = np.dtype(kind.to_dtype()).name
    except (IndexError, RuntimeError, TypeError, ValueError):
        dtype = kind.get_type_name()
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return TensorInfo(_name(port), None, dtype)
    axes = tuple(None if axis.is_dynamic else axis.get_length() for axis in shape)
    return TensorInfo(_name(port), axes, dtype, tuple(sorted(port.get_names())))


def _name(port: Port) -> str:
    names: set[str] = port.get_names()
    return min(names) if names else str(port.get_node().get_friendly_name())


def port_of(ports: Iterable[Port], name: str) -> Port:
    """Return the one of several inputs or outputs that a signature names."""
    return next(port for port in ports if name in (_name(port), *port.get_names()))


def place_of(ports: Iterable[Port], name: str) -> int:
    """Return which of several inputs or outputs a signature names."""
    ports = list(ports)
    return ports.index(port_of(ports, name))


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
    if device.partition(":")[0] == "BATCH" and len(parts) != 1:
        raise EngineError(
            f"engine openvino: device {device!r} names {len(parts)} devices, and BATCH takes one: "
            f"ask for BATCH:{available[0]}, or BATCH:{available[0]}(8)"
        )
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
    kind = device.partition(":")[0]
    if kind not in _COMBINED:
        return settings | _known(core, device, own)
    if kind == "BATCH":  # hands what it is told to its one device, and knows no DEVICE_PROPERTIES
        return settings | _known(core, parts[0], own)
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


def reshaped(graph: Graph, shape: Sequence[int]) -> Graph | None:
    """Return the graph for another input shape, where -1 is any; None where it keeps to its own."""
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
