"""A bundle as a recipe: its models on other frames, as they were measured before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.colours import DESCRIPTION, LARGE, NAMES, Kind, colour_folders, colour_model
from tests.small_bundle import small_bundle
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate import ImageInput, ModelFile, Plan, Targets, calibrate
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.errors import RecipeError
from tinysaver_edge.models.description.description import find_description

DROP, CONFIDENCE = 12.0, 0.8
TURNED = tuple(reversed(range(len(NAMES))))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and a bundle whose saver names the same classes in another order."""
    folder = tmp_path_factory.mktemp("again")
    colour_folders(folder / "data", each=60)
    turned = [NAMES[place] for place in TURNED]
    for name, kind, labels in (
        ("big", LARGE, list(NAMES)),
        ("tiny", Kind(blur=0.15, order=TURNED), turned),
    ):
        colour_model(folder / f"{name}.onnx", kind)
        (folder / f"{name}.toml").write_text(f"labels = {labels}\n{DESCRIPTION}")
    paths = (folder / "big.onnx", folder / "tiny.onnx")
    models = [ModelFile(path, find_description(path)) for path in paths]
    images = ImageInput(
        data=folder / "data", large=models[0], savers=(models[1],), isolate=False, timing=False
    )
    targets = Targets(max_drop_points=DROP, confidence=CONFIDENCE)
    calibrate(Plan(images, targets, report=False), out=folder / "bundle")
    return folder


def test_the_same_models_on_the_same_images_make_the_same_bundle(
    work: Path, tmp_path: Path
) -> None:
    settings = replace(load_recipe(str(work / "bundle")), data=work / "data", no_timing=True)
    assert (settings.max_drop, settings.confidence) == (DROP, CONFIDENCE)
    result = calibrate(plan_of(settings), out=tmp_path / "next")
    before, after = (Bundle.load(path).manifest for path in (work / "bundle", tmp_path / "next"))
    assert before.stages[0].model.output is not None
    assert before.stages[0].model.output.class_order == TURNED
    assert after.labels == before.labels
    assert result.policy.stages[0].threshold == before.stages[0].threshold
    assert after.certificate is not None
    assert before.certificate is not None
    assert after.certificate.counts == before.certificate.counts
    for one, other in zip(before.stages, after.stages, strict=True):
        assert one.model.output == other.model.output
        assert one.model.sha256 == other.model.sha256
        assert one.model.preprocess == other.model.preprocess


def test_a_bundle_without_two_models_is_no_recipe(work: Path, tmp_path: Path) -> None:
    only = small_bundle(tmp_path / "only", names=("only",), golden=False)
    with pytest.raises(RecipeError, match="does not hold the files of two models"):
        load_recipe(str(only))
