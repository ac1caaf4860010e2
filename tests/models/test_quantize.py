"""Quantised models: what they answer, what they carry, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.test_devices import run
from tests.model_zoo import Form, frames, probabilities, tiny_classifier
from tests.real_data import data_folder
from tinysaver_edge._support.files import NOT_OURS
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.looks import read_looks, seen_from_text
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.engines.base import Precision
from tinysaver_edge.engines.registry import create_engine
from tinysaver_edge.errors import DataError, InputError
from tinysaver_edge.models.compare.compare import answers
from tinysaver_edge.models.description.carried import read_metadata, write_metadata
from tinysaver_edge.models.description.describe import to_toml
from tinysaver_edge.models.description.description import (
    METADATA_KEY,
    ModelDescription,
    find_description,
    read_description,
)
from tinysaver_edge.models.embed.embed import embed
from tinysaver_edge.models.graph.reader import read_graph
from tinysaver_edge.models.quantize.quantize import Form as Numbers
from tinysaver_edge.models.quantize.quantize import Quantized, quantize
from tinysaver_edge.preprocess import DEVICE_FORMAT

cv2 = pytest.importorskip("cv2")

LABELS = ("ape", "bee", "cat", "dog", "eel")
CIFAR10 = data_folder() / "cifar10"
needs_cifar10 = pytest.mark.skipif(
    not (CIFAR10 / "test.zip").is_file(),
    reason="no CIFAR-10: set TINYSAVER_DATA or put the data into ../shared/data",
)


@pytest.fixture
def model(tmp_path: Path) -> ModelDescription:
    form = Form()
    path = tiny_classifier(tmp_path / "tiny.onnx")
    return ModelDescription(path, "tiny", form.preprocess, form.output, labels=LABELS, macs=9e3)


@pytest.fixture
def data(tmp_path: Path, model: ModelDescription) -> DataSource:
    """Pictures, each labelled with what the model says of it: it starts out with no error."""
    pictures = frames(60)
    with create_engine(
        "auto", model.file, preprocess=model.preprocess, output=model.output
    ) as engine:
        classes = answers(engine, model.preprocess, pictures).argmax(axis=1)
    lines = ["file,label"]
    for number, (picture, place) in enumerate(zip(pictures, classes, strict=True)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        lines.append(f"{number}.png,{LABELS[place]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return open_data(tmp_path / "labels.csv")


def needs_nncf(suffix: str) -> None:
    if suffix == ".xml":
        pytest.importorskip("nncf", reason="needs pip install 'tinysaver-edge[quantize]'")


def logits(description: ModelDescription) -> np.ndarray:
    with create_engine(
        "auto", description.file, preprocess=description.preprocess, output=description.output
    ) as engine:
        return answers(engine, description.preprocess, frames(32, seed=9))


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("embedded", [False, True], ids=["plain", "takes frames"])
def test_int8_answers_nearly_the_same(
    model: ModelDescription, data: DataSource, tmp_path: Path, suffix: str, embedded: bool
) -> None:
    needs_nncf(suffix)
    if embedded:
        made = embed(model.file, model, tmp_path / "embedded")
        model = replace(model, file=made.path, preprocess=made.preprocess)
        assert model.preprocess.format == DEVICE_FORMAT
    result = quantize(
        model, tmp_path / f"small{suffix}", data, calibration_samples=20, evaluation_samples=30
    )
    assert result.accuracy_before == 1.0
    assert result.accuracy_after == result.top1_agreement >= 0.9
    assert result.drop_points == pytest.approx(100 * (1 - result.accuracy_after))
    assert result.drop_points == pytest.approx(100 * (result.lost - result.gained) / 30)
    assert (result.calibration_samples, result.evaluation_samples) == (20, 30)
    found = find_description(result.files[0])
    assert found.name == "small"
    assert (found.labels, found.macs) == (LABELS, 9e3)
    content = read_looks(data).content
    assert len(seen_from_text(found.fitted_on).places(content)) == 20
    assert found.preprocess.resize == model.preprocess.resize
    apart = probabilities(logits(model)) - probabilities(logits(found))
    assert np.abs(apart).max() > 0
    assert np.abs(apart).mean() < 0.02


def operations(path: Path) -> set[str]:
    return {node.operation for node in read_graph(path).nodes}


def test_int8_onnx_has_a_scale_a_channel(
    model: ModelDescription, data: DataSource, tmp_path: Path
) -> None:
    result = quantize(model, tmp_path / "small.onnx", data, calibration_samples=10)
    assert {"QuantizeLinear", "DequantizeLinear"} <= operations(result.files[0])
    proto = onnx.load(str(result.files[0]))
    stored = {one.name: one for one in proto.graph.initializer}
    eight = [one for one in stored.values() if one.data_type == onnx.TensorProto.INT8]
    assert {tuple(one.dims) for one in eight} >= {(8, 3, 3, 3), (8, 1, 3, 3)}
    scales = [one for one in stored.values() if one.name.startswith("w1") and "scale" in one.name]
    assert [tuple(one.dims) for one in scales] == [(8,)]
    assert [entry.key for entry in proto.metadata_props] == [METADATA_KEY]


def test_int8_xml_holds_quantised_operations_and_no_path(
    model: ModelDescription, data: DataSource, tmp_path: Path
) -> None:
    needs_nncf(".xml")
    result = quantize(model, tmp_path / "small.xml", data, calibration_samples=10)
    assert "FakeQuantize" in operations(result.files[0])
    text = result.files[0].read_text()
    assert str(tmp_path) not in text
    assert "<framework>" not in text


def test_an_onnx_that_describes_itself_becomes_an_xml_that_does(
    model: ModelDescription, data: DataSource, tmp_path: Path
) -> None:
    write_metadata(model.file, {METADATA_KEY: to_toml(model), "other.note": str(tmp_path)})
    theirs = find_description(model.file)
    result = quantize(theirs, tmp_path / "half.xml", data, form=Numbers.FP16)
    assert find_description(result.files[0]).labels == LABELS
    text = result.files[0].read_text()
    assert "<framework>" not in text
    assert str(tmp_path) not in text


def test_seven_bits_stay_in_their_range(
    model: ModelDescription, data: DataSource, tmp_path: Path
) -> None:
    result = quantize(
        model, tmp_path / "small.onnx", data, calibration_samples=10, reduce_range=True
    )
    proto = onnx.load(str(result.files[0]))
    weights = [
        onnx.numpy_helper.to_array(one)
        for one in proto.graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4
    ]
    assert len(weights) == 2
    assert max(int(np.abs(one).max()) for one in weights) in range(60, 65)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_fp16_halves_the_weights(
    model: ModelDescription, data: DataSource, tmp_path: Path, suffix: str
) -> None:
    result = quantize(model, tmp_path / f"half{suffix}", data, form=Numbers.FP16)
    assert result.calibration_samples == 0
    assert result.accuracy_after >= 0.98
    before, after = (read_graph(path).constant_bytes for path in (model.file, result.files[0]))
    assert after < 0.7 * before
    apart = np.abs(logits(model) - logits(find_description(result.files[0]))).max()
    assert 0 < apart < 0.05
    assert find_description(result.files[0]).precision is None


def test_bf16_is_written_into_the_description(
    model: ModelDescription, data: DataSource, tmp_path: Path
) -> None:
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    result = quantize(model, tmp_path / "brain.xml", data, form=Numbers.BF16)
    assert find_description(result.files[0]).precision is Precision.BFLOAT16
    assert result.engine_after == "openvino"
    assert result.top1_agreement >= 0.9


def test_an_engine_that_cannot_read_the_new_file_is_not_described(
    model: ModelDescription, data: DataSource, tmp_path: Path
) -> None:
    theirs = replace(model, engine="onnxruntime")
    result = quantize(theirs, tmp_path / "half.xml", data, form=Numbers.FP16)
    assert find_description(result.files[0]).engine is None
    kept = quantize(theirs, tmp_path / "half.onnx", data, form=Numbers.FP16)
    assert find_description(kept.files[0]).engine == "onnxruntime"


@pytest.mark.parametrize(
    ("out", "settings", "error", "message"),
    [
        ("tiny.onnx", {}, InputError, "would replace it"),
        ("a.tflite", {}, InputError, "must end in .onnx or .xml"),
        ("a.onnx", {"form": Numbers.BF16}, InputError, "bfloat16 is OpenVINO's"),
        ("a.onnx", {"calibration_samples": 31}, DataError, "60 images are too few for 31"),
    ],
)
def test_refusals(model: ModelDescription, data: DataSource, out, settings, error, message) -> None:
    before = model.file.read_bytes()
    with pytest.raises(error, match=message):
        quantize(model, model.file.parent / out, data, **settings)
    assert model.file.read_bytes() == before


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_it_takes_the_place_of_what_it_made_and_of_nothing_else(
    model: ModelDescription, data: DataSource, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"mine{suffix}"
    out.touch()  # as mktemp does
    first = quantize(model, out, data, form=Numbers.FP16)
    assert quantize(model, out, data, form=Numbers.FP16).files == first.files
    metadata = read_metadata(out)[METADATA_KEY]
    write_metadata(out, {METADATA_KEY: metadata.replace("quantize", "export", 1)})
    with pytest.raises(InputError, match=NOT_OURS):
        quantize(model, out, data, form=Numbers.FP16)
    for file in first.files:
        file.write_bytes(b"of another tool")
        with pytest.raises(InputError, match=NOT_OURS):
            quantize(model, out, data, form=Numbers.FP16)
        assert file.read_bytes() == b"of another tool"
    out.unlink()
    if suffix == ".xml":
        with pytest.raises(InputError, match=r"its weights would lie in mine\.bin"):
            quantize(model, out, data, form=Numbers.FP16)


def test_labels_of_other_classes_are_refused_and_nothing_is_left(
    model: ModelDescription, data: DataSource, tmp_path: Path
) -> None:
    other = replace(model, labels=("a", "b", "c", "d", "e"))
    with pytest.raises(DataError, match="is none of the model's"):
        quantize(other, tmp_path / "new" / "small.onnx", data, calibration_samples=5)
    assert not (tmp_path / "new" / "small.onnx").exists()


@needs_cifar10
@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_cifar10_keeps_its_accuracy_in_int8(tmp_path: Path, name: str, suffix: str) -> None:
    needs_nncf(suffix)
    result = cifar10(name, tmp_path / f"{name}-int8{suffix}", tmp_path)
    assert result.accuracy_before > 0.9
    assert result.drop_points < 1.5
    assert result.top1_agreement > 0.95
    assert result.bytes_after < 0.6 * result.bytes_before
    assert METADATA_KEY in read_metadata(result.files[0])


def cifar10(name: str, out: Path, folder: Path) -> Quantized:
    path = folder / f"{name}.toml"
    path.write_text(
        '[input]\nlayout = "NCHW"\ndtype = "float32"\ncolor = "RGB"\nsize = 32\n'
        'scale = "imagenet"\n[output]\nkind = "logits"\n'
    )
    plain = read_description(path, CIFAR10 / f"{name}.onnx")
    made = embed(plain.file, plain, folder / "embedded")
    description = replace(plain, file=made.path, preprocess=made.preprocess)
    with open_data(CIFAR10 / "test.zip") as images:
        return quantize(description, out, images, calibration_samples=100, evaluation_samples=500)


def test_the_command_line(model: ModelDescription, data: DataSource, tmp_path: Path) -> None:
    model.file.with_suffix(".toml").write_text(
        f'labels = {list(LABELS)}\n[input]\nlayout = "NCHW"\ndtype = "float32"\ncolor = "RGB"\n'
        'size = 16\nscale = "imagenet"\n[output]\nkind = "logits"\n'
    )
    out = tmp_path / "small.onnx"
    arguments = ["--data", str(data.path), "--calibration-samples", "10", "--json"]
    done = run(tmp_path, "models", "quantize", str(model.file), "--out", str(out), *arguments)
    assert done.code == 0, done.err
    assert '"accuracy_before": 1.0' in done.out
    assert "int8 on 50 images" in done.err
    assert run(tmp_path, "models", "check", str(out)).code == 0
