"""Small real models, made with onnx.helper from a seed, and how frames are brought to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tinysaver_edge.output_format import OutputFormat, OutputKind
from tinysaver_edge.preprocess import ColorOrder, InputFormat, Layout, Preprocess, Resize

SIZE = 16
CLASSES = 5
OPSET = 19
IR_VERSION = 9
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
IMAGENET_MULTIPLY = tuple((1 / (255 * STD)).tolist())
IMAGENET_ADD = tuple((-MEAN / STD).tolist())


@dataclass(frozen=True)
class Form:
    """What a tiny classifier's file looks like from outside."""

    layout: Layout = Layout.NCHW
    dtype: str = "float32"
    batch: int | str = "n"
    softmax: bool = False
    flat: bool = True
    output_dtype: str = "float32"
    outputs: int = CLASSES
    symmetric: bool = True
    nan: bool = False

    @property
    def preprocess(self) -> Preprocess:
        """ImageNet's scale for floats, raw pixels for uint8, less 128 for int8."""
        multiply, add = {
            "uint8": ((1.0,), (0.0,)),
            "int8": ((1.0,), (-128.0,)),
        }.get(self.dtype, (IMAGENET_MULTIPLY, IMAGENET_ADD))
        return Preprocess(
            Resize(SIZE, SIZE), InputFormat(self.layout, self.dtype, ColorOrder.RGB, multiply, add)
        )

    @property
    def output(self) -> OutputFormat:
        kind = OutputKind.PROBABILITIES if self.softmax else OutputKind.LOGITS
        if self.output_dtype == "float32":
            return OutputFormat(kind)
        if self.softmax:
            return OutputFormat(kind)
        return OutputFormat(kind, quantization_scale=0.05, quantization_zero_point=3)


def tiny_classifier(path: Path, form: Form = Form(), *, seed: int = 0) -> Path:
    """Write a convolution, a depthwise convolution, a pooling and a matrix, of seeded weights."""
    rng = np.random.default_rng(seed)
    weights: dict[str, Any] = {
        "w1": rng.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32),
        "b1": rng.normal(0, 0.1, 8).astype(np.float32),
        "w2": rng.normal(0, 0.4, (8, 1, 3, 3)).astype(np.float32),
        "w3": rng.normal(0, 1.5, (8, form.outputs)).astype(np.float32),
        "b3": rng.normal(0, 0.5, form.outputs).astype(np.float32),
    }
    nodes, tensor = _input_nodes(form, weights)
    pads = [1, 1, 1, 1] if form.symmetric else [0, 0, 1, 1]
    nodes += [
        helper.make_node("Conv", [tensor, "w1", "b1"], ["c1"], strides=[2, 2], pads=pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["features"]),
        helper.make_node("Gemm", ["features", "w3", "b3"], ["scores"]),
    ]
    _output_nodes(form, weights, nodes)
    shape = [form.batch, 3, SIZE, SIZE]
    if form.layout is Layout.NHWC:
        shape = [form.batch, SIZE, SIZE, 3]
    answer = [form.batch, form.outputs] + ([] if form.flat else [1, 1])
    save(
        path, nodes, ("image", form.dtype, shape), [("answer", form.output_dtype, answer)], weights
    )
    return path


def _input_nodes(form: Form, weights: dict[str, Any]) -> tuple[list[Any], str]:
    nodes, tensor = [], "image"
    if form.dtype in ("uint8", "int8"):
        weights["in_scale"] = np.float32(1 / 64)
        weights["in_zero"] = np.dtype(form.dtype).type(128 if form.dtype == "uint8" else 0)
        nodes.append(
            helper.make_node("DequantizeLinear", [tensor, "in_scale", "in_zero"], ["dequantized"])
        )
        tensor = "dequantized"
    elif form.dtype != "float32":
        nodes.append(helper.make_node("Cast", [tensor], ["as_float"], to=TensorProto.FLOAT))
        tensor = "as_float"
    if form.layout is Layout.NHWC:
        nodes.append(helper.make_node("Transpose", [tensor], ["nchw"], perm=[0, 3, 1, 2]))
        tensor = "nchw"
    return nodes, tensor


def _output_nodes(form: Form, weights: dict[str, Any], nodes: list[Any]) -> None:
    tensor = "scores"

    def add(operation: str, *more: str, **attributes: Any) -> None:
        nonlocal tensor
        made = f"{tensor}_{operation}"
        nodes.append(helper.make_node(operation, [tensor, *more], [made], **attributes))
        tensor = made

    if form.nan:
        weights["zero"] = np.zeros(1, np.float32)
        add("Mul", "zero")
        add("Div", "zero")
    if form.softmax:
        add("Softmax", axis=1)
    if form.output_dtype in ("uint8", "int8"):
        lowest = np.iinfo(form.output_dtype).min
        weights["out_scale"] = np.float32(1 / 256 if form.softmax else 0.05)
        weights["out_zero"] = np.dtype(form.output_dtype).type(lowest if form.softmax else 3)
        add("QuantizeLinear", "out_scale", "out_zero")
    elif form.output_dtype != "float32":
        add("Cast", to=helper.np_dtype_to_tensor_dtype(np.dtype(form.output_dtype)))
    if not form.flat:
        weights["four"] = np.array([0, form.outputs, 1, 1], np.int64)
        add("Reshape", "four")
    add("Identity")
    nodes[-1].output[0] = "answer"


def save(
    path: Path,
    nodes: list[Any],
    source: tuple[str, str, list[Any]],
    answers: list[tuple[str, str, list[Any]]],
    weights: dict[str, Any],
    *,
    metadata: dict[str, str] | None = None,
    external: bool = False,
) -> None:
    """Write an ONNX model of one input and any number of outputs."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [_tensor(*source)],
        [_tensor(*answer) for answer in answers],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(
        model,
        str(path),
        save_as_external_data=external,
        location=f"{path.name}.data" if external else None,
        size_threshold=0,
    )


def _tensor(name: str, dtype: str, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
    )


def frames(count: int, *, size: int = SIZE, seed: int = 1) -> list[np.ndarray]:
    """Random BGR pictures with large areas of one colour, so that answers differ."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        pictures.append(np.kron(coarse, np.ones((size // 4, size // 4, 1), np.uint8)))
    return pictures


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax along the rows, in float64."""
    values = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)
