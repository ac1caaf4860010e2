"""Small changes to an ONNX graph: new operations at one place, new weights, another input."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.errors import ModelError
from tinysaver_edge.preprocess import Layout

ModelProto: TypeAlias = Any
NodeProto: TypeAlias = Any
TensorProto: TypeAlias = Any

PREFIX = "tinysaver_"
"""Begins the name of every tensor that is added."""

_INPUTS_HOLD_WEIGHTS_BELOW = 4  # IR versions that list every weight among the inputs as well


class GraphEditor:
    """Collects new operations and puts them into a graph in one go.

    Args:
        proto: the model, changed in place.
        model: its file, for messages and for weights kept beside it.
    """

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
