"""Read an .onnx file's graph with the onnx package, without its large weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import needs
from tinysaver_edge.engines.base import ModelSignature
from tinysaver_edge.engines.model_file import check_model_file, one_line
from tinysaver_edge.engines.signature import TensorInfo, signature_of
from tinysaver_edge.errors import ModelError
from tinysaver_edge.models.graph.graph import Graph, Node, Shape, Size, picture_shape

ModelProto: TypeAlias = Any
TensorProto: TypeAlias = Any
ValueInfo: TypeAlias = Any


def load_onnx(model: Path, *, weights: bool = False) -> ModelProto:
    """Load a model; tensors kept in files of their own are left there unless asked for.

    Raises:
        MissingDependencyError: onnx is not installed.
        ModelError: the file is missing, truncated or no ONNX model.
    """
    with needs("onnx", extra="onnxruntime", purpose=f"Looking into {model.name}"):
        import onnx
    check_model_file(model)
    try:
        proto = onnx.load(str(model), load_external_data=weights)
    except Exception as error:
        raise ModelError(f"model {model}: onnx cannot read it: {one_line(error)}") from error
    if not proto.graph.node:
        raise ModelError(f"model {model}: holds no graph: fetch or export it again")
    return proto


def onnx_signature(model: Path, proto: ModelProto, answer: str | None = None) -> ModelSignature:
    """Return the signature of a loaded model; ``answer`` names one of several outputs."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = [_info(one) for one in proto.graph.input if one.name not in stored]
    outputs = [_info(one) for one in proto.graph.output]
    return signature_of(model, inputs, outputs, answer=answer)


def read_onnx(model: Path, *, size: Size | None = None, output: str | None = None) -> Graph:
    """Read a file's graph, with the shapes of one sample where they can be inferred.

    Raises:
        MissingDependencyError: onnx is not installed.
        ModelError: the file cannot be read.
    """
    proto = load_onnx(model)
    signature = onnx_signature(model, proto, output)
    proto = _inlined(proto)
    stored = {tensor.name: tensor for tensor in _stored(proto)}
    return Graph(
        signature=signature,
        nodes=tuple(_node(node) for node in proto.graph.node if node.op_type != "Constant"),
        source=signature.input_name,
        answer=signature.output_name,
        shapes=_shapes(model, proto, signature, size),
        constants={name: tuple(tensor.dims) for name, tensor in stored.items()},
        constant_bytes=sum(map(_size_bytes, stored.values())),
        value=lambda name: _values(stored[name], model) if name in stored else None,
        samples=signature.batch_size or 1,
    )


def _inlined(proto: ModelProto) -> ModelProto:
    """Replace calls of the model's own functions by what these do."""
    if not proto.functions:
        return proto
    import onnx.inliner

    return onnx.inliner.inline_local_functions(proto)


def _stored(proto: ModelProto) -> Iterable[TensorProto]:
    """Yield the weights and the constants among the nodes."""
    yield from proto.graph.initializer
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                tensor = type(attribute.t)()
                tensor.CopyFrom(attribute.t)
                tensor.name = node.output[0]
                yield tensor


def _values(tensor: TensorProto, model: Path) -> NDArray[Any]:
    import onnx.numpy_helper

    values: NDArray[Any] = onnx.numpy_helper.to_array(tensor, base_dir=str(model.parent))
    return values


def _size_bytes(tensor: TensorProto) -> int:
    import onnx

    bits = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}.get(
        onnx.TensorProto.DataType.Name(tensor.data_type)
    )
    count = int(np.prod(tensor.dims, dtype=np.int64))
    if bits is not None:
        return (count * bits + 7) // 8
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _node(node: Any) -> Node:  # noqa: ANN401 - onnx.NodeProto
    import onnx

    values = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    return Node(node.op_type, tuple(node.input), tuple(node.output), values)


def _shapes(
    model: Path, proto: ModelProto, signature: ModelSignature, size: Size | None
) -> dict[str, Shape]:
    """Infer the shapes for a picture; a tensor that resists is left out."""
    import onnx.shape_inference

    try:
        sample = picture_shape(signature, size, model)
    except ModelError:
        sample = None
    if sample is not None:
        proto = _fixed(proto, signature.input_name, sample)
    try:
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception as error:
        raise ModelError(f"model {model}: its shapes contradict: {one_line(error)}") from error
    graph = proto.graph
    known = {tensor.name: tuple(tensor.dims) for tensor in _stored(proto)}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = _info(value).shape
        if shape is not None and None not in shape:
            known[value.name] = tuple(axis for axis in shape if axis is not None)
    return known


def _fixed(proto: ModelProto, name: str, sample: Shape) -> ModelProto:
    """Return a copy whose input has that shape and whose other shapes are yet to be inferred."""
    fixed = type(proto)()
    fixed.CopyFrom(proto)
    del fixed.graph.value_info[:]
    for value in fixed.graph.input:
        if value.name == name:
            axes = value.type.tensor_type.shape.dim
            for axis, length in zip(axes, sample, strict=True):
                axis.dim_value = length
    for value in fixed.graph.output:
        if not value.type.HasField("tensor_type"):
            continue
        value.type.tensor_type.ClearField("shape")
    return fixed


def _info(value: ValueInfo) -> TensorInfo:
    import onnx

    if not value.type.HasField("tensor_type"):
        return TensorInfo(value.name, None, str(value.type.WhichOneof("value") or "nothing"))
    kind = value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    except (KeyError, TypeError):
        dtype = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    if not kind.HasField("shape"):
        return TensorInfo(value.name, None, dtype)
    axes = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)
    return TensorInfo(value.name, axes, dtype)
