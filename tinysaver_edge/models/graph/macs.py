"""Count a model's multiply-accumulates (MACs) from its file; only torch's has to be run for it.

Convolutions, transposed convolutions and matrix products are counted, as papers and model zoos do;
additions, activations, normalisation and pooling are not. One MAC is a multiplication and an
addition: FLOPs are twice as many, though what papers print as "GFLOPs" is mostly GMACs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from tinysaver_edge.engines.base import ModelSignature
from tinysaver_edge.engines.model_file import model_files, one_line
from tinysaver_edge.engines.registry import inspect
from tinysaver_edge.engines.timm_file import read_module
from tinysaver_edge.errors import ModelError
from tinysaver_edge.models.graph.graph import Graph, Node, Shape, Size
from tinysaver_edge.models.graph.reader import READABLE, read_graph, read_openvino, read_whole

Module: TypeAlias = Any  # torch.nn.Module


def count_module_macs(module: Module, shape: tuple[int, int, int, int]) -> int:
    """Count what one run costs: convolutions and matrix products, as `macs.count_macs` does.

    See `module_macs_by_operation`.
    """
    return sum(module_macs_by_operation(module, shape).values())


def module_macs_by_operation(module: Module, shape: tuple[int, int, int, int]) -> dict[str, int]:
    """Count what one run costs, by torch's names of the operations.

    Args:
        module: a torch model in evaluation mode, on the CPU or the meta device.
        shape: of its input, for one sample.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # Attention in one piece is not counted; taken apart into matrix products it is.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(torch.zeros(shape))
    counted = counter.get_flop_counts().get("Global", {})
    return {str(operation): int(flops) // 2 for operation, flops in counted.items()}


@dataclass(frozen=True, slots=True)
class MacCount:
    """What a model costs for one sample.

    Attributes:
        parameters: stored numbers, the few that are no weights among them.
        parameter_bytes: their size in the file, uncompressed.
        by_operation: MACs by kind of operation.
        uncounted: kinds of operation in the graph that do work which is not counted.
    """

    macs: int
    parameters: int
    parameter_bytes: int
    by_operation: Mapping[str, int] = field(default_factory=dict)
    uncounted: tuple[str, ...] = ()

    @property
    def flops(self) -> int:
        """Floating-point operations: twice the MACs."""
        return 2 * self.macs


class _UnknownShapeError(Exception):
    """A tensor whose shape the reader could not infer."""


def count_macs(
    model: Path, input_size: Size | None = None, *, output: str | None = None
) -> MacCount:
    """Count what one sample costs.

    Args:
        model: an .onnx, .xml or .tflite file, or a .safetensors that `models export` wrote.
        input_size: height and width, for a model that leaves them open.
        output: name of the output that holds the classes, where there are several.

    Raises:
        MissingDependencyError: nothing that reads such a file is installed.
        ModelError: the file is missing or damaged, or a shape in it stays unknown.
    """
    if model.suffix == ".safetensors":
        return _count_timm(model)
    if model.suffix not in READABLE:
        raise ModelError(
            f"model {model}: MACs are counted in {', '.join(READABLE)} files and timm's "
            ".safetensors: write macs into its description"
        )
    try:
        return count_graph(read_graph(model, size=input_size, output=output))
    except _UnknownShapeError as unknown:
        reason = unknown
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ModelError(
            f"model {model}: its graph contradicts itself ({one_line(error)}): export it again"
        ) from error
    if model.suffix == ".onnx" and find_spec("openvino") is not None:
        try:
            return count_graph(
                read_whole(model, partial(read_openvino, model, size=input_size, output=output))
            )
        except _UnknownShapeError:
            pass
    raise ModelError(
        f"model {model}: cannot count its MACs, {reason}: give the size of its picture, or write "
        "macs into its description"
    )


def _count_timm(model: Path) -> MacCount:
    """Count what timm's model of such weights costs, by running it once."""
    architecture, module = read_module(model)
    shape = (1, 3, architecture.height, architecture.width)
    spent = module_macs_by_operation(module, shape)
    stored = list(module.parameters())
    return MacCount(
        macs=sum(spent.values()),
        parameters=sum(one.numel() for one in stored),
        parameter_bytes=sum(one.numel() * one.element_size() for one in stored),
        by_operation=MappingProxyType(spent),
    )


def count_graph(graph: Graph) -> MacCount:
    """Count what one sample costs in a graph."""
    spent: Counter[str] = Counter()
    for node in graph.nodes:
        if node.operation in _COUNTERS:
            spent[node.operation] += _COUNTERS[node.operation](graph.shapes, node)
    spent = Counter({operation: macs // graph.samples for operation, macs in spent.items()})
    return MacCount(
        macs=sum(spent.values()),
        parameters=sum(math.prod(shape) for shape in graph.constants.values()),
        parameter_bytes=graph.constant_bytes,
        by_operation=MappingProxyType(dict(spent)),
        uncounted=tuple(sorted({node.operation for node in graph.nodes} & _UNCOUNTED)),
    )


_Shapes = Mapping[str, Shape]
_Counter = Callable[[_Shapes, Node], int]


def _shape(shapes: _Shapes, name: str) -> Shape:
    if name not in shapes:
        raise _UnknownShapeError(f"the shape of {name!r} is unknown")
    return shapes[name]


def _convolution(
    *, weights: int = 1, groups_first: bool = False, transposed: bool = False
) -> _Counter:
    """Every output element takes one MAC for each weight of its channel; transposed, every input's.

    Weights are (outputs, inputs of a group, kernel…), transposed the other way round; in OpenVINO's
    grouped ones behind the groups.
    """

    def count(shapes: _Shapes, node: Node) -> int:
        kernel = _shape(shapes, node.inputs[weights])[2 if groups_first else 1 :]
        elements = node.inputs[0] if transposed else node.outputs[0]
        return math.prod(_shape(shapes, elements)) * math.prod(kernel)

    return count


def _product(shapes: _Shapes, node: Node) -> int:
    """Every output element takes one MAC for each element of a row of the first matrix."""
    left = _shape(shapes, node.inputs[0])
    turned = node.attributes.get("transA") or node.attributes.get("transpose_a")
    length = left[-2] if turned and len(left) > 1 else left[-1]
    return math.prod(_shape(shapes, node.outputs[0])) * length


def _einsum(shapes: _Shapes, node: Node) -> int:
    """A product over all letters of two operands, as ``bhid,bhjd->bhij`` names them."""
    equation = node.attributes["equation"]
    text = equation.decode() if isinstance(equation, bytes) else str(equation)
    operands = text.replace(" ", "").partition("->")[0].split(",")
    if len(operands) != 2 or "." in text:
        raise _UnknownShapeError(f"the product {text!r} is not one of two operands")
    lengths: dict[str, int] = {}
    for letters, name in zip(operands, node.inputs, strict=True):
        lengths.update(zip(letters, _shape(shapes, name), strict=True))
    return math.prod(lengths.values())


_COUNTERS: Mapping[str, _Counter] = MappingProxyType(
    {
        # ONNX, and what ONNX Runtime's tools make of it
        "Conv": _convolution(weights=1),
        "FusedConv": _convolution(weights=1),
        "ConvInteger": _convolution(weights=1),
        "DeformConv": _convolution(weights=1),
        "QLinearConv": _convolution(weights=3),
        "ConvTranspose": _convolution(transposed=True),
        "Gemm": _product,
        "QGemm": _product,
        "FusedMatMul": _product,
        "MatMulInteger": _product,
        "QLinearMatMul": _product,
        # both
        "MatMul": _product,
        "Einsum": _einsum,
        # OpenVINO
        "Convolution": _convolution(weights=1),
        "GroupConvolution": _convolution(weights=1, groups_first=True),
        "DeformableConvolution": _convolution(weights=2),
        "ConvolutionBackpropData": _convolution(transposed=True),
        "GroupConvolutionBackpropData": _convolution(groups_first=True, transposed=True),
    }
)

_UNCOUNTED = frozenset(
    {
        *("If", "Loop", "Scan", "TensorIterator"),
        *("LSTM", "GRU", "RNN", "LSTMSequence", "GRUSequence", "RNNSequence"),
        *("Attention", "MultiHeadAttention", "GroupQueryAttention", "ScaledDotProductAttention"),
        *("MatMulNBits", "DynamicQuantizeMatMul", "BinaryConvolution", "QAttention"),
    }
)


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """A model's cost for one sample, its size and its signature.

    Attributes:
        model: the file.
        cost: MACs and parameters.
        size_bytes: of the file and those that hold its weights.
        signature: input and output.
    """

    model: Path
    cost: MacCount
    size_bytes: int
    signature: ModelSignature

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "model": str(self.model),
            "macs": self.cost.macs,
            "flops": self.cost.flops,
            "parameters": self.cost.parameters,
            "parameter_bytes": self.cost.parameter_bytes,
            "size_bytes": self.size_bytes,
            "macs_by_operation": dict(self.cost.by_operation),
            "uncounted": list(self.cost.uncounted),
            "signature": asdict(self.signature),
        }


def profile(
    model: Path, input_size: Size | None = None, *, output: str | None = None
) -> ModelProfile:
    """Measure a model file.

    Raises:
        MissingDependencyError: nothing that reads such a file is installed.
        ModelError: the file is missing or damaged, or a shape in it stays unknown.
    """
    cost = count_macs(model, input_size, output=output)
    size_bytes = sum(path.stat().st_size for path in model_files(model))
    if model.suffix == ".safetensors":
        return ModelProfile(model, cost, size_bytes, inspect(model))
    signature = read_graph(model, size=input_size, output=output).signature
    return ModelProfile(model, cost, size_bytes, signature)
