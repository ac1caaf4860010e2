"""ONNX Runtime: runs .onnx on any execution provider that the installed build brings."""

from __future__ import annotations

import contextlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.engines.base import Engine, EngineOptions, ModelSignature, Precision
from tinysaver_edge.engines.model_file import check_model_file, one_line
from tinysaver_edge.engines.onnxruntime_providers import (
    CPU,
    CUDA,
    TENSORRT,
    full_name,
    providers_for,
)
from tinysaver_edge.engines.signature import TensorInfo, signature_of
from tinysaver_edge.errors import EngineError, MissingDependencyError, ModelError
from tinysaver_edge.preprocess import Batch

OnnxRuntime: TypeAlias = Any  # the package
Session: TypeAlias = Any  # its InferenceSession
Settings: TypeAlias = Any  # its SessionOptions
Node: TypeAlias = Any  # its NodeArg

_LOG_ERRORS_ONLY = 3
_DTYPES = {"float": "float32", "double": "float64"}


class OnnxRuntimeEngine(Engine):
    """Runs an .onnx file with ONNX Runtime.

    Devices are execution providers, by full name or as ``"cpu"``, ``"cuda"``, ``"tensorrt"``; a
    number after a colon picks one of several (``"cuda:1"``), and after
    ``"OpenVINOExecutionProvider"`` a colon and OpenVINO's name for the device
    (``"OpenVINOExecutionProvider:GPU"``).
    """

    name: ClassVar[str] = "onnxruntime"
    suffixes: ClassVar[frozenset[str]] = frozenset({".onnx"})

    @classmethod
    def accepts_device(cls, device: str) -> bool:
        """Whether the name is one of an execution provider."""
        provider = device.partition(":")[0]
        return full_name(provider).endswith("ExecutionProvider")

    @classmethod
    def full_device(cls, device: str | None) -> str:
        """Return a provider's full name for a short one."""
        return full_name(device)

    @classmethod
    def inspect(cls, model: Path) -> ModelSignature:
        """Read a file's signature, without optimising the graph."""
        ort = _import()
        settings = _session_options(ort, EngineOptions(threads=1))
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        check_model_file(model)
        return _signature(model, _open(ort, model, settings, [CPU]))

    def _load(self) -> tuple[str, ModelSignature]:
        ort = _import()
        check_model_file(self.model)
        settings = _session_options(ort, self.options)
        device = full_name(self.options.device)
        try:
            self._session = self._open_on(device, ort, settings)
        except ModelError:
            raise
        except EngineError:
            if not self.options.allow_fallback or device == CPU:
                raise
            device, self.precision, self.fell_back = CPU, Precision.FLOAT32, True
            self._session = _open(ort, self.model, settings, [CPU])
        signature = _signature(self.model, self._session)
        self._input, self._outputs = signature.input_name, [signature.output_name]
        return device, signature

    def _open_on(self, device: str, ort: OnnxRuntime, settings: Settings) -> Session:
        """Build the session on exactly that device.

        ONNX Runtime drops a provider that it cannot start with no more than a log line, so the
        session is asked what it runs on.
        """
        provider = device.partition(":")[0]
        available = ort.get_available_providers()
        if provider not in available:
            raise EngineError(
                f"engine onnxruntime has no {device} here, only {', '.join(available)}: install "
                "the build of onnxruntime that has it, or ask for one of these"
            )
        if provider in (CUDA, TENSORRT):
            _preload(ort)
        session = _open(ort, self.model, settings, providers_for(device, self.options))
        if session.get_providers()[0] != provider:
            raise EngineError(
                f"{self.model.name}: {device} could not be started, onnxruntime offers "
                f"{', '.join(session.get_providers())} instead: check its libraries and driver"
            )
        return session

    def _run(self, batch: Batch) -> NDArray[Any]:
        try:
            raw: NDArray[Any] = self._session.run(self._outputs, {self._input: batch})[0]
        except Exception as error:
            raise EngineError(
                f"{self.model.name} failed on {self.device} with a batch of {batch.shape}: "
                f"{one_line(error)}"
            ) from error
        return raw if raw.ndim == 2 else raw.reshape(len(raw), -1)

    def _release(self) -> None:
        self._session = None


def _import() -> OnnxRuntime:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "onnxruntime", extra="onnxruntime", purpose="Running .onnx with engine onnxruntime"
        ) from error
    return onnxruntime


def _preload(ort: OnnxRuntime) -> None:
    """Load CUDA and cuDNN from the packages that the extra [cuda] brings, where they are there.

    Left to itself the provider finds only what the system has. Of a library that is missing ONNX
    Runtime prints a line, which is no business of stdout.
    """
    preload = getattr(ort, "preload_dlls", None)  # since 1.21
    if preload is not None and find_spec("nvidia") is not None:
        with contextlib.redirect_stdout(sys.stderr):
            preload()


def _session_options(ort: OnnxRuntime, options: EngineOptions) -> Settings:
    """Settings for latency: one graph at a time, its nodes in order, threads within a node."""
    settings = ort.SessionOptions()
    settings.log_severity_level = _LOG_ERRORS_ONLY
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.inter_op_num_threads = 1
    settings.intra_op_num_threads = options.threads or 0
    # Threads that spin on after a run would take the processor from the cascade's next stage.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    return settings


def _open(ort: OnnxRuntime, model: Path, settings: Settings, providers: list[Any]) -> Session:
    try:
        return ort.InferenceSession(
            str(model), settings, providers=providers, enable_fallback=False
        )
    except Exception as error:
        if providers == [CPU]:
            raise ModelError(
                f"model {model}: onnxruntime cannot read it: {one_line(error)}"
            ) from error
        raise EngineError(
            f"model {model}: onnxruntime cannot open it on {_name_of(providers[0])}: "
            f"{one_line(error)}"
        ) from error


def _name_of(provider: str | tuple[str, Any]) -> str:
    return provider if isinstance(provider, str) else provider[0]


def _signature(model: Path, session: Session) -> ModelSignature:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    return signature_of(model, [_info(one) for one in inputs], [_info(one) for one in outputs])


def _info(node: Node) -> TensorInfo:
    """Read ``tensor(float16)`` and its shape, where names stand for dynamic axes."""
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(axis if isinstance(axis, int) and axis >= 0 else None for axis in node.shape)
    dtype = np.dtype(_DTYPES.get(kind, kind)).name if _is_numpy(kind) else kind
    return TensorInfo(node.name, shape or None, dtype)


def _is_numpy(kind: str) -> bool:
    try:
        np.dtype(_DTYPES.get(kind, kind))
    except TypeError:
        return False
    return True
