"""A model file's graph as plain values: what descriptions and MAC counts are read from.

Whoever reads a file (`reader.py`, `onnx.py`) fills the same form, with the operation names of its
own format, so that what is asked of a graph is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.engines.base import ModelSignature
from tinysaver_edge.errors import ModelError

Size = tuple[int, int]
"""Height and width in pixels."""

Shape = tuple[int, ...]

FORM = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast", "Convert"}
)
"""Operations that change a tensor's form but not what its numbers mean, in both formats' words."""

QUANTISED = frozenset(
    {"QuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
    | {"DynamicQuantizeLinear", "FakeQuantize"}
)
"""Operations of quantised models, in both formats' words; .tflite comes with OpenVINO's."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    Attributes:
        operation: its type, as the format calls it (``"Conv"``, ``"Convolution"``).
        inputs: names of the tensors it reads; empty where an optional one is left out.
    """

    operation: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Graph:
    """All operations of a model, in an order in which they can be run.

    Attributes:
        nodes: the operations, without constants.
        source: name of the tensor that is the input, among `nodes`.
        answer: name of the tensor that holds the classes, among `nodes`.
        shapes: shape of every tensor where it is known.
        constants: shape of every stored tensor.
        constant_bytes: size of all stored tensors.
        value: returns a stored tensor's values, or None where a name is none.
        samples: how many samples `shapes` are for: one, or as many as the file is fixed to.
    """

    signature: ModelSignature
    nodes: tuple[Node, ...]
    source: str
    answer: str
    shapes: Mapping[str, Shape]
    constants: Mapping[str, Shape]
    constant_bytes: int
    value: Callable[[str], NDArray[Any] | None]
    samples: int = 1

    @property
    def is_quantised(self) -> bool:
        """Whether numbers of 8 bits are computed with, which depends on the processor."""
        return any(node.operation in QUANTISED for node in self.nodes)

    def readers(self, tensor: str) -> list[Node]:
        """Return the operations that read a tensor."""
        return [node for node in self.nodes if tensor in node.inputs]

    def forward(self) -> Iterator[Node]:
        """Yield the operations from the input on, as long as each has a single reader."""
        tensor = self.source
        while len(readers := self.readers(tensor)) == 1:
            yield readers[0]
            tensor = readers[0].outputs[0]

    def backward(self) -> Iterator[Node]:
        """Yield the operations from the answer back, along each one's first input."""
        makers = {name: node for node in self.nodes for name in node.outputs}
        tensor = self.answer
        while (node := makers.get(tensor)) is not None:
            yield node
            tensor = node.inputs[0] if node.inputs else ""

    def scalar(self, tensor: str) -> float | None:
        """Return a tensor's value where it is stored, or made of what is, and a single one."""
        makers = {name: node for node in self.nodes for name in node.outputs}
        while tensor in makers and makers[tensor].operation in FORM:
            tensor = makers[tensor].inputs[0]
        values = self.value(tensor)
        if values is None or not values.size or not np.all(values == values.flat[0]):
            return None
        return float(values.flat[0])


def picture_shape(signature: ModelSignature, size: Size | None, model: Path) -> Shape:
    """Return the shape of the input for one sample, open axes filled in.

    A file that is fixed to a number of samples keeps it: constants within may repeat it.

    Raises:
        ModelError: the file leaves height or width open and no size is given.
    """
    axes = list(signature.input_shape)
    if len(axes) != 4:
        raise ModelError(f"model {model}: its input has {len(axes)} axes, a picture has 4")
    axes[0] = axes[0] or 1
    rows, columns = (2, 3) if channels_first(signature.input_shape) else (1, 2)
    for axis, length in zip((rows, columns), size or (None, None), strict=True):
        axes[axis] = axes[axis] or length
    channel = 1 if rows == 2 else 3
    axes[channel] = axes[channel] or 3
    if None in axes:
        raise ModelError(
            f"model {model}: leaves height and width open: give the size of its picture"
        )
    return tuple(axis for axis in axes if axis is not None)


def channels_first(shape: tuple[int | None, ...]) -> bool:
    """Whether an input of that shape is NCHW: its second axis and not its last is a channel's."""
    return not (shape[3] in (1, 3) and shape[1] not in (1, 3))
