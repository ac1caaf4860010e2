import fcntl
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.colours import DESCRIPTION, LARGE, NAMES, SAVER, Kind, colour_folders, colour_model
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate import ImageInput, Method, ModelFile, Plan, Targets, calibrate
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.data.files import open_data
from tinysaver_edge.decision import AnswerSource
from tinysaver_edge.errors import BundleError, DescriptionError, InputError
from tinysaver_edge.models.description.description import find_description
from tinysaver_edge.records.evaluation import evaluate_images
from tinysaver_edge.verify.run import verify

EACH = 40


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for name, kind in (("big", LARGE), ("tiny", SAVER)):
        model(folder, name, kind)
    colour_folders(folder / "images", each=EACH)
    return folder


def model(folder, name, kind, *, description=DESCRIPTION, labels=None):
    """Write a model and its description, and name both as a plan does."""
    path = colour_model(folder / f"{name}.onnx", kind)
    named = f"labels = [{', '.join(map(repr, labels))}]\n" if labels else ""
    path.with_suffix(".toml").write_text(named + description)
    return named_model(folder, name)


def named_model(folder, name):
    path = folder / f"{name}.onnx"
    return ModelFile(path, find_description(path))


def plan(work, *, saver=None, large=None, data=None, drop=1.0, holdout=0.0, seed=0, **options):
    images = ImageInput(
        data=data or work / "images",
        large=large or named_model(work, "big"),
        savers=(saver or named_model(work, "tiny"),),
        isolate=False,
        timing=False,
        **{"records": work / "records", **options},
    )
    targets = Targets(method=Method.EMPIRICAL, max_drop_points=drop)
    return Plan(images, targets, holdout=holdout, seed=seed, report=False)


def test_the_bundle_says_what_was_chosen(work, tmp_path):
    result = calibrate(plan(work, holdout=0.5, seed=3), out=tmp_path / "bundle")
    assert result.bundle == tmp_path / "bundle"
    with Bundle.load(tmp_path / "bundle") as opened:
        manifest = opened.manifest
        assert verify(opened).passed
    assert (manifest.method, manifest.seed, manifest.max_drop_points) == ("empirical", 3, 1.0)
    assert manifest.labels == list(NAMES)
    for stage, policy in zip(manifest.stages, result.policy.stages, strict=True):
        assert stage.model.name == policy.model
        assert stage.model.macs == policy.macs
        assert stage.threshold == policy.threshold
    for found, written in (
        (result.calibration, manifest.calibration),
        (result.holdout, manifest.holdout),
    ):
        assert written is not None
        assert found.to_dict() == written.model_dump()
    assert manifest.disagreement == result.disagreement
    assert manifest.disagreement is not None
    assert manifest.disagreement.held_out
    assert result.to_dict()["disagreement"] == manifest.disagreement.model_dump()


def test_the_finished_bundle_does_on_the_images_what_was_promised(work, tmp_path):
    result = calibrate(plan(work), out=tmp_path / "bundle")
    with Bundle.load(tmp_path / "bundle") as opened:
        assert evaluate_images(opened, work / "images").figures == result.calibration


def test_a_threshold_that_was_edited_is_not_certified(work, tmp_path):
    asked = plan(work)
    certified = replace(asked, targets=Targets(max_drop_points=20.0))
    calibrate(certified, out=tmp_path / "bundle")
    frame = np.zeros((20, 20, 3), np.uint8)
    with Cascade.load(tmp_path / "bundle") as cascade:
        assert cascade.decide(frame).certified
    path = tmp_path / "bundle" / "bundle.json"
    content = json.loads(path.read_text())
    content["stages"][0]["threshold"] -= 1e-6
    path.write_text(json.dumps(content))
    with Cascade.load(tmp_path / "bundle") as cascade:
        assert not cascade.decide(frame).certified


def test_golden_frames_come_from_the_calibration_samples_and_are_lossless(work, tmp_path):
    def golden(seed):
        out = tmp_path / f"bundle{seed}"
        calibrate(plan(work, holdout=0.5, seed=seed), out=out)
        return [cv2.imread(str(path)) for path in sorted((out / "golden").glob("*.png"))]

    first, second = golden(1), golden(2)
    assert len(first) == len(second) == 16
    held = np.random.default_rng(1).permutation(6 * EACH)[: 3 * EACH]
    with open_data(work / "images") as data:
        frames = [data.frame(index) for index in range(len(data))]
    places = [
        next(
            i for i, frame in enumerate(frames) if frame.shape == one.shape and (frame == one).all()
        )
        for one in first
    ]
    assert set(places).isdisjoint(held.tolist())
    assert len(set(places)) == 16
    assert any((one != other).any() for one, other in zip(first, second, strict=True))


def test_large_golden_frames_are_shrunk(work, tmp_path):
    folder = colour_folders(tmp_path / "images", each=1, size=16)
    for path in folder.rglob("*.png"):
        small = cv2.imread(str(path))
        cv2.imwrite(str(path), cv2.resize(small, (2000, 1500), interpolation=cv2.INTER_NEAREST))
    calibrate(plan(work, data=folder, records=tmp_path / "records"), out=tmp_path / "bundle")
    for path in (tmp_path / "bundle" / "golden").glob("*.png"):
        assert cv2.imread(str(path)).shape == (960, 1280, 3)
    with Bundle.load(tmp_path / "bundle") as opened:
        assert verify(opened).passed


def test_without_golden_frames_none_of_the_images_is_in_the_bundle(work, tmp_path):
    calibrate(plan(work, golden_frames=False), out=tmp_path / "bundle")
    names = {path.suffix for path in (tmp_path / "bundle").rglob("*") if path.is_file()}
    assert names == {".json", ".onnx", ".npy"}  # the last: hashes of files, of which none is made


