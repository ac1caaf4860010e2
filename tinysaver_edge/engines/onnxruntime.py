"""ONNX Runtime: runs .onnx on any execution provider that the installed build brings."""

from __future__ import annotations

import contextlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import import_engine, needs
from tinysaver_edge.engines.base import Engine, EngineOptions, ModelSignature, Precision, as_rows
from tinysaver_edge.engines.model_file import check_model_file, one_line
from tinysaver_edge.engines.signature import TensorInfo, signature_of
from tinysaver_edge.errors import EngineError, ModelError
from tinysaver_edge.preprocess import Batch

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"

_SHORT_NAMES = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}


def full_name(device: str | None) -> str:
    """Return a provider's full name for a short one; None stands for the CPU."""
    provider, colon, which = (device or "cpu").partition(":")
    return _SHORT_NAMES.get(provider.lower(), provider) + colon + which


def providers_for(device: str, options: EngineOptions) -> list[Any]:
    """Return the providers for a device, with the settings that give the precision asked for.

    Raises:
        EngineError: the provider cannot compute in that precision; names what it can.
    """
    provider, _, which = device.partition(":")
    if provider == TENSORRT:
        cuda = (CUDA, _cuda_settings(which))
        return [(TENSORRT, _tensorrt_settings(which, options)), cuda]
    if provider == OPENVINO:
        return [(OPENVINO, _openvino_settings(which, options))]
    if provider == CUDA and options.precision in (Precision.FLOAT32, Precision.TF32):
        return [(CUDA, _cuda_settings(which, tf32=options.precision is Precision.TF32))]
    if options.precision is not Precision.FLOAT32:
        raise EngineError(
            f"{device} computes in float32, not {options.precision.value}: convert the model's "
            f"weights, or use {TENSORRT} or engine openvino"
        )
    return [provider]


def _cuda_settings(which: str, *, tf32: bool = False) -> dict[str, str]:
    """Left alone, ONNX Runtime takes TF32 for float32."""
    return {"use_tf32": "1" if tf32 else "0", **({"device_id": which} if which else {})}


def _tensorrt_settings(which: str, options: EngineOptions) -> dict[str, str]:
    settings = {"device_id": which} if which else {}
    if options.precision is Precision.TF32:
        raise EngineError(f"{TENSORRT} computes in float32, float16 or bfloat16, not tf32")
    if options.precision is Precision.FLOAT16:
        settings["trt_fp16_enable"] = "1"
    elif options.precision is Precision.BFLOAT16:
        settings["trt_bf16_enable"] = "1"
    if options.cache_dir is not None:
        options.cache_dir.mkdir(parents=True, exist_ok=True)
        settings["trt_engine_cache_enable"] = settings["trt_timing_cache_enable"] = "1"
        settings["trt_engine_cache_path"] = str(options.cache_dir)
        settings["trt_timing_cache_path"] = str(options.cache_dir)
    return settings


def _openvino_settings(which: str, options: EngineOptions) -> dict[str, str]:
    if options.precision in (Precision.BFLOAT16, Precision.TF32):
        why = f"computes in float32 or float16, not {options.precision.value}"
        raise EngineError(f"{OPENVINO} {why}")
    precision = "FP16" if options.precision is Precision.FLOAT16 else "FP32"
    settings = {"device_type": which or "CPU", "precision": precision}
    if options.threads:
        settings["num_of_threads"] = str(options.threads)
    if options.cache_dir is not None:
        settings["cache_dir"] = str(options.cache_dir)
    return settings


OnnxRuntime: TypeAlias = Any  # the package
Session: TypeAlias = Any  # its InferenceSession
Settings: TypeAlias = Any  # its SessionOptions
Node: TypeAlias = Any  # its NodeArg

_LOG_NOTHING = 4  # but what is fatal: errors are raised as well
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
    def inspect(cls, model: Path, *, output: str | None = None) -> ModelSignature:
        """Read a file's signature, without optimising the graph."""
        ort = _import()
        settings = _session_options(ort, EngineOptions(threads=1))
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        check_model_file(model)
        return _signature(model, _open(ort, model, settings, [CPU]), output)

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
        signature = _signature(self.model, self._session, self.output.name)
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
                f"{', '.join(session.get_providers())} instead: tinysaver-edge doctor "
                "names the library or the driver that is missing"
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
        return as_rows(raw, len(batch), model=self.model.name)

    def _release(self) -> None:
        self._session = None


def _import() -> OnnxRuntime:
    with needs("onnxruntime", extra="onnxruntime", purpose="Running .onnx with engine onnxruntime"):
        return import_engine("onnxruntime")


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
    settings.log_severity_level = _LOG_NOTHING
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


def _signature(model: Path, session: Session, answer: str | None) -> ModelSignature:
    try:
        inputs, outputs = ([_info(one) for one in ends] for ends in _ends(session))
    except UnicodeDecodeError as error:
        raise ModelError(f"model {model}: onnxruntime cannot read it: {one_line(error)}") from error
    return signature_of(model, inputs, outputs, answer=answer)


def _ends(session: Session) -> tuple[list[Node], list[Node]]:
    return session.get_inputs(), session.get_outputs()


def _info(node: Node) -> TensorInfo:
    """Read ``tensor(float16)`` and its shape, where names stand for dynamic axes."""
    if not node.type.startswith("tensor("):  # a sequence or a map, which has no shape to ask for
        return TensorInfo(node.name, None, node.type)
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(axis if isinstance(axis, int) and axis >= 0 else None for axis in node.shape)
    dtype = np.dtype(_DTYPES.get(kind, kind)).name if _is_numpy(kind) else kind
    return TensorInfo(node.name, shape or None, dtype)


def _is_numpy(kind: str) -> bool:
    try:
        np.dtype(_DTYPES.get(kind, kind))
    except (TypeError, ValueError):
        return False
    return True
