"""ONNX Runtime's execution providers: their names, and the settings that keep a precision."""

from __future__ import annotations

from typing import Any

from tinysaver_edge.engines.base import EngineOptions, Precision
from tinysaver_edge.errors import EngineError

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
