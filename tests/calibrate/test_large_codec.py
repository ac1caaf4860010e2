"""A large model that is calibrated on JPEG: records, bundle, certificate, decisions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.calibrate.test_run import model, plan
from tests.colours import LARGE, NAMES, SAVER, colour_folders, colour_picture
from tinysaver_edge.bundle.bundle import MANIFEST, Bundle
from tinysaver_edge.calibrate import Method, Targets, calibrate
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.errors import BundleError, InputError
from tinysaver_edge.records.evaluation import evaluate_images
from tinysaver_edge.verify.run import verify

CODEC = Jpeg(3)
"""So coarse that the large model's logits move by whole units."""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    for name, kind in (("big", LARGE), ("tiny", SAVER)):
        model(folder, name, kind)
    colour_folders(folder / "images", each=40)
    calibrate(asked(folder), out=folder / "bundle")
    return folder


def asked(work: Path, *, codec: Jpeg | None = CODEC, **options):
    """Return a certified plan with a codec before the large model."""
    made = plan(work, large_codec=codec, **options)
    return replace(made, targets=Targets(max_drop_points=5.0), report=True)


def edit(bundle: Path, change) -> None:
    path = bundle / MANIFEST
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def copied(work: Path, target: Path) -> Path:
    return Path(shutil.copytree(work / "bundle", target))


def test_bundle_certificate_and_report_tell_the_codec(work) -> None:
    with Bundle.load(work / "bundle") as opened:
        stages, certificate = opened.manifest.stages, opened.manifest.certificate
    assert [stage.model.codec for stage in stages] == [None, CODEC]
    assert certificate is not None
    assert certificate.codec == CODEC
    report = (work / "bundle.report.html").read_text()
    assert "The large model saw every sample as JPEG of quality 3" in report
    assert "16×16, squash, JPEG of quality 3" in report


def test_the_large_model_here_sees_what_the_codec_leaves(work) -> None:
    frames = [colour_picture(number % len(NAMES), 77 + number) for number in range(60)]
    with Cascade.load(work / "bundle") as cascade:
        stage = cascade.stages[-1]
        batch = stage.prepare_many(frames)
        through = stage.ask(batch).logits
        expected = stage.engine.infer(CODEC.through(batch)).copy()
        pixels = stage.engine.infer(batch).copy()
        alone = cascade.stages[0]
        np.testing.assert_array_equal(alone.ask(batch).logits, alone.engine.infer(batch))
        decisions = [cascade.decide(frame) for frame in frames]
    np.testing.assert_array_equal(through, expected)
    assert np.abs(through - pixels).max() > 1
    assert any(one.escalated for one in decisions)
    assert all(one.certified for one in decisions)


def test_the_large_model_in_a_worker_sees_the_same(work) -> None:
    frames = [colour_picture(number % len(NAMES), 177 + number) for number in range(20)]
    with (
        Cascade.load(work / "bundle", large_worker=True) as there,
        Cascade.load(work / "bundle") as here,
    ):
        for frame in frames:
            one, other = there.decide(frame), here.decide(frame)
            assert (one.label, one.confidence) == (other.label, other.confidence)
            assert one.certified


def test_the_bundle_does_on_the_images_what_was_promised(work) -> None:
    with Bundle.load(work / "bundle") as opened:
        found = evaluate_images(opened, work / "images").figures
        assert found.to_dict() == opened.manifest.calibration.model_dump()
        checked = verify(opened)
    assert checked.passed
    details = {one.name: one.detail for one in checked.checks}
    assert details["answers of big"].endswith("through JPEG of quality 3")
    assert "JPEG" not in details["answers of tiny"]


def test_records_of_another_codec_are_not_taken(work) -> None:
    def told(name: str) -> dict[str, object]:
        return json.loads((work / "records" / f"{name}.json").read_text())["key"]["preprocess"]

    def written() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (work / "records").glob("*.npz")}

    assert told("big.jpeg3")["codec"] == {"quality": 3}
    assert "codec" not in told("tiny")
    assert "codec" not in told("big")
    before = written()
    assert set(before) == {"tiny.npz", "big.npz", "big.jpeg3.npz"}
    for codec in (Jpeg(90), None, CODEC):
        result = calibrate(asked(work, codec=codec))
        assert result.large_codec == codec
        assert result.to_dict()["large_jpeg"] == (codec and codec.quality)
    assert written().items() - before.items() == {("big.jpeg90.npz", written()["big.jpeg90.npz"])}


