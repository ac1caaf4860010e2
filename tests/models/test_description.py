"""Descriptions: every field, every way to be wrong, every place to stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.model_zoo import CLASSES, Form, tiny_classifier
from tinysaver_edge.engines.base import Precision
from tinysaver_edge.engines.registry import create_engine
from tinysaver_edge.errors import DescriptionError, ModelError
from tinysaver_edge.models.description.description import (
    METADATA_KEY,
    find_description,
    read_description,
)
from tinysaver_edge.models.labels import read_labels
from tinysaver_edge.output_format import OutputKind
from tinysaver_edge.preprocess import ColorOrder, Layout, ResizePolicy

MINIMAL = """
[input]
layout = "NCHW"
dtype = "float32"
color = "RGB"
size = [16, 16]
scale = "imagenet"
[output]
kind = "logits"
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_classifier(tmp_path / "tiny.onnx")


def described(model: Path, text: str):
    path = model.with_suffix(".toml")
    path.write_text(text)
    return read_description(path, model)


def test_every_field_is_read(model: Path) -> None:
    model.with_name("names.txt").write_text("background\ncat\ndog\nowl\nfox\nape\n")
    found = described(
        model,
        """
        name = "my tiny"
        labels = "names.txt"
        macs = 126e6
        engine = "openvino"
        device = "GPU"
        precision = "float16"
        [input]
        layout = "NHWC"
        dtype = "uint8"
        color = "BGR"
        size = [16, 24]
        scale = { kind = "affine", multiply = [1, 2, 3], add = 0.5 }
        resize = { policy = "center_crop", crop_ratio = 0.875, antialias = false, fill = 7 }
        [output]
        kind = "probabilities"
        class_offset = 1
        quantization = { scale = 0.5, zero_point = -3 }
        """,
    )
    assert (found.name, found.macs, found.engine) == ("my tiny", 126e6, "openvino")
    assert (found.device, found.precision) == ("GPU", Precision.FLOAT16)
    resize, form = found.preprocess.resize, found.preprocess.format
    assert (resize.height, resize.width, resize.policy) == (16, 24, ResizePolicy.CENTER_CROP)
    assert (resize.crop_ratio, resize.antialias, resize.fill) == (0.875, False, 7)
    assert (form.layout, form.dtype, form.color) == (Layout.NHWC, "uint8", ColorOrder.BGR)
    assert (form.multiply, form.add) == ((1.0, 2.0, 3.0), (0.5,))
    assert (found.output.kind, found.output.class_offset) == (OutputKind.PROBABILITIES, 1)
    assert (found.output.quantization_scale, found.output.quantization_zero_point) == (0.5, -3)
    assert found.class_labels(CLASSES) == ("cat", "dog", "owl", "fox", "ape")


@pytest.mark.parametrize(
    ("scale", "black", "white"),
    [
        pytest.param('"raw"', [0] * 3, [255] * 3, id="raw"),
        pytest.param('"unit"', [0] * 3, [1] * 3, id="unit"),
        pytest.param('"half"', [-1] * 3, [1] * 3, id="half"),
        pytest.param(
            '"imagenet"',
            [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225],
            [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225],
            id="imagenet",
        ),
        pytest.param(
            '{ kind = "mean_std", mean = 0.5, std = [0.1, 0.2, 0.5] }',
            [-5, -2.5, -1],
            [5, 2.5, 1],
            id="one mean, three deviations",
        ),
        pytest.param('{ kind = "affine", add = -128 }', [-128] * 3, [127] * 3, id="affine"),
    ],
)
def test_scales(model: Path, scale: str, black: list[float], white: list[float]) -> None:
    form = described(model, MINIMAL.replace('"imagenet"', scale)).preprocess.format
    for pixel, expected in ((0, black), (255, white)):
        values = pixel * np.array(form.multiply) + np.array(form.add)
        np.testing.assert_allclose(np.broadcast_to(values, 3), expected, atol=1e-9)