@pytest.mark.parametrize("embed", [True, False])
def test_preprocessing_in_the_graph_or_in_numpy_decides_alike(work, tmp_path, embed):
    result = calibrate(
        plan(work, embed=embed, records=tmp_path / "records"), out=tmp_path / "bundle"
    )
    with Bundle.load(tmp_path / "bundle") as opened:
        formats = {stage.model.preprocess.format.dtype for stage in opened.manifest.stages}
        assert verify(opened).passed
    assert formats == ({"uint8"} if embed else {"float32"})
    reference = calibrate(plan(work))
    assert result.calibration.accuracy_large == reference.calibration.accuracy_large
    assert result.calibration.accept_rate == pytest.approx(
        reference.calibration.accept_rate, abs=0.01
    )


def test_a_saver_that_may_accept_nothing_is_kept_unasked(work, tmp_path):
    bad = model(tmp_path, "bad", Kind(blur=3.0))
    result = calibrate(plan(work, saver=bad, drop=0.0), out=tmp_path / "bundle")
    assert result.policy.stages[0].threshold is None
    assert result.calibration.cost_macs_ratio == 1.0
    (warning,) = result.warnings
    assert "every frame goes to the large model" in warning
    with Cascade.load(tmp_path / "bundle") as cascade, open_data(work / "images") as data:
        decision = cascade.decide(data.frame(0))
    assert (decision.source, decision.label) == (AnswerSource.LARGE, "amber")


def test_classes_in_another_order_are_brought_together(work, tmp_path):
    """The saver was trained with the classes the other way round, and says so."""
    order = (3, 5, 0, 2, 4, 1)
    labels = [NAMES[place] for place in order]
    saver = model(tmp_path, "turned", Kind(blur=0.18, order=order), labels=labels)
    large = model(tmp_path, "big", LARGE, labels=NAMES)
    result = calibrate(
        plan(work, saver=saver, large=large, records=tmp_path / "records"),
        out=tmp_path / "bundle",
    )
    straight = calibrate(plan(work))
    assert result.calibration == straight.calibration
    with Bundle.load(tmp_path / "bundle") as opened:
        assert evaluate_images(opened, work / "images").figures == result.calibration


def test_other_classes_are_refused(work, tmp_path):
    saver = model(tmp_path, "other", SAVER, labels=["zinc", *NAMES[1:]])
    large = model(tmp_path, "big", LARGE, labels=NAMES)
    with pytest.raises(DescriptionError, match="does not know 1 of big's 6 classes"):
        calibrate(plan(work, saver=saver, large=large, records=tmp_path / "records"))


def test_groups_stay_together(work, tmp_path):
    rows = [
        f"{path.relative_to(tmp_path)},{path.parent.name},{number % 12}"
        for number, path in enumerate(
            sorted(Path(shutil.copytree(work / "images", tmp_path / "i")).rglob("*.png"))
        )
    ]
    (tmp_path / "list.csv").write_text("\n".join(["file,label,clip", *rows]))
    result = calibrate(
        plan(
            work,
            data=tmp_path / "list.csv",
            group_column="clip",
            holdout=0.25,
            records=tmp_path / "records",
        )
    )
    assert result.holdout is not None
    assert result.holdout.samples == 3 * EACH * 6 // 12
    assert result.calibration.samples == 9 * EACH * 6 // 12


def test_unreadable_images_are_left_out_and_named(work, tmp_path):
    folder = Path(shutil.copytree(work / "images", tmp_path / "images"))
    (folder / "blue" / "0007.png").write_bytes(b"no image")
    result = calibrate(
        plan(work, data=folder, records=tmp_path / "records"), out=tmp_path / "bundle"
    )
    assert result.calibration.samples == 6 * EACH - 1
    (warning,) = result.warnings
    assert warning == "1 of 240 images could not be read and were left out: blue/0007.png"


def test_records_need_a_place(work):
    with pytest.raises(InputError, match="nowhere to keep records"):
        calibrate(plan(work, records=None))


def test_what_is_there_already_is_looked_at_first(work, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"mine")
    missing = plan(work, data=tmp_path / "none")
    with pytest.raises(BundleError, match="holds something else"):
        calibrate(missing, out=tmp_path / "mine")


def test_out_names_where_records_go(work, tmp_path):
    calibrate(plan(work, records=None), out=tmp_path / "bundle.zip")
    assert (tmp_path / "bundle.records" / "tiny.npz").is_file()
    assert (tmp_path / "bundle.zip").is_file()


@pytest.mark.parametrize("out", [".", ".."])
def test_the_folder_one_is_in_is_refused_before_anything_is_measured(
    work, tmp_path, monkeypatch, out
):
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(BundleError, match=r"cannot be the one you are in: name a new one"):
        calibrate(plan(work, records=tmp_path / "records"), out=Path(out))
    assert not (tmp_path / "records").exists()


def test_where_nothing_can_be_written_nothing_is_measured(work, tmp_path):
    with pytest.raises(BundleError, match=r"--out /proc/bundle: cannot be written"):
        calibrate(plan(work, records=tmp_path / "records"), out=Path("/proc/bundle"))
    assert not (tmp_path / "records").exists()
    with pytest.raises(InputError, match=r"records /proc/records: cannot be written"):
        calibrate(plan(work, records=Path("/proc/records")), out=tmp_path / "bundle")


def test_two_calibrations_do_not_share_their_records(work, tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    with (records / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"another calibration writes there"):
            calibrate(plan(work, records=records), out=tmp_path / "bundle")
    assert calibrate(plan(work, records=records), out=tmp_path / "bundle").bundle is not None
