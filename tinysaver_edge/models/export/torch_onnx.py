"""A torch model → a plain .onnx file: float32 NCHW in, logits out, nothing said besides.

Where that cannot be done, or the file answers otherwise, the layer that is to blame is looked for.
"""

from __future__ import annotations

import ast
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import atomic_write
from tinysaver_edge._support.packages import import_engine, needs, quietly
from tinysaver_edge.engines.model_file import one_line
from tinysaver_edge.errors import ModelError
from tinysaver_edge.models.graph.onnx import load_onnx

Module: TypeAlias = Any  # torch.nn.Module
ModelProto: TypeAlias = Any
_Tensors: TypeAlias = dict[str, NDArray[np.float32]]
Program: TypeAlias = Any  # torch.export.ExportedProgram
Message: TypeAlias = Any  # a protobuf message

_SCOPES = "pkg.torch.onnx.name_scopes"
_AT_NODE = re.compile(r"(?:translating node|While executing) %(\w+)")
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
    with needs(package, extra="timm", purpose="Exporting to .onnx"):
        __import__(package)


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


@contextmanager
def layers_entered(module: Module) -> Iterator[list[str]]:
    """Keep the names of the layers being run, the innermost last; an error leaves them there."""
    inside: list[str] = []
    handles = []
    for name, layer in module.named_modules():
        handles.append(layer.register_forward_pre_hook(_entering(inside, name)))
        handles.append(layer.register_forward_hook(_leaving(inside)))
    try:
        yield inside
    finally:
        for handle in handles:
            handle.remove()


def _entering(inside: list[str], name: str) -> Any:  # noqa: ANN401 - a hook
    return lambda _layer, _inputs: inside.append(name)


def _leaving(inside: list[str]) -> Any:  # noqa: ANN401 - a hook
    def leave(_layer: Module, _inputs: object, _output: object) -> None:
        inside.pop()

    return leave


def layer_untranslated(error: BaseException) -> str | None:
    """Return the layer of the operation that torch's exporter has no ONNX for, or None.

    The exporter works on a copy of the traced program, with operations of its own making: only the
    frames of its error still know the one it stumbled on.
    """
    found = _AT_NODE.search(str(error))
    cause: BaseException | None = error
    while found is not None and cause is not None:
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            for value in frame.f_locals.values():
                if getattr(value, "name", None) == found[1] and hasattr(value, "meta"):
                    layers = value.meta.get("nn_module_stack") or {"": ("", None)}
                    return str(list(layers.values())[-1][0]) or None
        cause = cause.__cause__
    return None


def layer_outputs(proto: ModelProto) -> dict[str, str]:
    """Return the tensor that each layer makes, by the layer's name, in the order they are run."""
    made: dict[str, str] = {}
    for node in proto.graph.node:
        for note in node.metadata_props:
            if note.key == _SCOPES and node.output:
                for layer in filter(None, ast.literal_eval(note.value)[:-1]):
                    made.pop(layer, None)
                    made[layer] = node.output[0]
    return made


def first_layer_apart(
    module: Module,
    plain: Path,
    made: Mapping[str, str],
    batch: NDArray[np.float32],
    *,
    tolerance: float,
) -> str | None:
    """Return the first layer whose output the exported file makes otherwise, or None.

    Args:
        module: the torch model that was exported.
        plain: the .onnx file that was made of it, small enough to be run from memory.
        made: as `layer_outputs` gives it.
        batch: what to run both on.
        tolerance: difference, as a fraction of the layer's largest number, that is none.
    """
    expected = _run_module(module, batch)
    found = _run_file(plain, list(dict.fromkeys(made.values())), batch)
    return _first_apart(
        expected, {layer: found[tensor] for layer, tensor in made.items()}, tolerance
    )


def first_layer_merged_apart(
    module: Module, merged: Module, batch: NDArray[np.float32], *, tolerance: float
) -> str | None:
    """Return the first layer that answers otherwise since its branches were merged, or None."""
    expected = _run_module(module, batch)
    found = _run_module(merged, batch)
    return _first_apart(expected, {one: found[one] for one in expected if one in found}, tolerance)


def _first_apart(expected: _Tensors, found: _Tensors, tolerance: float) -> str | None:
    for layer, values in found.items():
        if layer not in expected or expected[layer].shape != values.shape:
            continue
        scale = max(1.0, float(np.abs(expected[layer]).max()))
        if not np.abs(expected[layer] - values).max() <= tolerance * scale:
            return layer
    return None


def _run_module(module: Module, batch: NDArray[np.float32]) -> _Tensors:
    """Return what each layer makes, by its name, in the order in which they are done."""
    import torch

    kept: _Tensors = {}

    def keep(name: str) -> Any:  # noqa: ANN401 - a hook
        def hook(_layer: Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                kept[name] = output.detach().float().numpy().copy()

        return hook

    named = [(name, layer) for name, layer in module.named_modules() if name]
    handles = [layer.register_forward_hook(keep(name)) for name, layer in named]
    try:
        with torch.no_grad():
            module(torch.from_numpy(batch))
    finally:
        for handle in handles:
            handle.remove()
    return kept


def _run_file(plain: Path, tensors: list[str], batch: NDArray[np.float32]) -> _Tensors:
    import onnx

    onnxruntime = import_engine("onnxruntime")
    proto = load_onnx(plain)
    given = {one.name for one in proto.graph.output}
    for name in tensors:
        if name not in given:
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = session.run(tensors, {session.get_inputs()[0].name: batch})
    return dict(zip(tensors, found, strict=True))
