"""Descriptions written from files: what they tell, what they ask, and that they are right."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.model_zoo import CLASSES, SIZE, Form, save, tiny_classifier
from tests.real_data import data_folder
from tinysaver_edge.cli.models import models
from tinysaver_edge.engines.registry import create_engine
from tinysaver_edge.errors import InputError, ModelError
from tinysaver_edge.models.description.carried import write_metadata
from tinysaver_edge.models.description.describe import KnownAlready, describe, to_toml
from tinysaver_edge.models.description.description import (
    METADATA_KEY,
    description_from,
    find_description,
    parse_description,
)
from tinysaver_edge.models.description.schema import unfilled
from tinysaver_edge.models.embed.embed import embed
from tinysaver_edge.preprocess import ColorOrder, Layout, Preprocessor, ResizePolicy

ALL = KnownAlready(color=ColorOrder.RGB, scale="imagenet")


def told(model: Path, answers: KnownAlready | None = None) -> dict:
    return parse_description(describe(model, answers), "test")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        pytest.param(Form(), ("NCHW", "float32", "?", "logits"), id="float32 NCHW"),
        pytest.param(
            Form(layout=Layout.NHWC, softmax=True),
            ("NHWC", "float32", "?", "probabilities"),
            id="NHWC",
        ),
        pytest.param(
            Form(dtype="float16", batch=1), ("NCHW", "float16", "?", "logits"), id="float16"
        ),
    ],
)
def test_what_the_file_tells(tmp_path: Path, form: Form, expected) -> None:
    found = told(tiny_classifier(tmp_path / "tiny.onnx", form))
    source = found["input"]
    assert (source["layout"], source["dtype"], source["scale"], found["output"]["kind"]) == expected
    assert (found["name"], source["size"]) == ("tiny", [SIZE, SIZE])
    assert found["output"]["class_offset"] == 0
    assert unfilled(found) == ["input.color", "input.scale"]


def test_answers_complete_it(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    answers = KnownAlready(
        color=ColorOrder.BGR,
        scale='{ kind = "affine", multiply = [1, 2, 3] }',
        labels="names.txt",
        resize=ResizePolicy.CENTER_CROP,
        crop_ratio=0.875,
    )
    model.with_name("names.txt").write_text("\n".join("abcde"))
    model.with_suffix(".toml").write_text(describe(model, answers))
    found = find_description(model)
    assert found.class_labels(CLASSES) == tuple("abcde")
    assert found.preprocess.format.color is ColorOrder.BGR
    assert found.preprocess.format.multiply == (1.0, 2.0, 3.0)
    assert found.preprocess.resize.policy is ResizePolicy.CENTER_CROP
    assert found.preprocess.resize.crop_ratio == 0.875


QUANTIZED = [
    pytest.param("int8", 1.0, -128, {"kind": "affine", "add": -128}, id="int8 of 0..255"),
    pytest.param("int8", 1 / 128, 0, {"kind": "affine", "add": -128}, id="int8 of -1..1"),
    pytest.param("int8", 1 / 255, -128, {"kind": "affine", "add": -128}, id="int8 of 0..1"),
    pytest.param("uint8", 1 / 127.5, 128, "raw", id="uint8 of -1..1"),
    pytest.param("uint8", 0.0187, 114, {"kind": "quantized", "of": "imagenet"}, id="ImageNet"),
    pytest.param("int8", 0.3, 4, "?", id="of something else"),
]


@pytest.mark.parametrize(("dtype", "scale", "zero_point", "expected"), QUANTIZED)
@pytest.mark.parametrize("through", ["onnx", "openvino"])
def test_a_quantised_input_tells_its_scale(
    tmp_path, monkeypatch, dtype, scale, zero_point, expected, through
) -> None:
    weights = {
        "scale": np.float32(scale),
        "zero": np.dtype(dtype).type(zero_point),
        "w": np.random.default_rng(0).normal(0, 1, (CLASSES, 3, SIZE, SIZE)).astype(np.float32),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["image", "scale", "zero"], ["real"]),
        helper.make_node("Conv", ["real", "w"], ["map"]),
        helper.make_node("Flatten", ["map"], ["answer"]),
    ]
    model = tmp_path / "quantized.onnx"
    shape = ["n", 3, SIZE, SIZE]
    save(model, nodes, ("image", dtype, shape), [("answer", "float32", ["n", CLASSES])], weights)
    if through == "openvino":
        from tinysaver_edge.models.graph import reader as graph_reader

        monkeypatch.setattr(graph_reader, "find_spec", lambda name: name == "openvino" or None)
    assert told(model)["input"]["scale"] == expected


def small(
    path: Path, first: list, weights: dict, *, outputs: int = 3, last: str = "Flatten"
) -> Path:
    """A pooling behind some first operations, which make ``x`` of ``image``."""
    nodes = [
        *first,
        helper.make_node("GlobalAveragePool", ["x"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["answer" if last == "Flatten" else "scores"]),
    ]
    if last != "Flatten":
        nodes.append(helper.make_node(last, ["scores"], ["answer"]))
    weights = {"w": np.ones((3, outputs), np.float32), **weights}
    source = ("image", "float32", [1, 3, SIZE, SIZE])
    save(path, nodes, source, [("answer", "float32", [1, outputs])], weights)
    return path


def test_scaling_in_the_graph_is_seen(tmp_path: Path) -> None:
    first = [
        helper.make_node("Sub", ["image", "mean"], ["s"]),
        helper.make_node("Div", ["s", "std"], ["x"]),
    ]
    weights = {"mean": np.full((1, 3, 1, 1), 120, np.float32), "std": np.float32(58)}
    model = small(tmp_path / "inside.onnx", first, weights)
    assert told(model)["input"]["scale"] == "raw"


def test_1001_outputs_suggest_a_background(tmp_path: Path) -> None:
    first = [helper.make_node("Relu", ["image"], ["x"])]
    model = small(tmp_path / "imagenet.onnx", first, {}, outputs=1001)
    assert told(model)["output"]["class_offset"] == 1


def test_a_sigmoid_is_not_taken_for_logits(tmp_path: Path) -> None:
    first = [helper.make_node("Relu", ["image"], ["x"])]
    found = told(small(tmp_path / "many.onnx", first, {}, last="Sigmoid"), ALL)
    assert unfilled(found) == ["output.kind"]


@pytest.mark.parametrize("last", ["ArgMax", "TopK"])
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_class_numbers_are_no_scores(tmp_path: Path, last: str, suffix: str) -> None:
    inputs, outputs = (["means"], ["at"]) if last == "ArgMax" else (["means", "k"], ["top", "at"])
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node(last, inputs, outputs, axis=1),
        helper.make_node("Cast", ["at"], ["answer"], to=TensorProto.FLOAT),
    ]
    source = ("image", "float32", [1, 3, SIZE, SIZE])
    model = tmp_path / "numbers.onnx"
    save(model, nodes, source, [("answer", "float32", [1, 1])], {"k": np.array([1], np.int64)})
    if suffix == ".xml":
        import openvino

        openvino.save_model(openvino.convert_model(model), model.with_suffix(suffix))
    with pytest.raises(ModelError, match="'answer' gives class numbers, not scores: it ends in"):
        describe(model.with_suffix(suffix))


def test_the_best_scores_of_a_model_are_scores(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("TopK", ["means", "k"], ["answer", "at"], axis=1),
    ]
    model = tmp_path / "best.onnx"
    source = ("image", "float32", [1, 3, SIZE, SIZE])
    save(model, nodes, source, [("answer", "float32", [1, 3])], {"k": np.array([3], np.int64)})
    assert told(model)["output"]["kind"] == "logits"


def test_grey_models_and_contradicting_answers(tmp_path: Path) -> None:
    weights = {"w": np.ones((CLASSES, 1, SIZE, SIZE), np.float32)}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["map"]),
        helper.make_node("Flatten", ["map"], ["answer"]),
    ]
    model = tmp_path / "grey.onnx"
    shape = [1, 1, SIZE, SIZE]
    save(model, nodes, ("image", "float32", shape), [("answer", "float32", [1, CLASSES])], weights)
    assert told(model)["input"]["color"] == "GRAY"
    with pytest.raises(InputError, match="RGB has 3 channels, the model takes 1"):
        describe(model, ALL)
    with pytest.raises(InputError, match="there are imagenet, half, unit, raw, quantized"):
        describe(model, KnownAlready(scale="imagnet"))


def test_an_open_size_is_asked_for(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    proto = onnx.load(str(model))
    shape = proto.graph.input[0].type.tensor_type.shape
    shape.dim[2].dim_param, shape.dim[3].dim_param = "h", "w"
    onnx.save(proto, str(model))
    assert unfilled(told(model, ALL)) == ["input.size"]


def test_what_takes_no_picture_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 9]) for name in "xy"]
    graph = helper.make_graph([node], "rows", ends[:1], ends[1:])
    model = tmp_path / "rows.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(model))
    with pytest.raises(InputError, match="is no picture: it has 2 axes"):
        describe(model)


def test_names_beside_the_model_are_found(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    assert "labels" not in told(model)
    (tmp_path / "readme.txt").write_text("one line")
    (tmp_path / "classes.txt").write_text("\n".join("abcde"))
    assert told(model)["labels"] == "classes.txt"
    (tmp_path / "others.txt").write_text("\n".join("vwxyz"))
    assert "labels" not in told(model), "two candidates are no answer"


def test_an_embedded_model_describes_itself(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    source = description_from(told(model, ALL), model, folder=tmp_path, source="test")
    embedded = embed(model, source, tmp_path / "out")
    found = description_from(told(embedded.path), embedded.path, folder=tmp_path, source="test")
    assert found.preprocess == embedded.preprocess


REAL = [
    ("resnet20.onnx", KnownAlready(ColorOrder.RGB, "imagenet"), 0.88),
    ("resnet8.tflite", KnownAlready(ColorOrder.RGB, "raw"), 0.83),
    ("resnet8-int8.tflite", KnownAlready(ColorOrder.RGB), 0.83),
]


@pytest.mark.parametrize(("name", "answers", "accuracy"), REAL)
def test_described_models_see_what_is_there(tmp_path: Path, name, answers, accuracy) -> None:
    """500 real pictures: a wrong scale or colour order costs far more than the margin left."""
    folder = data_folder() / "cifar10"
    if not folder.is_dir():
        pytest.skip("no models: set TINYSAVER_DATA or put the data into ../shared/data")
    with zipfile.ZipFile(folder / "test.zip") as archive:
        names = sorted(one for one in archive.namelist() if one.endswith(".png"))
        classes = sorted({Path(one).parent.name for one in names})
        pictures = [
            cv2.imdecode(np.frombuffer(archive.read(one), np.uint8), cv2.IMREAD_COLOR)
            for one in names[::20]
        ]
        labels = np.array([classes.index(Path(one).parent.name) for one in names[::20]])
    model = folder / name
    found = description_from(told(model, answers), model, folder=tmp_path, source="test")
    batch = Preprocessor(found.preprocess).batch(pictures)
    with create_engine("auto", model, preprocess=found.preprocess, output=found.output) as engine:
        assert np.mean(engine.infer(batch).argmax(axis=1) == labels) >= accuracy


def run(*arguments: str) -> None:
    models.main(list(arguments), standalone_mode=False)


def test_the_command_writes_toml_to_stdout_and_the_rest_to_stderr(tmp_path: Path, capsys) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    run("describe", str(model), "--color", "rgb")
    shown = capsys.readouterr()
    assert unfilled(parse_description(shown.out, "stdout")) == ["input.scale"]
    assert "input.scale" in shown.err


def test_the_command_never_overwrites_by_itself(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    out = tmp_path / "tiny.toml"
    arguments = ["describe", str(model), "--color", "RGB", "--scale", "half", "--out", str(out)]
    run(*arguments)
    assert find_description(model).preprocess.format.add == (-1.0,)
    with pytest.raises(InputError, match="--force"):
        run(*arguments)
    run(*arguments, "--force")
    before = model.read_bytes()
    with pytest.raises(InputError, match="is no description: choose another name"):
        run("describe", str(model), "--out", str(model), "--force")
    assert model.read_bytes() == before


def test_the_profile_as_json(tmp_path: Path, capsys) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    run("profile", str(model), "--json")
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["macs"] == (SIZE // 2) ** 2 * 8 * (3 * 9 + 9) + 8 * CLASSES
    assert found["flops"] == 2 * found["macs"]
    assert found["size_bytes"] == model.stat().st_size
    assert found["parameter_bytes"] == 4 * found["parameters"]
    assert found["signature"]["input_shape"] == [None, 3, SIZE, SIZE]
    assert "MACs" in (shown.out + shown.err)


@pytest.mark.parametrize("command", ["describe", "profile"])
def test_bad_files_are_model_errors(tmp_path: Path, command: str) -> None:
    (tmp_path / "cut.onnx").write_bytes(tiny_classifier(tmp_path / "t.onnx").read_bytes()[:-9])
    for name in ("absent.onnx", "cut.onnx"):
        with pytest.raises(ModelError, match=name):
            run(command, str(tmp_path / name))


def test_a_files_own_description_is_taken_over(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "own.onnx")
    model.with_suffix(".toml").write_text(
        describe(
            model,
            KnownAlready(
                color=ColorOrder.RGB,
                scale="imagenet",
                resize=ResizePolicy.CENTER_CROP,
                crop_ratio=0.875,
            ),
        )
    )
    said = find_description(model)
    model.with_suffix(".toml").unlink()
    write_metadata(model, {METADATA_KEY: to_toml(said)})
    text = describe(model)
    assert "as the description in the file itself has it.\n" in text
    model.with_suffix(".toml").write_text(text)
    assert find_description(model).preprocess == said.preprocess
    other = told(model, KnownAlready(color=ColorOrder.BGR))
    assert other["input"]["color"] == "BGR"
    assert other["input"]["resize"]["crop_ratio"] == 0.875
