"""Move colour order, layout, scale and type of a model's input from numpy into its graph.

What is left to do on the device is the resize: a frame of uint8 NHWC BGR pixels is the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import import_engine
from tinysaver_edge.engines.model_file import model_files
from tinysaver_edge.engines.openvino import (
    model_signature,
    open_core,
    port_of,
    read_model,
    save_model,
)
from tinysaver_edge.engines.registry import engine_class
from tinysaver_edge.errors import InputError
from tinysaver_edge.models.description.description import METADATA_KEY, ModelDescription
from tinysaver_edge.models.embed.onnx import FRAME, embed_onnx
from tinysaver_edge.models.graph.reader import READABLE
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import ColorOrder, InputFormat, Layout, Preprocess

Model: TypeAlias = Any  # openvino.Model
Operation: TypeAlias = Any  # openvino.Node
Input: TypeAlias = Any  # openvino.Input

_TO_NCHW = [0, 3, 1, 2]


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model to be shipped, and what is left to do before and after it.

    Attributes:
        files: the file to open, then those of its weights where they lie apart.
        preprocess: what is left to do before it.
        reason: why the model is still the one that was given, or None where it was changed.
    """

    files: tuple[Path, ...]
    preprocess: Preprocess
    output: OutputFormat
    reason: str | None = None

    @property
    def path(self) -> Path:
        """The file to open."""
        return self.files[0]


def embed(model: Path, description: ModelDescription, out_dir: Path) -> EmbeddedModel:
    """Write a copy of a model that takes resized frames as they are.

    An .onnx stays one where the onnx package is installed; everything else becomes OpenVINO's
    .xml and .bin. The same model gives the same bytes. What cannot be changed is returned as it
    is, with the reason.

    Raises:
        InputError: the new file would replace the model.
        ModelError: the model cannot be read.
        MissingDependencyError: nothing that reads it is installed.
    """
    form, named = description.preprocess.format, description.output.name
    suffix = _suffix(model)
    reason = why_not_embedded(model, description)
    if reason is not None:
        return EmbeddedModel(model_files(model), description.preprocess, description.output, reason)
    out = out_dir / f"{model.stem}{suffix}"
    if out.resolve() == model.resolve():
        raise InputError(f"embedding {model} would replace it: choose another folder")
    if suffix == ".onnx":
        files = embed_onnx(model, form, out, drop_metadata=METADATA_KEY, output=named)
    else:
        files = embed_openvino(model, form, out, output=named)
    return EmbeddedModel(tuple(files), description.preprocess.in_graph(), description.output)


def _suffix(model: Path) -> str:
    return ".onnx" if model.suffix == ".onnx" and find_spec("onnx") is not None else ".xml"


def why_not_embedded(model: Path, description: ModelDescription) -> str | None:
    """Return why `embed` leaves a model as it is, or None."""
    form, engine, suffix = description.preprocess.format, description.engine, _suffix(model)
    if model.suffix not in READABLE:
        return f"the graph of a {model.suffix} file cannot be changed"
    if form.is_device_format:
        return "it takes frames as they are already"
    if form.color is ColorOrder.GRAY:
        return "grey pictures are made by OpenCV, whose rounding no graph repeats"
    if form.is_raw and np.dtype(form.dtype).kind in "iu" and form.dtype != "uint8":
        return f"raw pixels do not fit into {form.dtype}"
    if engine is not None and suffix not in engine_class(engine).suffixes:
        return f"engine {engine} reads no {suffix}"
    if suffix == ".xml" and find_spec("openvino") is None:
        return f"changing {model.suffix} files needs openvino, which is not installed"
    return None


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
    """Write both files, the .xml last.

    Operations are named by their place: OpenVINO counts them through the whole process, and the
    same model would be another file every time.
    """
    for place, operation in enumerate(network.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{place}")
    out.parent.mkdir(parents=True, exist_ok=True)
    save_model(network, out)
    return [out, out.with_suffix(".bin")]
