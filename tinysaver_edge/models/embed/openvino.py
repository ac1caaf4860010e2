"""Fold colour order, layout, scale and type into any graph that OpenVINO reads; save it as .xml."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import import_engine
from tinysaver_edge.engines.openvino import model_signature, open_core, port_of, read_model
from tinysaver_edge.models.embed.onnx import FRAME
from tinysaver_edge.preprocess import ColorOrder, InputFormat, Layout

Model: TypeAlias = Any  # openvino.Model
Operation: TypeAlias = Any  # openvino.Node
Input: TypeAlias = Any  # openvino.Input

_TO_NCHW = [0, 3, 1, 2]


def embed_openvino(
    model: Path, form: InputFormat, out: Path, *, output: str | None = None
) -> list[Path]:
    """Write a model that takes uint8 NHWC BGR frames, as ``out`` (.xml) and its .bin.

    Args:
        model: an .onnx, .tflite or .xml file.
        form: what its input is now, GRAY excepted.
        out: the .xml file to write.
        output: name of the output that holds the classes, where there are several.

    Returns:
        The files written, the .xml first.

    Raises:
        MissingDependencyError: openvino is not installed.
        ModelError: the file cannot be read.
    """
    network = read_model(open_core(), model)
    signature = model_signature(model, network, output)
    old = port_of(network.inputs, signature.input_name).get_node()
    frame, tensor, layout, readers = _place(old, form)
    if form.color is ColorOrder.RGB:
        tensor = _reversed(tensor, axis=1 if layout is Layout.NCHW else 3)
    tensor = _scaled(tensor, form, layout)
    for reader in readers:
        reader.replace_source_output(tensor.output(0))
    network.add_parameters([frame])
    network.remove_parameter(old)
    network.validate_nodes_and_infer_types()
    return _save(network, out)


def _place(old: Operation, form: InputFormat) -> tuple[Operation, Operation, Layout, list[Input]]:
    """Make the new input, and find where the arithmetic goes: behind a transposition to NCHW.

    Returns:
        The new input, the tensor to compute on, its layout, and who reads the result.
    """
    openvino, ops = import_engine("openvino"), import_engine("openvino.opset13")

    axes = list(old.get_partial_shape())
    readers = list(old.output(0).get_target_inputs())
    if form.layout is Layout.NCHW:
        axes = [axes[0], axes[2], axes[3], axes[1]]
    frame = ops.parameter(openvino.PartialShape(axes), openvino.Type.u8, FRAME)
    frame.output(0).set_names({FRAME})
    if form.layout is Layout.NHWC:
        first = readers[0].get_node()
        if len(readers) != 1 or not _is_to_nchw(first):
            return frame, frame, Layout.NHWC, readers
        readers = list(first.output(0).get_target_inputs())
    return frame, ops.transpose(frame, ops.constant(np.array(_TO_NCHW))), Layout.NCHW, readers


def _is_to_nchw(operation: Operation) -> bool:
    if operation.get_type_name() != "Transpose":
        return False
    order = operation.input_value(1).get_node()
    return order.get_type_name() == "Constant" and list(order.data) == _TO_NCHW


def _reversed(tensor: Operation, *, axis: int) -> Operation:
    ops = import_engine("openvino.opset13")

    return ops.gather(tensor, ops.constant(np.array([2, 1, 0])), ops.constant(np.array(axis)))


def _scaled(tensor: Operation, form: InputFormat, layout: Layout) -> Operation:
    """Add what `Preprocessor` does in numpy: float32 arithmetic, then the input's own type."""
    openvino, ops = import_engine("openvino"), import_engine("openvino.opset13")

    kind = openvino.Type(np.dtype(form.dtype))
    if form.is_raw:
        return tensor if form.dtype == "uint8" else ops.convert(tensor, kind.get_type_name())
    tensor = ops.convert(tensor, "f32")
    tensor = ops.multiply(tensor, ops.constant(_channels(form.multiply, layout)))
    tensor = ops.add(tensor, ops.constant(_channels(form.add, layout)))
    if np.dtype(form.dtype).kind in "iu":
        limits = np.iinfo(form.dtype)
        tensor = ops.clamp(ops.round(tensor, "half_to_even"), float(limits.min), float(limits.max))
    return tensor if form.dtype == "float32" else ops.convert(tensor, kind.get_type_name())


def _channels(values: tuple[float, ...], layout: Layout) -> NDArray[np.float32]:
    array = np.asarray(values, np.float32)
    return array.reshape((1, -1, 1, 1) if layout is Layout.NCHW else (1, 1, 1, -1))


def _save(network: Model, out: Path) -> list[Path]:
    """Write both files under other names and move them into place, the .xml last.

    Operations are named by their place: OpenVINO counts them through the whole process, and the
    same model would be another file every time.
    """
    openvino = import_engine("openvino")

    for place, operation in enumerate(network.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{place}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        made = Path(folder) / out.name
        openvino.save_model(network, str(made), compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            path = made.with_suffix(suffix)
            with path.open("rb+") as file:
                os.fsync(file.fileno())
            path.replace(out.with_suffix(suffix))
    return [out, out.with_suffix(".bin")]
