"""A torch model → a plain .onnx file: float32 NCHW in, logits out, nothing said besides."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from tinysaver_edge._support.files import atomic_write
from tinysaver_edge._support.packages import quietly
from tinysaver_edge.engines.model_file import one_line
from tinysaver_edge.errors import MissingDependencyError, ModelError
from tinysaver_edge.models.export.torch_layers import (
    layer_outputs,
    layer_untranslated,
    layers_entered,
)
from tinysaver_edge.models.graph.onnx import load_onnx

Module: TypeAlias = Any  # torch.nn.Module
Program: TypeAlias = Any  # torch.export.ExportedProgram
Message: TypeAlias = Any  # a protobuf message

OPSET = 18
IR_VERSION = 8
"""The oldest versions that say all that is needed: every runtime of the last years reads them."""

INPUT, OUTPUT = "image", "logits"
_MOST_BYTES_INSIDE = 1 << 30
_NOTES = ("doc_string", "metadata_props")


def export_onnx(
    module: Module, shape: tuple[int, int, int, int], out: Path, *, batch: int | None, name: str
) -> dict[str, str]:
    """Write a model as .onnx, without the notes on paths and calls that torch leaves in it.

    Args:
        module: the model in evaluation mode.
        shape: of one sample, ``(1, 3, height, width)``.
        out: the file to write; weights of more than 1 GiB go into a second one beside it.
        batch: a fixed number of samples, or None for any.
        name: the model's, for messages.

    Returns:
        The tensor that each layer makes, by the layer's name.

    Raises:
        ModelError: it cannot be exported; names the layer where that is known.
        MissingDependencyError: torch, onnx or onnxscript is not installed.
    """
    _require("onnxscript")
    program = _trace(module, shape, batch=batch, name=name)
    with quietly():
        try:
            import torch

            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
        except Exception as error:
            raise _refusal(name, layer_untranslated(error), error) from error
        size = sum(one.numel() * one.element_size() for one in module.state_dict().values())
        made.save(str(out), external_data=size > _MOST_BYTES_INSIDE)
    proto = load_onnx(out)
    outputs = layer_outputs(proto)
    _tidy(proto, batch)
    with atomic_write(out) as file:
        file.write(proto.SerializeToString(deterministic=True))
    return outputs


def _require(package: str) -> None:
    try:
        __import__(package)
    except ImportError as error:
        raise MissingDependencyError(package, extra="timm", purpose="Exporting to .onnx") from error


def _trace(
    module: Module, shape: tuple[int, int, int, int], *, batch: int | None, name: str
) -> Program:
    """Record what the model does, on two samples where it shall take any number of them."""
    import torch

    example = torch.zeros((2 if batch is None else batch, *shape[1:]))
    any_number = None if batch is not None else ({0: torch.export.Dim("n")},)
    with quietly():
        try:
            return torch.export.export(module, (example,), dynamic_shapes=any_number)
        except Exception as first:
            with layers_entered(module) as inside:
                try:
                    torch.export.export(module, (example,), dynamic_shapes=any_number)
                except Exception as error:
                    layer = inside[-1] if inside else None
                    raise _refusal(name, layer, error, batch=batch) from first
            raise _refusal(name, None, first, batch=batch) from first


def _refusal(
    name: str, layer: str | None, error: Exception, *, batch: int | None = 1
) -> ModelError:
    where = f"at layer {layer}" if layer else "at no layer in particular"
    if batch is None and "marked n as dynamic" in str(error):
        reason = "it takes no number of samples but the one it is traced with: give --batch 1"
    else:
        reason = _reason(error)
    return ModelError(f"model {name}: cannot be exported, {where}: {reason}")


def _reason(error: BaseException) -> str:
    """Return the innermost of torch's complaints, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else one_line(error)


def _tidy(proto: Message, batch: int | None) -> None:
    """Drop what the exporter noted, and name the open axis."""
    strip(proto)
    proto.ir_version = IR_VERSION
    if batch is None:
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "n"
        del proto.graph.value_info[:]


def strip(message: Message) -> None:
    """Clear every text meant for people or tools, here and in all that this message holds."""
    for field, value in message.ListFields():
        if field.name in _NOTES:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                strip(inner)