def test_presets_follow_the_colour_order(model: Path) -> None:
    rgb = described(model, MINIMAL).preprocess.format
    bgr = described(model, MINIMAL.replace('"RGB"', '"BGR"')).preprocess.format
    assert bgr.multiply == rgb.multiply[::-1]
    assert bgr.add == rgb.add[::-1]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("uint8", (64 / 127.5, 128 - 64)), ("int8", (64 / 127.5, -64))],
)
def test_quantized_scale_and_output_come_from_the_file(tmp_path: Path, dtype, expected) -> None:
    form = Form(dtype=dtype, output_dtype=dtype)
    model = tiny_classifier(tmp_path / "quantized.onnx", form)
    text = MINIMAL.replace("float32", dtype)
    found = described(model, text.replace('"imagenet"', '{ kind = "quantized", of = "half" }'))
    multiply, add = found.preprocess.format.multiply[0], found.preprocess.format.add[0]
    assert (multiply, add) == pytest.approx(expected)
    assert found.output.quantization_scale == pytest.approx(0.05)
    assert found.output.quantization_zero_point == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"RGB"', '"?"', "input.color"),
        ('scale = "imagenet"', 'scale = "?"\nresize = { policy = "?" }', "input.resize.policy"),
        ("color", "colour", "unknown field input.colour; known are layout, dtype, color"),
        ("kind", "kin", "unknown field output.kin; known are kind"),
        ('color = "RGB"', "", "field input.color is missing"),
        ('"NCHW"', '"HWC"', "'NCHW' or 'NHWC'"),
        ("float32", "floaty", "'floaty' is no numeric type"),
        ("[16, 16]", "[16, 0]", "input.size"),
        ("[16, 16]", "[16, 16, 3]", "input.size"),
        ('"imagenet"', '"imagnet"', "there are imagenet, half, unit, raw"),
        ('"imagenet"', '{ kind = "mean_std", mean = 123.7, std = 58.4 }', "divide by 255"),
        ('"imagenet"', '{ kind = "mean_std", mean = 0.5, std = 0 }', "deviation of 0"),
        ('"imagenet"', '{ kind = "affine", add = [1, 2] }', "has 2 values"),
        ('"imagenet"', '{ kind = "affine", plus = 1 }', "unknown field input.scale.plus"),
        ('"imagenet"', '"quantized"', "does not say how its input is"),
        ('color = "RGB"', 'color = "GRAY"', "GRAY takes 1"),
        ("[input]", 'labels = "../no-names.txt"\n[input]', "is not in"),
        ("[input]", 'labels = "names.txt"\n[input]', "'names.txt' is not in"),
        ("[input]", "[input", "no valid TOML"),
    ],
)
def test_a_wrong_description_names_file_and_field(model: Path, old, new, message) -> None:
    with pytest.raises(DescriptionError) as caught:
        described(model, MINIMAL.replace(old, new))
    assert message in str(caught.value)
    assert str(model.with_suffix(".toml")) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a\nb\nc\nd\ne\n", tuple("abcde"), id="plain"),
        pytest.param("a\nb\nc\nd\ne\n\n\n", tuple("abcde"), id="blank lines after"),
        pytest.param(
            "   0  a b\n   1  c, d\n 2 e\n3 f\n  4\tg",
            ("a b", "c, d", "e", "f", "g"),
            id="numbered",
        ),
        pytest.param("0: a\n1: b\n2: c\n3: d\n4: e", tuple("abcde"), id="numbered with colons"),
        pytest.param(
            "7 up\n3 musketeers\n4 you\n5 a\n6 b",
            ("7 up", "3 musketeers", "4 you", "5 a", "6 b"),
            id="numbers in names",
        ),
        pytest.param("\ufeffa\r\nb\r\nc\r\nd\r\ne\r\n", tuple("abcde"), id="from Windows"),
    ],
)
def test_labels(model: Path, text: str, expected: tuple[str, ...]) -> None:
    model.with_name("names.txt").write_bytes(text.encode())
    found = described(model, 'labels = "names.txt"' + MINIMAL)
    assert found.class_labels(CLASSES) == expected