def test_a_record_with_the_name_of_another_codec_is_made_anew(work, tmp_path) -> None:
    records = Path(shutil.copytree(work / "records", tmp_path / "records"))
    for suffix in (".npz", ".json"):
        shutil.copy(records / f"big{suffix}", records / f"big.jpeg3{suffix}")
    calibrate(asked(work, records=records))
    tables = [np.load(one / "big.jpeg3.npz")["logits"] for one in (records, work / "records")]
    np.testing.assert_array_equal(*tables)


def test_what_the_codec_costs_by_itself_is_told(work) -> None:
    result = calibrate(asked(work))
    cost = result.codec_cost
    assert cost is not None
    with Bundle.load(work / "bundle") as opened:
        on_jpeg = opened.manifest.calibration.accuracy_large
    assert cost.accuracy_sent == on_jpeg
    assert cost.accuracy_pixels == calibrate(asked(work, codec=None)).calibration.accuracy_large
    assert cost.at_most_points is not None
    assert cost.drop_points < cost.at_most_points < cost.drop_points + 5
    assert result.to_dict()["jpeg_cost"]["drop_points"] == cost.drop_points
    assert calibrate(asked(work, codec=None)).codec_cost is None


def test_without_time_what_the_codec_costs_is_left_open(work, tmp_path) -> None:
    records = Path(shutil.copytree(work / "records", tmp_path / "records"))
    (records / "big.npz").unlink()
    result = calibrate(asked(work, records=records, time_budget_s=1e-9))
    assert result.large_codec == CODEC
    assert result.codec_cost is None
    assert result.to_dict()["jpeg_cost"] is None


def test_a_codec_that_costs_more_than_the_cascade_may_is_warned_of(work) -> None:
    for codec in (Jpeg(1), Jpeg(95)):
        certified = asked(work, codec=codec)
        lenient = replace(certified, targets=Targets(Method.EMPIRICAL, max_drop_points=0.0))
        result = calibrate(lenient)
        assert result.codec_cost is not None
        warned = [one for one in result.warnings if "alone costs big" in one]
        assert len(warned) == (result.codec_cost.drop_points > 0) == (codec == Jpeg(1))


@pytest.mark.parametrize("codec", [None, {"quality": 4}])
def test_another_codec_is_not_what_was_certified(work, tmp_path, codec) -> None:
    bundle = copied(work, tmp_path / "bundle")
    edit(bundle, lambda content: content["stages"][1]["model"].update(codec=codec))
    with Cascade.load(bundle) as cascade:
        assert not cascade.decide(colour_picture(0, 0)).certified
    with Bundle.load(bundle) as opened:
        checks = {one.name: one for one in verify(opened).checks}
    assert checks["certificate"].passed is False
    assert checks["certificate"].detail.startswith("was made on JPEG of quality 3, the large model")
    assert checks["answers of big"].passed is False


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda large: large.update(codec={"quality": 0}), "JPEG quality 0: must be from 1 to 100"),
        (lambda large: large.update(codec="JPEG"), "stages.1.model.codec"),
        (
            lambda large: large["preprocess"]["format"].update(color="RGB"),
            "big takes uint8 NHWC RGB: JPEG is for models that take the frame's own pixels",
        ),
    ],
)
def test_a_codec_that_makes_no_sense_is_one_clear_line(work, tmp_path, change, complaint) -> None:
    bundle = copied(work, tmp_path / "bundle")
    edit(bundle, lambda content: change(content["stages"][1]["model"]))
    with pytest.raises(BundleError, match=complaint):
        Bundle.load(bundle)


def test_bundles_from_before_there_was_a_codec_are_read(work, tmp_path) -> None:
    bundle = copied(work, tmp_path / "bundle")

    def older(content) -> None:
        del content["certificate"]["codec"]
        for stage in content["stages"]:
            del stage["model"]["codec"]

    edit(bundle, older)
    with Bundle.load(bundle) as opened:
        assert opened.manifest.stages[1].model.codec is None


def test_a_model_that_takes_no_pixels_is_refused_before_it_is_measured(work, tmp_path) -> None:
    with pytest.raises(InputError, match="big takes float32 NCHW RGB: JPEG is for models"):
        calibrate(asked(work, embed=False, records=tmp_path / "records"))
    assert not list((tmp_path / "records").glob("*.npz"))
