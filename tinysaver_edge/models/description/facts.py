"""What a model's file tells about its input and answer, beyond shapes and types."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinysaver_edge.engines.base import ModelSignature
from tinysaver_edge.errors import ModelError
from tinysaver_edge.models.graph.graph import FORM, Graph, Node
from tinysaver_edge.models.graph.reader import read_graph

_QUANTIZING = frozenset({"FakeQuantize", "QuantizeLinear", "DequantizeLinear"})
_ARITHMETIC = frozenset(
    {"Sub", "Subtract", "Mul", "Multiply", "Div", "Divide", "Add", "BatchNormalization"}
)
_SOFTMAX = frozenset({"Softmax"})
_PLACING = frozenset({"ArgMax", "ArgMin"})
"""Operations whose answer is where something lies."""
_PICKING = frozenset({"TopK"})
"""Those whose second answer is that."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """Integers q that stand for real numbers ``(q - zero_point) * scale``."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file tells.

    Attributes:
        ends_in_softmax: whether its answer is probabilities.
        last_operation: the operation that makes the answer, as the format calls it.
        scales_input: whether the graph begins with arithmetic on the picture.
        input_quantization: what the integers of its input stand for, or None.
        output_quantization: what the integers of its answer stand for, or None.
    """

    signature: ModelSignature
    ends_in_softmax: bool
    last_operation: str
    scales_input: bool
    input_quantization: Quantization | None
    output_quantization: Quantization | None

    @property
    def is_multi_label(self) -> bool:
        """Whether each of several classes has a sigmoid of its own."""
        return self.last_operation == "Sigmoid" and self.signature.output_shape[1] != 1


def read_facts(model: Path, *, output: str | None = None) -> FileFacts:
    """Look into a model file.

    Raises:
        MissingDependencyError: nothing that reads such a file is installed.
        ModelError: the file is missing, truncated, of no known format, has several inputs, or
            gives class numbers instead of scores.
    """
    graph = read_graph(model, output=output)
    _refuse_class_numbers(model, graph)
    last = next((node for node in graph.backward() if not _is_form(node)), None)
    return FileFacts(
        signature=graph.signature,
        ends_in_softmax=last is not None and last.operation in _SOFTMAX,
        last_operation=last.operation if last is not None else "",
        scales_input=_scales_input(graph),
        input_quantization=_input_quantization(graph),
        output_quantization=_output_quantization(graph),
    )


def _refuse_class_numbers(model: Path, graph: Graph) -> None:
    """Refuse an answer that is places among the scores: one column of them looks like a score."""
    tensor = graph.answer
    for node in graph.backward():
        picked = node.operation in _PICKING and tensor in node.outputs[1:]
        if picked or node.operation in _PLACING:
            raise ModelError(
                f"model {model}: its output {graph.signature.output_name!r} gives class numbers, "
                f"not scores: it ends in {node.operation}; export it without that"
            )
        if not _is_form(node) or not node.inputs:
            return
        tensor = node.inputs[0]


def _is_form(node: Node) -> bool:
    return node.operation in FORM or node.operation in _QUANTIZING


def _scales_input(graph: Graph) -> bool:
    """Whether the first operation that is more than form is arithmetic with stored numbers."""
    if _is_integer(graph.signature.input_dtype):
        return False
    first = next((node for node in graph.forward() if not _is_form(node)), None)
    if first is None or first.operation not in _ARITHMETIC:
        return False
    return any(name in graph.constants for name in first.inputs)


def _input_quantization(graph: Graph) -> Quantization | None:
    """Read it from the operations that make real numbers of the input's integers.

    OpenVINO writes what ONNX calls DequantizeLinear as a subtraction and a multiplication.
    """
    if not _is_integer(graph.signature.input_dtype):
        return None
    zero_point: float | None = 0.0
    for node in graph.forward():
        if node.operation == "DequantizeLinear":
            return _linear(graph, node)
        if node.operation == "FakeQuantize":
            return _fake(graph, node, integers="inputs")
        if node.operation == "Subtract":
            zero_point = graph.scalar(node.inputs[1])
        elif node.operation == "Multiply":
            return _quantization(graph.scalar(node.inputs[1]), zero_point)
        elif node.operation not in FORM:
            return None
    return None


def _output_quantization(graph: Graph) -> Quantization | None:
    if not _is_integer(graph.signature.output_dtype):
        return None
    for node in graph.backward():
        if node.operation == "QuantizeLinear":
            return _linear(graph, node)
        if node.operation == "FakeQuantize":
            return _fake(graph, node, integers="outputs")
        if node.operation not in FORM:
            return None
    return None


def _linear(graph: Graph, node: Node) -> Quantization | None:
    zero_point = graph.scalar(node.inputs[2]) if len(node.inputs) > 2 else 0.0
    return _quantization(graph.scalar(node.inputs[1]), zero_point)


def _quantization(scale: float | None, zero_point: float | None) -> Quantization | None:
    if scale is None or zero_point is None or scale <= 0:
        return None
    return Quantization(scale, round(zero_point))


def _fake(graph: Graph, node: Node, *, integers: str) -> Quantization | None:
    """Read OpenVINO's FakeQuantize, which maps one range of numbers to another.

    Its inputs are the tensor, then the ends of the range it reads and of the range it writes. One
    of the two is the integers' range, the other that of the real numbers they stand for.
    """
    ends = [graph.scalar(name) for name in node.inputs[1:5]]
    if len(ends) != 4 or any(end is None for end in ends):
        return None
    read, written = [float(end or 0) for end in ends[:2]], [float(end or 0) for end in ends[2:]]
    steps, real = (read, written) if integers == "inputs" else (written, read)
    if steps[1] <= steps[0] or real[1] <= real[0]:
        return None
    scale = (real[1] - real[0]) / (steps[1] - steps[0])
    return Quantization(scale, round(steps[0] - real[0] / scale))


def _is_integer(dtype: str) -> bool:
    return dtype.startswith(("int", "uint"))
