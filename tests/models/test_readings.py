"""Readings: which scale, colour order, resize, class offset and class order fit labelled images."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.colours import LARGE, NAMES, OUTPUT, PREPROCESS, colour_folders, colour_model
from tests.model_zoo import save
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.models.compare.compare import check_model
from tinysaver_edge.models.compare.readings import Fit, Readings, try_readings
from tinysaver_edge.models.description.description import ModelDescription
from tinysaver_edge.preprocess import ColorOrder, InputFormat, Layout


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    return open_data(colour_folders(tmp_path_factory.mktemp("readings") / "data", each=25))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelDescription:
    path = colour_model(tmp_path_factory.mktemp("readings") / "large.onnx", LARGE)
    return ModelDescription(path, "large", PREPROCESS, OUTPUT, labels=NAMES)


def read(model: ModelDescription, images: DataSource) -> Readings:
    return try_readings(model, images, threads=1)


def test_a_true_description_fits(model, images) -> None:
    found = read(model, images)
    assert found.fits
    assert found.described.what == "as described"
    assert found.described.accuracy > 0.8
    assert found.suggested is None
    assert len({one.what for one in found.tried}) == len(found.tried) > 5


def wrongly(model: ModelDescription, **changes: object) -> ModelDescription:
    form = replace(model.preprocess.format, **changes)
    return replace(model, preprocess=replace(model.preprocess, format=form))


def test_a_wrong_colour_order_is_found_and_check_fails(model, images) -> None:
    said = model.preprocess.format
    other = ColorOrder.RGB if said.color is ColorOrder.BGR else ColorOrder.BGR
    wrong = wrongly(model, color=other)
    found = read(wrong, images)
    assert not found.fits
    assert found.suggested is not None
    assert found.suggested.what == f"color {said.color.value}"
    checked = check_model(wrong, data=images, threads=1)
    finding = checked.findings[-1]
    assert (finding.name, finding.passed) == ("readings", False)
    assert "correct it" in finding.detail
    assert checked.to_dict()["readings"]["fits"] is False


def test_classes_in_another_order_are_told(model, images) -> None:
    turned = replace(model, labels=(*NAMES[1:], NAMES[0]))
    found = read(turned, images)
    assert not found.fits
    assert found.another_order is not None
    assert "another order" in found.sentence()


def test_equal_pictures_are_run_once(model, images) -> None:
    same = [one for one in read(model, images).tried if one.verdict is Fit.SAME]
    assert {one.what for one in same} >= {"resize center_crop", "resize letterbox"}


def plain(path: Path, background: int, scale: float) -> Path:
    """Answer with the mean of each channel of pictures times a scale, a background first."""
    weights = np.zeros((3, 3 + background), np.float32)
    weights[:, background:] = 8 * np.eye(3)
    values = {"w": weights, "b": np.array([-50.0] * background + [-4.0] * 3, np.float32)}
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Clip", ["flat", "low", "high"], ["cut"]),
        helper.make_node("Gemm", ["cut", "w", "b"], ["y"]),
    ]
    values |= {"low": np.float32(0), "high": np.float32(1)}
    answer = ("y", "float32", ["n", 3 + background])
    save(path, nodes, ("x", "float32", ["n", 3, 16, 16]), [answer], values)
    return path


def test_scale_and_background_are_found_together(tmp_path: Path) -> None:
    import cv2

    rng = np.random.default_rng(0)
    for place, name in itertools.product(range(3), range(30)):
        picture = np.full((16, 16, 3), 90, np.float64)
        picture[..., place] += 60
        noisy = np.clip(picture + rng.normal(0, 20, (1, 1, 3)), 0, 255).astype(np.uint8)
        (tmp_path / "data" / f"c{place}").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "data" / f"c{place}" / f"{name}.png"), noisy)
    form = InputFormat(Layout.NCHW, "float32", ColorOrder.BGR)  # raw: every channel is cut to 1
    made = plain(tmp_path / "plain.onnx", 1, 1.0)
    said = ModelDescription(
        made,
        "plain",
        replace(PREPROCESS, resize=replace(PREPROCESS.resize, height=16, width=16), format=form),
        replace(OUTPUT, class_offset=1),
    )
    with open_data(tmp_path / "data") as data:
        found = try_readings(said, data, threads=1)
        assert found.suggested is not None
        assert found.suggested.what == 'scale "unit"'
        assert found.suggested.accuracy > 0.9
