"""Counted multiply-accumulates against the published ones."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from benchmarks.networks import mobilenet_v3_small, mobilenet_v3_small_050
from tests.model_zoo import CLASSES, SIZE, Form, save, tiny_classifier
from tests.models.architectures import alexnet, resnet50, vgg16, vit_b_16
from tests.real_data import data_folder
from tinysaver_edge.errors import ModelError
from tinysaver_edge.models.graph.macs import count_graph, count_macs
from tinysaver_edge.models.graph.onnx import read_onnx
from tinysaver_edge.models.graph.reader import read_openvino
from tinysaver_edge.preprocess import Layout

needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="openvino is not installed"
)

# Parameters and "GFLOPS" (which are GMACs) as torchvision's documentation of its weights prints
# them; for MobileNetV3-small the paper's MAdds (arXiv 1905.02244, table 3), for the half-wide one
# the parameters of timm's model card, whose 0.02 GMACs are too round to compare with.
BUILT = [
    pytest.param(alexnet, 0.71e9, 61_100_840, id="AlexNet"),
    pytest.param(vgg16, 15.47e9, 138_357_544, id="VGG16"),
    pytest.param(resnet50, 4.09e9, 25_557_032, id="ResNet-50"),
    pytest.param(vit_b_16, 17.56e9, 86_567_656, id="ViT-B/16"),
    pytest.param(mobilenet_v3_small, 56e6, 2_542_856, id="MobileNetV3-small"),
    pytest.param(mobilenet_v3_small_050, None, 1_590_000, id="MobileNetV3-small x0.5"),
]


@pytest.mark.parametrize(("build", "macs", "parameters"), BUILT)
@pytest.mark.parametrize("through", [read_onnx, pytest.param(read_openvino, marks=needs_openvino)])
def test_published_counts(tmp_path: Path, build, macs, parameters, through) -> None:
    counted = count_graph(through(build(tmp_path / "model.onnx")))
    assert counted.uncounted == ()
    assert counted.parameters == pytest.approx(parameters, rel=0.01)
    assert counted.parameter_bytes == pytest.approx(4 * parameters, rel=0.01)
    if macs is not None:
        assert counted.macs == pytest.approx(macs, rel=0.02)
    assert counted.flops == 2 * counted.macs


@needs_openvino
@pytest.mark.parametrize(("build", "macs", "parameters"), BUILT)
def test_both_readers_agree(tmp_path: Path, build, macs, parameters) -> None:
    model = build(tmp_path / "model.onnx")
    by_onnx, by_openvino = (count_graph(read(model)) for read in (read_onnx, read_openvino))
    assert by_openvino.macs == pytest.approx(by_onnx.macs, rel=0.01)
    assert by_openvino.parameters == pytest.approx(by_onnx.parameters, rel=0.01)


# Published by: MLPerf Tiny (Banbury et al., arXiv 2106.07597), Y. Idelbayev's
# pytorch_resnet_cifar10, MobileNets (arXiv 1704.04861, table 7), MobileNetV2 (arXiv 1801.04381,
# table 4).
REAL = [
    ("cifar10/resnet8.tflite", 12.5e6),
    ("cifar10/resnet8-int8.tflite", 12.5e6),
    ("cifar10/resnet20.onnx", 41e6),
    ("cifar10/resnet56.onnx", 126e6),
    ("imagenet/mobilenet_v1_0.25_224.tflite", 41e6),
    ("imagenet/mobilenet_v2_1.0_224_int8.tflite", 300e6),
]


@pytest.mark.parametrize(("name", "macs"), REAL)
def test_published_counts_of_real_files(name: str, macs: float) -> None:
    model = data_folder() / name
    if not model.is_file():
        pytest.skip("no models: set TINYSAVER_DATA or put the data into ../shared/data")
    assert count_macs(model).macs == pytest.approx(macs, rel=0.02)
    if model.suffix == ".onnx":
        assert count_graph(read_openvino(model)).macs == pytest.approx(macs, rel=0.02)


TINY = (SIZE // 2) ** 2 * 8 * (3 * 9 + 9) + 8 * CLASSES
"""By hand: a convolution of 3x3x3 and a depthwise one of 3x3, at half size, and a matrix."""


@needs_openvino
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(Form(), id="dynamic batch"),
        pytest.param(Form(batch=4), id="batch of 4 counts as one"),
        pytest.param(Form(layout=Layout.NHWC), id="NHWC"),
        pytest.param(Form(dtype="uint8", output_dtype="uint8"), id="quantised input"),
        pytest.param(Form(dtype="float16", flat=False), id="float16"),
    ],
)
def test_one_sample_whatever_the_form(tmp_path: Path, form: Form) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx", form)
    assert count_macs(model).macs == TINY
    assert count_graph(read_openvino(model)).macs == TINY


def single(path: Path, nodes, weights, shape, answer) -> Path:
    source = ("image", "float32", ["n", *shape])
    save(path, nodes, source, [("answer", "float32", ["n", *answer])], weights)
    return path


def transposed(path: Path) -> tuple[Path, int]:
    """Groups of a transposed convolution: 4x4 inputs of 6 channels meet 2 outputs of 3x3 each."""
    weights = {"w": np.zeros((6, 2, 3, 3), np.float32)}
    nodes = [
        helper.make_node("ConvTranspose", ["image", "w"], ["up"], group=2, strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["up"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["answer"]),
    ]
    return single(path, nodes, weights, [6, 4, 4], [4]), 4 * 4 * 6 * 2 * 9


def einsum(path: Path) -> tuple[Path, int]:
    """Similarity of all pairs of rows: 4 x 4 x 5 for each of 3 channels."""
    nodes = [
        helper.make_node("Einsum", ["image", "image"], ["pairs"], equation="bcid,bcjd->bcij"),
        helper.make_node("GlobalAveragePool", ["pairs"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["answer"]),
    ]
    return single(path, nodes, {}, [3, 4, 5], [3]), 3 * 4 * 4 * 5


def turned(path: Path) -> tuple[Path, int]:
    """A product whose first matrix is stored on its side: (4 x 1)ᵀ by (4 x 7)."""
    weights = {"side": np.zeros((4, 2), np.float32), "w": np.zeros((4, 7), np.float32)}
    nodes = [
        helper.make_node("Gemm", ["side", "w"], ["product"], transA=1),
        helper.make_node("ReduceMean", ["product"], ["mean"], keepdims=1),
        helper.make_node("GlobalAveragePool", ["image"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Add", ["flat", "mean"], ["answer"]),
    ]
    return single(path, nodes, weights, [3, 4, 4], [3]), 2 * 4 * 7


@pytest.mark.parametrize("build", [transposed, einsum, turned])
@pytest.mark.parametrize("through", [read_onnx, pytest.param(read_openvino, marks=needs_openvino)])
def test_other_operations(tmp_path, build: Callable, through: Callable) -> None:
    model, expected = build(tmp_path / "model.onnx")
    assert count_graph(through(model)).macs == expected


def test_an_open_size_is_filled_in(tmp_path: Path) -> None:
    weights = {"w": np.zeros((5, 3, 3, 3), np.float32)}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["map"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["answer"]),
    ]
    model = single(tmp_path / "open.onnx", nodes, weights, [3, "h", "w"], [5])
    assert count_macs(model, (10, 20)).macs == 10 * 20 * 5 * 27
    with pytest.raises(ModelError, match="give the size of its picture"):
        count_macs(model)


def test_what_is_not_counted_is_named(tmp_path: Path) -> None:
    weights = {
        "w": np.zeros((1, 20, 4), np.float32),
        "r": np.zeros((1, 20, 5), np.float32),
        "shape": np.array([3, -1, 4], np.int64),
        "flat": np.array([-1, 15], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["image", "shape"], ["rows"]),
        helper.make_node("LSTM", ["rows", "w", "r"], ["y", "last"], hidden_size=5),
        helper.make_node("Transpose", ["y"], ["turned"], perm=[2, 1, 0, 3]),
        helper.make_node("Reshape", ["turned", "flat"], ["answer"]),
    ]
    model = single(tmp_path / "lstm.onnx", nodes, weights, [3, 4, 1], [15])
    assert count_macs(model).uncounted == ("LSTM",)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_a_model_error(tmp_path: Path, share: float) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    model.write_bytes(model.read_bytes()[: int(model.stat().st_size * share)])
    with pytest.raises(ModelError, match=r"tiny\.onnx"):
        count_macs(model)
