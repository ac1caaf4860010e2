"""The command on images and models: two tiny real models that tell colours."""

import json
import shutil
import zipfile

import cv2
import numpy as np
import pytest

from tests.cli.test_records import FIGURES, KEYS
from tests.colours import (
    DESCRIPTION,
    LARGE,
    MIDDLE,
    NAMES,
    SAVER,
    colour_folders,
    colour_model,
    colour_picture,
    macs,
)
from tests.command import spawned
from tests.real_data import data_folder
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.hardware.cpu import read_cpu

EACH = 60
COUNT = EACH * len(NAMES)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Models, descriptions and images, as a user has them."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "descriptions").mkdir()
    for name, kind in (("big", LARGE), ("mid", MIDDLE), ("tiny", SAVER)):
        colour_model(folder / f"{name}.onnx", kind)
        (folder / "descriptions" / f"{name}.toml").write_text(DESCRIPTION)
    colour_folders(folder / "data", each=EACH)
    with zipfile.ZipFile(folder / "test.zip", "w") as archive:
        for path in sorted((folder / "data").rglob("*.png")):
            archive.write(path, f"test/{path.relative_to(folder / 'data').as_posix()}")
    colour_folders(folder / "more", each=20, seed=9)
    return folder


def asked(
    work, *more, data="test.zip", large="big", savers=("tiny", "mid"), descriptions="descriptions"
):
    """Arguments of a calibration; files are named relative to the folder, or absolutely."""
    named = [word for saver in savers for word in ("--saver", work / f"{saver}.onnx")]
    return [
        "calibrate", "--data", work / data, "--descriptions", work / descriptions,
        "--large", work / f"{large}.onnx", *named, "--method", "empirical", "--no-timing", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(work):
    """A calibration by the real command in a process of its own."""
    limits = ("--holdout", 0.5, "--seed", 0, "--max-drop", 1, "--out", work / "bundle", "--json")
    return spawned(*asked(work, *limits))


@pytest.fixture
def bundle(work, made):
    assert made.code == 0, made.err
    return work / "bundle"


def test_calibrate_prints_one_object(work, made):
    assert made.code == 0, made.err
    result = made.json
    assert result.keys() >= KEYS
    for part in ("calibration", "holdout"):
        assert result[part].keys() == FIGURES
        assert result[part]["samples"] == COUNT // 2
    assert result["saver"] in ("tiny", "mid")
    assert result["calibration"]["drop_points"] <= 1
    assert 0.3 < result["calibration"]["accept_rate"] < 1
    assert result["calibration"]["cost_macs_ratio"] < 0.8
    for row, kind in zip(result["candidates"], (SAVER, MIDDLE), strict=True):
        assert row["kappa"] == pytest.approx(macs(kind) / macs(LARGE), rel=0.02)
    assert "Candidates" in (made.out + made.err)
    assert "Traceback" not in made.err


def test_the_bundle_is_whole_and_holds_what_a_device_needs(bundle):
    with Bundle.load(bundle) as opened:
        manifest = opened.manifest
        assert manifest.labels == list(NAMES)
        assert [stage.model.name for stage in manifest.stages][1] == "big"
        assert all(stage.model.preprocess.format.is_device_format for stage in manifest.stages)
        assert manifest.golden is not None
        assert 4 <= len(manifest.golden.frames) <= 16
    assert not list(bundle.glob("*.html"))


def test_what_was_measured_lies_beside_it_and_is_reused(command, work, bundle):
    done = command(*asked(work, "--holdout", 0.5, "--max-drop", 1, "--out", bundle, "--json"))
    assert done.code == 0
    assert "to go" not in done.err


def test_evaluate_prints_the_seven_figures(command, work, bundle):
    done = command("evaluate", bundle, "--data", work / "more", "--json")
    assert done.code == 0
    found = done.json
    assert found.keys() >= FIGURES
    with Cascade.load(bundle) as cascade:
        right = []
        for label, name in enumerate(NAMES):
            for path in sorted((work / "more" / name).iterdir()):
                right.append(cascade.decide(cv2.imread(str(path))).index == label)
    assert found["samples"] == len(right) == 120
    assert found["accuracy_cascade"] == pytest.approx(np.mean(right))
    drop = found["accuracy_large"] - found["accuracy_cascade"]
    assert found["drop_points"] == pytest.approx(100 * drop, abs=1e-9)


def test_evaluate_gives_again_what_calibrate_found(command, work, bundle, made):
    """On all images the counts must be those of the two halves together."""
    found = command("evaluate", bundle, "--data", work / "test.zip", "--json").json
    halves = (made.json["calibration"], made.json["holdout"])
    within = {"drop_interval_points", "saver_drop_interval_points", "settled", "reuse"}
    assert found["drop_interval_points"][0] <= found["drop_points"]
    assert found["drop_interval_points"][1] >= found["drop_points"]
    assert found["reuse"] is None  # of epochs alone
    for name in FIGURES - {"samples"} - within:
        assert found[name] == pytest.approx(np.mean([half[name] for half in halves]), abs=1e-9)


def test_run_writes_a_line_a_frame(command, work, bundle):
    done = command("run", bundle, "--source", work / "more", "--json")
    assert done.code == 0
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert len(lines) == 120
    names = [line["frame_id"]["source_id"] for line in lines]
    assert names == sorted(names)
    right = [line["label"] == name.split("/")[0] for line, name in zip(lines, names, strict=True)]
    assert np.mean(right) > 0.85
    assert {line["source"] for line in lines} == {"saver", "large"}
    escalated = np.mean([line["escalated"] for line in lines])
    assert "120 frames" in done.err
    assert f"{100 * escalated:.2f} % escalated" in done.err


def test_run_shows_a_table_of_an_image(command, work, bundle):
    image = work / "more" / "blue" / "0003.png"
    done = command("run", bundle, "--source", image)
    assert done.code == 0
    (line,) = done.out.splitlines()
    assert "0003.png 0" in line
    assert " ms" in line


def test_run_reads_video_and_stops_where_asked(command, tmp_path, bundle):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for number in range(12):
        writer.write(colour_picture(number % len(NAMES), number, size=64))
    writer.release()
    done = command("run", bundle, "--source", path, "--limit", 7, "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["frame_id"]["sequence"] for line in lines] == list(range(7))
    assert [line["timestamp_s"] for line in lines] == pytest.approx([n / 10 for n in range(7)])


def test_verify_agrees_and_a_changed_resize_exits_with_2(command, bundle, tmp_path):
    done = command("verify", bundle, "--json")
    assert done.code == 0
    assert done.json["passed"] is True
    changed = shutil.copytree(bundle, tmp_path / "changed")
    manifest = json.loads((changed / "bundle.json").read_text())
    for stage in manifest["stages"]:
        stage["model"]["preprocess"]["resize"].update(policy="center_crop", crop_ratio=0.6)
    (changed / "bundle.json").write_text(json.dumps(manifest))
    done = command("verify", changed, "--json")
    assert done.code == 2
    assert done.json["passed"] is False
    assert done.err.splitlines()[-1].startswith(f"tinysaver-edge: bundle {changed}: preprocessing")


def test_none_of_the_images_goes_into_the_bundle_where_that_is_asked(command, work, bundle):
    quiet = work / "quiet"
    records = f"{bundle}.records"
    done = command(
        *asked(work, "--no-golden-frames", "--work-dir", records, "--max-drop", 1, "--out", quiet)
    )
    assert done.code == 0
    assert not list(quiet.rglob("*.png"))
    assert command("verify", quiet).code == 0


def test_a_recipe_says_it_all_and_flags_override_it(command, work, bundle):
    recipe = work / "colours.toml"
    tables = "".join(
        f'[models.{name}]\nfile = "{name}.onnx"\n{DESCRIPTION}' for name in ("big", "tiny", "mid")
    )
    recipe.write_text(
        'data = "test.zip"\nlarge = "big"\nsavers = ["tiny", "mid"]\nholdout = 0.5\n'
        f'[targets]\nmethod = "empirical"\nmax_drop = 1\n{tables}'
    )
    shared = ("--work-dir", f"{bundle}.records", "--no-timing", "--json")
    done = command("calibrate", recipe, *shared)
    assert done.code == 0, done.err
    assert done.json["holdout"]["samples"] == COUNT // 2
    assert done.json["calibration"]["drop_points"] <= 1
    done = command("calibrate", recipe, "--holdout", 0, "--max-drop", 0, "--saver", "mid", *shared)
    assert done.json["holdout"] is None
    assert [row["saver"] for row in done.json["candidates"]] == ["mid"]
    assert done.json["calibration"]["drop_points"] <= 0


PHOTOS = data_folder() / "imagenet"
PHOTO_INPUTS = {
    "mobilenet_v1_0.25_224": 'dtype = "float32", scale = "half"',
    "mobilenet_v2_1.0_224_int8": 'dtype = "uint8", scale = "raw"',
}


def photo_description(name, resize):
    """A description of one of the two models."""
    return (
        f'input = {{ layout = "NHWC", color = "RGB", size = 224, {PHOTO_INPUTS[name]}, '
        f"resize = {{ {resize} }} }}\n"
        'output = { kind = "probabilities", class_offset = 1 }\nlabels = "class_names.txt"\n'
    )


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no imagenet in ../shared/data")
@pytest.mark.parametrize(
    "resize",
    ['policy = "squash"', 'policy = "center_crop", crop_ratio = 0.95'],
    ids=["squash", "crop"],
)
def test_imagenet_photos_through_two_input_kinds_and_a_background_class(command, tmp_path, resize):
    for name in PHOTO_INPUTS:
        (tmp_path / f"{name}.toml").write_text(photo_description(name, resize))
    shutil.copy(PHOTOS / "class_names.txt", tmp_path)
    saver, large = (PHOTOS / f"{name}.tflite" for name in PHOTO_INPUTS)
    done = command(
        "calibrate", "--data", PHOTOS / "labels.csv", "--descriptions", tmp_path, "--large", large,
        "--saver", saver, "--method", "empirical", "--max-drop", 1, "--no-timing",
        "--out", tmp_path / "bundle", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = done.json["calibration"]
    assert found["samples"] == 300
    assert 0.61 <= found["accuracy_saver"] <= 0.64
    assert 0.77 <= found["accuracy_large"] <= 0.79
    assert found["drop_points"] <= 1
    assert done.json["candidates"][0]["kappa"] == pytest.approx(41 / 300, rel=0.05)
    if "squash" in resize:
        again = command("evaluate", tmp_path / "bundle", "--data", PHOTOS / "labels.csv", "--json")
        assert {name: again.json[name] for name in FIGURES} == found


def test_an_int8_saver_is_bound_to_the_processor(work, tmp_path):
    saver = tmp_path / "tiny8.onnx"
    done = spawned(
        "models", "quantize", work / "tiny.onnx", "--descriptions", work / "descriptions",
        "--data", work / "data", "--out", saver, "--calibration-samples", 60,
    )  # fmt: skip
    here = read_cpu().family
    told = " ".join(done.err.split())
    assert f"measured on {here}: INT8 answers a little otherwise" in told
    assert "`tinysaver-edge measure` on the device" in told
    done = spawned(
        "calibrate", "--data", work / "data", "--large", work / "big.onnx", "--saver", saver,
        "--descriptions", work / "descriptions", "--method", "empirical", "--max-drop", 5,
        "--independent", "--no-timing", "--out", tmp_path / "bundle",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert (
        f"tiny8: INT8, which answers a little otherwise on another kind of processor; "
        f"thresholds hold for {here}." in " ".join(done.err.split())
    )
    with Bundle.load(tmp_path / "bundle") as bundle:
        assert bundle.manifest.processor == here
        told = {stage.model.name: stage.model.quantised for stage in bundle.manifest.stages}
    assert told == {"tiny8": True, "big": False}
    checks = spawned("verify", tmp_path / "bundle", "--json").json["checks"]
    assert [one["passed"] for one in checks if one["name"] == "processor"] == [True]
