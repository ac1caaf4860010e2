"""OpenVINO: runs .onnx, .xml and .tflite on CPU, GPU, NPU, or several of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import import_engine
from tinysaver_edge.engines.base import Engine, EngineOptions, ModelSignature, Precision, as_rows
from tinysaver_edge.engines.batching import SIZES
from tinysaver_edge.engines.model_file import check_model_file, one_line
from tinysaver_edge.engines.openvino_compile import compile_for, reshaped, same_answers
from tinysaver_edge.engines.signature import TensorInfo, signature_of
from tinysaver_edge.errors import EngineError, MissingDependencyError, ModelError
from tinysaver_edge.preprocess import Batch

OpenVino: TypeAlias = Any  # the package
Core: TypeAlias = Any  # openvino.Core
Graph: TypeAlias = Any  # openvino.Model
Compiled: TypeAlias = Any  # openvino.CompiledModel
Port: TypeAlias = Any  # an input or output of a graph

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


def _require_sound_tflite(model: Path) -> None:
    """Refuse releases that misread the integers of quantised models without a word."""
    found = _import().__version__
    if tuple(int(part) for part in found.split(".")[:2]) < _SOUND_TFLITE:
        raise EngineError(
            f"model {model}: openvino {found.partition('-')[0]} misreads quantised .tflite files: "
            f"pip install 'openvino>={'.'.join(map(str, _SOUND_TFLITE))}'"
        )


def model_signature(model: Path, graph: Graph, answer: str | None = None) -> ModelSignature:
    """Return the signature of a graph that was read from a file.

    Args:
        model: the file.
        graph: what was read.
        answer: name of the output that holds the classes, where there are several.
    """
    try:
        inputs, outputs = ([_info(one) for one in ends] for ends in (graph.inputs, graph.outputs))
    except (RuntimeError, UnicodeDecodeError) as error:
        raise ModelError(f"model {model}: openvino cannot read it: {one_line(error)}") from error
    return signature_of(model, inputs, outputs, answer=answer)


def _import() -> OpenVino:
    try:
        return import_engine("openvino")
    except ImportError as error:
        raise MissingDependencyError(
            "openvino", extra="openvino", purpose="Running models with engine openvino"
        ) from error


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
