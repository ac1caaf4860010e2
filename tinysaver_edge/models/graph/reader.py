"""Read the graph of any model file with whatever is installed: onnx, else OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.engines.base import ModelSignature
from tinysaver_edge.engines.model_file import one_line
from tinysaver_edge.engines.openvino import model_signature, open_core, port_of, read_model
from tinysaver_edge.errors import MissingDependencyError, ModelError, TinySaverError
from tinysaver_edge.models.graph.graph import Graph, Node, Shape, Size, picture_shape
from tinysaver_edge.models.graph.onnx import read_onnx

Operation: TypeAlias = Any  # openvino.Node
Model: TypeAlias = Any  # openvino.Model
Port: TypeAlias = Any  # openvino.Output

READABLE = (".onnx", ".xml", ".tflite")
"""Suffixes of the files whose graphs are understood here."""


def read_graph(model: Path, *, size: Size | None = None, output: str | None = None) -> Graph:
    """Read a model file's graph: .onnx with onnx where that is installed, else with OpenVINO.

    Args:
        model: the file.
        size: height and width to take for an input that leaves them open.
        output: name of the output that holds the classes, where there are several.

    Raises:
        MissingDependencyError: nothing that reads such a file is installed.
        ModelError: the file is missing, truncated or of no known format.
    """
    if model.suffix not in READABLE:
        raise ModelError(f"model {model}: not an .onnx, .xml or .tflite file")
    if model.suffix == ".onnx" and find_spec("onnx") is not None:
        return read_whole(model, lambda: read_onnx(model, size=size, output=output))
    if find_spec("openvino") is None:
        package = "onnx" if model.suffix == ".onnx" else "openvino"
        extra = "onnxruntime" if model.suffix == ".onnx" else "openvino"
        raise MissingDependencyError(package, extra=extra, purpose=f"Looking into {model.name}")
    return read_whole(model, lambda: read_openvino(model, size=size, output=output))


def is_quantised(model: Path) -> bool:
    """Whether a model file computes with numbers of 8 bits; False where it cannot be read here."""
    try:
        return read_graph(model).is_quantised
    except TinySaverError:
        return False


def read_whole(model: Path, read: Callable[[], Graph]) -> Graph:
    """Read a graph; a file may hold anything, and the readers trust its numbers and names."""
    try:
        return read()
    except TinySaverError:
        raise
    except Exception as error:
        raise ModelError(
            f"model {model}: its graph is damaged ({one_line(error)}): fetch or export it again"
        ) from error


def read_openvino(model: Path, *, size: Size | None = None, output: str | None = None) -> Graph:
    """Read a file's graph, with the shapes of one sample, or of as many as it is fixed to.

    Raises:
        MissingDependencyError: openvino is not installed.
        ModelError: the file cannot be read.
    """
    network = read_model(open_core(), model)
    signature = model_signature(model, network, output)
    _fix_shape(network, model, signature, size)
    operations = network.get_ordered_ops()
    stored = {_name(one.output(0)): one for one in operations if one.get_type_name() == "Constant"}
    source = port_of(network.inputs, signature.input_name)
    answer = port_of(network.outputs, signature.output_name)
    return Graph(
        signature=signature,
        nodes=tuple(_node(one) for one in operations if one.get_type_name() != "Constant"),
        source=_name(source),
        answer=_name(answer.get_node().input_value(0)),
        shapes=_shapes(operations),
        constants={name: tuple(one.get_output_shape(0)) for name, one in stored.items()},
        constant_bytes=sum(one.get_byte_size() for one in stored.values()),
        value=lambda name: _values(stored[name]) if name in stored else None,
        samples=signature.batch_size or 1,
    )


def _fix_shape(network: Model, model: Path, signature: ModelSignature, size: Size | None) -> None:
    """Reshape to one sample where any number will do; a picture of unknown size stays open."""
    try:
        sample = picture_shape(signature, size, model)
    except ModelError:
        return
    try:
        network.reshape(list(sample))
    except RuntimeError as error:
        raise ModelError(f"model {model}: cannot take {sample}: {one_line(error)}") from error


def _node(operation: Operation) -> Node:
    ports = range(operation.get_input_size())
    return Node(
        operation.get_type_name(),
        tuple(_name(operation.input_value(port)) for port in ports),
        tuple(_name(port) for port in operation.outputs()),
        dict(operation.get_attributes()),
    )


def _name(port: Port) -> str:
    """Return a tensor's name: that of its operation and its number, since it may have none."""
    return f"{port.get_node().get_name()}:{port.get_index()}"


def _shapes(operations: list[Operation]) -> dict[str, Shape]:
    ports = (port for operation in operations for port in operation.outputs())
    return {
        _name(port): tuple(port.get_shape()) for port in ports if port.get_partial_shape().is_static
    }


def _values(operation: Operation) -> NDArray[Any]:
    return np.asarray(operation.data)
