"""Fold colour order, layout, scale and type into an .onnx graph, in the order that is quick.

The frame is transposed while it is still uint8; doing arithmetic first, on interleaved colours,
nearly doubles the run of a small model. Where a convolution comes first, the colour order and the
factor go into its weights, and one addition is left: padding adds zeros, and a factor leaves zeros
what they are, so the result is the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import atomic_write
from tinysaver_edge.engines.model_file import external_names
from tinysaver_edge.errors import ModelError
from tinysaver_edge.models.graph.onnx import load_onnx, onnx_signature
from tinysaver_edge.preprocess import ColorOrder, InputFormat, Layout

ModelProto: TypeAlias = Any
NodeProto: TypeAlias = Any
TensorProto: TypeAlias = Any
GraphProto: TypeAlias = Any

PREFIX = "tinysaver_"
"""Begins the name of every tensor that is added."""

_INPUTS_HOLD_WEIGHTS_BELOW = 4  # IR versions that list every weight among the inputs as well
FRAME = PREFIX + "frame"
_TO_NCHW = [0, 3, 1, 2]
_OLDEST_OPSET = 7  # arithmetic broadcasts as numpy's from here on
_OLDEST_OPSET_FOR_INTEGERS = 11  # Round, and Clip with its bounds as inputs


def embed_onnx(
    model: Path, form: InputFormat, out: Path, *, drop_metadata: str, output: str | None = None
) -> list[Path]:
    """Write a model that takes uint8 NHWC BGR frames, and its weights where they lie apart.

    Args:
        model: the file.
        form: what its input is now, GRAY excepted.
        out: the file to write.
        drop_metadata: key of the metadata that would no longer be true.
        output: name of the output that holds the classes, where there are several.

    Returns:
        The files written, the model first.

    Raises:
        MissingDependencyError: onnx is not installed.
        ModelError: the file cannot be read, or its operations are of too old a version.
    """
    proto = load_onnx(model)
    _check_opset(model, proto, form)
    _fold(model, proto, form, output)
    kept = [entry for entry in proto.metadata_props if entry.key != drop_metadata]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    weights = _bring_weights(model, proto, out)
    with atomic_write(out) as file:
        file.write(proto.SerializeToString(deterministic=True))
    return [out, *weights]


def _check_opset(model: Path, proto: ModelProto, form: InputFormat) -> None:
    opset = next((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), 0)
    integers = np.dtype(form.dtype).kind != "f" and not form.is_raw
    needed = _OLDEST_OPSET_FOR_INTEGERS if integers else _OLDEST_OPSET
    if opset < needed:
        raise ModelError(f"model {model}: opset {opset} is older than {needed}")


def _bring_weights(model: Path, proto: ModelProto, out: Path) -> list[Path]:
    """Copy files of weights beside the new model, under names that are its own."""
    names = external_names(model)
    new = {name: f"{out.name}.data{place or ''}" for place, name in enumerate(names)}
    for entry in _external_entries(proto):
        entry.value = new[entry.value]
    for name in names:
        try:
            with (
                (model.parent / name).open("rb") as source,
                atomic_write(out.parent / new[name]) as to,
            ):
                shutil.copyfileobj(source, to, 1 << 22)
        except FileNotFoundError as error:
            raise ModelError(f"model {model}: its weights {name} are not beside it") from error
    return [out.parent / name for name in new.values()]


def _external_entries(proto: ModelProto) -> Iterator[Any]:
    """Yield the entries that name a file, of all tensors that are kept in one."""
    for tensor in _tensors(proto.graph):
        if tensor.data_location == tensor.EXTERNAL:
            yield from (entry for entry in tensor.external_data if entry.key == "location")


def _tensors(graph: GraphProto) -> Iterator[Any]:
    """Yield weights and constants, those of graphs within the graph included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from _present(attribute)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _present(attribute: Any) -> Iterable[Any]:  # noqa: ANN401 - onnx.AttributeProto
    return (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else []))


