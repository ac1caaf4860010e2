"""`check_model`: what it finds right, and what it finds wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.test_devices import run
from tests.model_zoo import CLASSES, Form, tiny_classifier
from tinysaver_edge.models.compare.compare import ModelCheck, check_model
from tinysaver_edge.models.description.carried import write_metadata
from tinysaver_edge.models.description.describe import to_toml
from tinysaver_edge.models.description.description import METADATA_KEY, ModelDescription
from tinysaver_edge.output_format import OutputFormat, OutputKind

TINY_MACS = 8 * 8 * 8 * 27 + 8 * 8 * 8 * 9 + 8 * CLASSES


def described(model: Path, form: Form | None = None) -> ModelDescription:
    form = Form() if form is None else form
    return ModelDescription(model, "tiny", form.preprocess, form.output)


def wrong(checked: ModelCheck) -> dict[str, str]:
    return {one.name: one.detail for one in checked.findings if one.passed is False}


@pytest.mark.parametrize(
    "form", [Form(), Form(softmax=True), Form(dtype="uint8", output_dtype="uint8")], ids=str
)
def test_a_sound_model_passes_in_both_engines(tmp_path: Path, form: Form) -> None:
    checked = check_model(described(tiny_classifier(tmp_path / "tiny.onnx", form), form))
    assert wrong(checked) == {}
    assert checked.passed
    assert checked.macs == TINY_MACS
    assert [one.name for one in checked.findings] == [
        "answer",
        "MACs",
        "onnxruntime",
        "openvino",
        "openvino against onnxruntime",
    ]
    assert checked.to_dict()["passed"] is True


def test_labels_that_do_not_fit_are_found(tmp_path: Path) -> None:
    description = described(tiny_classifier(tmp_path / "tiny.onnx"))
    found = wrong(check_model(replace(description, labels=("a", "b"))))
    assert set(found) == {"onnxruntime", "openvino"}
    assert "2 labels where tiny.onnx has 5 classes" in found["openvino"]


def test_macs_that_are_far_off_are_found(tmp_path: Path) -> None:
    description = described(tiny_classifier(tmp_path / "tiny.onnx"))
    assert check_model(replace(description, macs=TINY_MACS * 1.01)).passed
    assert set(wrong(check_model(replace(description, macs=2.0 * TINY_MACS)))) == {"MACs"}


def test_nan_is_found(tmp_path: Path) -> None:
    form = Form(nan=True)
    found = wrong(check_model(described(tiny_classifier(tmp_path / "tiny.onnx", form), form)))
    assert "answers NaN" in found["onnxruntime"]
    assert "openvino against onnxruntime" in found


def test_an_input_that_contradicts_the_file_is_found(tmp_path: Path) -> None:
    description = described(tiny_classifier(tmp_path / "tiny.onnx"), Form(dtype="uint8"))
    found = wrong(check_model(description))
    assert set(found) == {"onnxruntime", "openvino"}
    assert "float32" in found["onnxruntime"]


def test_probabilities_described_as_logits_are_pointed_out(tmp_path: Path) -> None:
    form = Form(softmax=True)
    description = described(tiny_classifier(tmp_path / "tiny.onnx", form), form)
    said = check_model(replace(description, output=OutputFormat(OutputKind.LOGITS))).findings[0]
    assert said.passed is None
    assert "described as logits, ends in Softmax" in said.detail


def test_the_command_exits_with_two_where_something_is_wrong(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    write_metadata(model, {METADATA_KEY: to_toml(described(model))})
    done = run(tmp_path, "models", "check", str(model), "--json")
    assert done.code == 0, done.err
    assert f'"macs": {TINY_MACS}' in done.out
    write_metadata(model, {METADATA_KEY: to_toml(replace(described(model), macs=1.0))})
    done = run(tmp_path, "models", "check", str(model))
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(f"tinysaver-edge: model {model}: MACs: ")
