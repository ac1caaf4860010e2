"""Engines: one file for each way to run one model, behind one contract.

base, signature             the contract: `Engine`; which tensors are the picture and the answer
registry                    engines by name, those of other packages too
onnxruntime                 ONNX Runtime
openvino                    OpenVINO
torch, timm_file            weights of timm's models, in torch
remote/                     a model on another host
worker                      any engine in a process of its own
batching                    which batch size is the quickest
model_file                  what can be said of a file before an engine opens it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinysaver_edge._support.packages import lazy_exports

__all__ = [
    "Batch",
    "ColorOrder",
    "Engine",
    "EngineOptions",
    "InputFormat",
    "Layout",
    "ModelSignature",
    "OutputFormat",
    "OutputKind",
    "Precision",
    "Preprocess",
    "Resize",
    "ResizePolicy",
    "Seal",
    "TensorInfo",
    "create_engine",
    "engine_names",
    "inspect",
    "signature_of",
]

if TYPE_CHECKING:
    from tinysaver_edge._support.files import Seal
    from tinysaver_edge.engines.base import Engine, EngineOptions, ModelSignature, Precision
    from tinysaver_edge.engines.registry import create_engine, engine_names, inspect
    from tinysaver_edge.engines.signature import TensorInfo, signature_of
    from tinysaver_edge.output_format import OutputFormat, OutputKind
    from tinysaver_edge.preprocess import (
        Batch,
        ColorOrder,
        InputFormat,
        Layout,
        Preprocess,
        Resize,
        ResizePolicy,
    )
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "base": ("Engine", "EngineOptions", "ModelSignature", "Precision"),
            "registry": ("create_engine", "engine_names", "inspect"),
            "signature": ("TensorInfo", "signature_of"),
            "tinysaver_edge._support.files": ("Seal",),
            "tinysaver_edge.output_format": ("OutputFormat", "OutputKind"),
            "tinysaver_edge.preprocess": (
                "Batch",
                "ColorOrder",
                "InputFormat",
                "Layout",
                "Preprocess",
                "Resize",
                "ResizePolicy",
            ),
        },
    )