def test_labels_may_lie_beside_the_model(model: Path, tmp_path: Path) -> None:
    model.with_name("names.txt").write_text("a\nb")
    (tmp_path / "descriptions").mkdir()
    path = tmp_path / "descriptions" / "tiny.toml"
    path.write_text('labels = "names.txt"' + MINIMAL)
    assert find_description(model, descriptions_dir=path.parent).labels == ("a", "b")


def test_labels_of_another_number_are_refused(model: Path) -> None:
    found = described(model, 'labels = ["a", "b", "c"]' + MINIMAL)
    with pytest.raises(DescriptionError, match=r"3 labels where tiny\.onnx has 5 classes"):
        found.class_labels(CLASSES)
    assert described(model, MINIMAL).class_labels(CLASSES) is None


def test_beside_the_model_wins_over_folder_and_metadata(model: Path, tmp_path: Path) -> None:
    proto = onnx.load(str(model))
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, 'name = "metadata"' + MINIMAL
    onnx.save(proto, str(model))
    assert find_description(model).name == "metadata"
    folder = tmp_path / "descriptions"
    folder.mkdir()
    (folder / "tiny.toml").write_text('name = "folder"' + MINIMAL)
    assert find_description(model, descriptions_dir=folder).name == "folder"
    model.with_suffix(".toml").write_text('name = "beside"' + MINIMAL)
    assert find_description(model, descriptions_dir=folder).name == "beside"
    model.with_name("tiny.onnx.toml").write_text('name = "whole name"' + MINIMAL)
    assert find_description(model, descriptions_dir=folder).name == "whole name"


def test_metadata_of_a_model_with_external_weights(model: Path) -> None:
    proto = onnx.load(str(model))
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, MINIMAL
    onnx.save(proto, str(model), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert find_description(model).name == "tiny"


def test_no_description_names_the_command(model: Path) -> None:
    with pytest.raises(DescriptionError, match=r"tinysaver-edge models describe .*tiny\.onnx"):
        find_description(model)


def test_a_truncated_model_is_a_model_error(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-40])
    with pytest.raises(ModelError, match=r"tiny\.onnx"):
        find_description(model)


def test_a_contradiction_with_the_file_names_both(model: Path) -> None:
    found = described(model, MINIMAL.replace("[16, 16]", "[16, 24]"))
    with pytest.raises(DescriptionError) as caught:
        create_engine("auto", model, preprocess=found.preprocess, output=found.output)
    assert "(n, 3, 16, 24)" in str(caught.value)
    assert "(n, 3, 16, 16)" in str(caught.value)


@pytest.mark.parametrize("labels", ["../names.txt", "/etc/passwd"])
def test_labels_of_metadata_stay_in_the_models_folder(model: Path, labels: str) -> None:
    proto = onnx.load(str(model))
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, f'labels = "{labels}"' + MINIMAL
    onnx.save(proto, str(model))
    with pytest.raises(DescriptionError, match="lies outside its folder"):
        find_description(model)


def test_labels_of_a_toml_may_lie_anywhere(model: Path, tmp_path: Path) -> None:
    names = tmp_path / "elsewhere" / "names.txt"
    names.parent.mkdir()
    names.write_text("cat\ndog\n")
    described = model.with_suffix(".toml")
    described.write_text(f'labels = "{names}"' + MINIMAL)
    assert find_description(model).labels == ("cat", "dog")


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["0 cat", "1 dog"], ("cat", "dog")),
        (["  7: cat", "  8: dog"], ("cat", "dog")),
        (["0 people", "1 people", "2 people"], ("0 people", "1 people", "2 people")),
        (["3 series", "4 series", "5 series"], ("3 series", "4 series", "5 series")),
        (["1 cat", "3 dog"], ("1 cat", "3 dog")),
        (["cafe\u0301", "tea"], ("café", "tea")),
        ([f"{n} bird {n % 49}" for n in range(50)], tuple(f"bird {n % 49}" for n in range(50))),
    ],
)
def test_numbers_of_lines_go_and_numbers_in_names_stay(
    tmp_path: Path, lines: list[str], names: tuple[str, ...]
) -> None:
    (tmp_path / "names.txt").write_text("\n".join(lines))
    assert read_labels("names.txt", (tmp_path,), source="test") == names