def _fold(model: Path, proto: ModelProto, form: InputFormat, output: str | None) -> None:
    """Give the graph a frame for an input and make the old input of it."""
    editor = GraphEditor(proto, model)
    source = onnx_signature(model, proto, output).input_name
    target, tensor, layout, position = _place(editor, source, form)
    multiply, add = (np.resize(np.array(one, np.float64), 3) for one in (form.multiply, form.add))
    if layout is Layout.NCHW and form.dtype == "float32":
        conv = _first_convolution(editor, target)
    else:
        conv = None
    if conv is not None:
        _scale_weights(editor, conv, multiply, form)
        add, multiply = add / multiply, np.ones(3)
        if form.color is ColorOrder.RGB:
            add = add[::-1]
    elif form.color is ColorOrder.RGB:
        axis = 1 if layout is Layout.NCHW else 3
        order = editor.constant(np.array([2, 1, 0]))
        tensor = editor.node("Gather", tensor, order, axis=axis)
    tensor = _scale(editor, tensor, form, _Line(multiply, add, layout))
    editor.insert(position, result=target)
    editor.replace_input(source, FRAME, layout=form.layout)


def _place(editor: GraphEditor, source: str, form: InputFormat) -> tuple[str, str, Layout, int]:
    """Find where the arithmetic goes: behind the transposition, the graph's own or a new one.

    Returns:
        The tensor to make, the one to make it of, its layout, and where among the nodes.
    """
    if form.layout is Layout.NCHW:
        return source, editor.node("Transpose", FRAME, perm=_TO_NCHW), Layout.NCHW, 0
    first = editor.only_reader(source)
    if first is not None and first.op_type == "Transpose" and _perm(first) == _TO_NCHW:
        target = first.output[0]
        first.input[0], first.output[0] = FRAME, PREFIX + "nchw"
        return target, first.output[0], Layout.NCHW, editor.position(first) + 1
    return source, FRAME, Layout.NHWC, 0


def _perm(node: NodeProto) -> list[int]:
    return next((list(one.ints) for one in node.attribute if one.name == "perm"), [])


def _first_convolution(editor: GraphEditor, tensor: str) -> NodeProto | None:
    """Return the convolution that alone reads a tensor, if its weights can be changed."""
    node = editor.only_reader(tensor)
    if node is None or node.op_type != "Conv" or node.input[0] != tensor:
        return None
    weights = editor.weights(node.input[1])
    if weights is None or list(weights.dims)[1:2] != [3]:
        return None
    return node if weights.data_type == weights.FLOAT else None


def _scale_weights(
    editor: GraphEditor, conv: NodeProto, multiply: NDArray[np.float64], form: InputFormat
) -> None:
    """Put the factor and the colour order into a convolution's weights."""
    values = editor.values(conv.input[1]) * multiply.reshape(1, 3, *[1] * 2)
    if form.color is ColorOrder.RGB:
        values = values[:, ::-1]
    editor.replace_weights(conv, 1, np.ascontiguousarray(values, np.float32))


class _Line(NamedTuple):
    """What the numbers of a picture go through, a channel each, and where the channels lie."""

    multiply: NDArray[np.float64]
    add: NDArray[np.float64]
    layout: Layout


def _scale(editor: GraphEditor, tensor: str, form: InputFormat, line: _Line) -> str:
    """Add what `Preprocessor` does in numpy: float32 arithmetic, then the input's own type."""
    if form.is_raw and np.all(line.add == 0):
        return tensor if form.dtype == "uint8" else editor.cast(tensor, form.dtype)
    tensor = editor.cast(tensor, "float32")
    for operation, values, nothing in (("Mul", line.multiply, 1), ("Add", line.add, 0)):
        if np.any(values != nothing):
            tensor = editor.node(operation, tensor, editor.constant(_channels(values, line.layout)))
    if np.dtype(form.dtype).kind in "iu":
        limits = np.iinfo(form.dtype)
        low, high = (editor.constant(np.float32(one)) for one in (limits.min, limits.max))
        tensor = editor.node("Clip", editor.node("Round", tensor), low, high)
    return tensor if form.dtype == "float32" else editor.cast(tensor, form.dtype)


