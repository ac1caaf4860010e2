"""What a description gets wrong about a file, and what of an earlier preparation still holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.colours import SAVER, colour_model
from tests.model_zoo import Form, save, tiny_classifier
from tinysaver_edge.calibrate.measured.prepare import find_prepared, prepare
from tinysaver_edge.calibrate.plan import ModelFile
from tinysaver_edge.errors import DescriptionError
from tinysaver_edge.models.description.description import find_description

DESCRIPTION = """
input = {{ layout = "NCHW", dtype = "float32", color = "RGB", size = 16, scale = "imagenet" }}
output = {{ kind = "{kind}" }}
"""


def described(path: Path, kind: str = "logits") -> ModelFile:
    path.with_suffix(".toml").write_text(DESCRIPTION.format(kind=kind))
    return ModelFile(path, find_description(path))


def test_logits_described_as_probabilities_are_refused(tmp_path: Path) -> None:
    model = described(colour_model(tmp_path / "a.onnx", SAVER), "probabilities")
    with pytest.raises(DescriptionError, match=r'sum to .*: write .* kind = "logits"'):
        prepare(model, tmp_path / "made")


@pytest.mark.parametrize("embed", [True, False])
def test_probabilities_described_as_logits_are_refused(tmp_path: Path, embed: bool) -> None:
    model = described(tiny_classifier(tmp_path / "a.onnx", Form(softmax=True)))
    with pytest.raises(DescriptionError, match=r'sum to 1: write .* kind = "probabilities"'):
        prepare(model, tmp_path / "made", embed=embed)


@pytest.mark.parametrize("softmax", [True, False])
def test_what_is_described_rightly_passes(tmp_path: Path, softmax: bool) -> None:
    file = tiny_classifier(tmp_path / "a.onnx", Form(softmax=softmax))
    kind = "probabilities" if softmax else "logits"
    assert prepare(described(file, kind), tmp_path / "made").classes == 5


def test_a_model_of_something_else_than_pictures_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "vector.onnx"
    weights = {"w": np.ones((10, 3), np.float32)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    save(path, [node], ("x", "float32", [1, 10]), [("y", "float32", [1, 3])], weights)
    with pytest.raises(DescriptionError, match=r"the file takes float32 \(1, 10\)"):
        prepare(described(path), tmp_path / "made")


def test_what_was_prepared_for_an_engine_that_is_gone_is_prepared_again(tmp_path: Path) -> None:
    model = described(tiny_classifier(tmp_path / "a.onnx"))
    made = tmp_path / "made"
    prepare(model, made)
    assert find_prepared(model, made, embed=True) is not None
    note = made / "a" / "prepared.json"
    content = json.loads(note.read_text())
    content["artefact"]["engine"] = "torch"  # the reference engine; no part of a light install
    note.write_text(json.dumps(content))
    try:
        import torch  # noqa: F401
    except ImportError:
        assert find_prepared(model, made, embed=True) is None


@pytest.mark.parametrize(("said", "refused"), [(36, True), (2, True), (19, False), (None, False)])
def test_macs_that_the_graph_has_not_are_refused(
    tmp_path: Path, said: int | None, refused: bool
) -> None:
    """The model has 18; twice as many are FLOPs."""
    path = colour_model(tmp_path / "a.onnx", SAVER)
    told = "" if said is None else f"macs = {said}\n"
    path.with_suffix(".toml").write_text(told + DESCRIPTION.format(kind="logits"))
    model = ModelFile(path, find_description(path))
    if refused:
        with pytest.raises(DescriptionError, match=rf"says {said} MACs and its graph has 18"):
            prepare(model, tmp_path / "made")
    else:
        assert prepare(model, tmp_path / "made").macs == (said or 18)