def _channels(values: NDArray[np.float64], layout: Layout) -> NDArray[np.float32]:
    """Shape values for broadcasting; one number is quicker than three equal ones."""
    if np.all(values == values[0]):
        return np.array(values[0], np.float32)
    shape = (1, 3, 1, 1) if layout is Layout.NCHW else (1, 1, 1, 3)
    return values.astype(np.float32).reshape(shape)


class GraphEditor:
    """Collects new operations and puts them into a graph in one go."""

    def __init__(self, proto: ModelProto, model: Path) -> None:
        self._proto = proto
        self._graph = proto.graph
        self._model = model
        self._new: list[NodeProto] = []
        self._nested = any(
            attribute.HasField("g") or attribute.graphs
            for node in proto.graph.node
            for attribute in node.attribute
        )
        self._count = 0

    def node(self, operation: str, *inputs: str, **attributes: object) -> str:
        """Add an operation and return the name of its output."""
        import onnx

        name = self._name(operation.lower())
        self._new.append(onnx.helper.make_node(operation, list(inputs), [name], name, **attributes))
        return name

    def cast(self, tensor: str, dtype: str) -> str:
        """Add a change of type."""
        import onnx

        return self.node("Cast", tensor, to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def constant(self, values: NDArray[Any] | np.generic) -> str:
        """Store values and return their name."""
        import onnx

        tensor = onnx.numpy_helper.from_array(np.asarray(values), self._name("constant"))
        self._graph.initializer.append(tensor)
        if self._proto.ir_version < _INPUTS_HOLD_WEIGHTS_BELOW:
            self._graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
        return str(tensor.name)

    def insert(self, position: int, *, result: str) -> None:
        """Put the new operations before that one; the last makes the tensor ``result``."""
        self._new[-1].output[0] = result
        for offset, node in enumerate(self._new):
            self._graph.node.insert(position + offset, node)
        self._new = []

    def position(self, node: NodeProto) -> int:
        """Return an operation's place in the order in which they are run."""
        return list(self._graph.node).index(node)

    def only_reader(self, tensor: str) -> NodeProto | None:
        """Return the one operation that reads a tensor, or None where others do or might."""
        readers = [node for node in self._graph.node for name in node.input if name == tensor]
        given_out = any(value.name == tensor for value in self._graph.output)
        return readers[0] if len(readers) == 1 and not given_out and not self._nested else None

    def weights(self, name: str) -> TensorProto | None:
        """Return a stored tensor, or None where that name is computed or given."""
        return next((one for one in self._graph.initializer if one.name == name), None)

    def values(self, name: str) -> NDArray[np.float64]:
        """Return a stored tensor's values, also where these lie in another file.

        Raises:
            ModelError: that file is missing or too short.
        """
        import onnx

        tensor = self.weights(name)
        try:
            values = onnx.numpy_helper.to_array(tensor, base_dir=str(self._model.parent))
        except Exception as error:
            raise ModelError(f"model {self._model}: weights {name} cannot be read") from error
        return np.asarray(values, np.float64)

    def replace_weights(self, node: NodeProto, place: int, values: NDArray[np.float32]) -> None:
        """Let an operation read other weights; the old ones go where nobody else reads them."""
        old = node.input[place]
        node.input[place] = self.constant(values)
        if self._nested or any(old in other.input for other in self._graph.node):
            return
        for listed in (self._graph.initializer, self._graph.input):
            for one in [one for one in listed if one.name == old]:
                listed.remove(one)

    def replace_input(self, old: str, new: str, *, layout: Layout) -> None:
        """Make the model take uint8 NHWC pictures of the size that it took before."""
        import onnx

        for value in self._graph.input:
            if value.name == old:
                axes = list(value.type.tensor_type.shape.dim)
                if layout is Layout.NCHW:
                    axes = [axes[0], axes[2], axes[3], axes[1]]
                axes = [type(axis).FromString(axis.SerializeToString()) for axis in axes]
                kind = value.type.tensor_type
                value.name, kind.elem_type = new, onnx.TensorProto.UINT8
                del kind.shape.dim[:]
                kind.shape.dim.extend(axes)

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{PREFIX}{kind}_{self._count}"
