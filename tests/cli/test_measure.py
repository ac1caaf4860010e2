"""`measure` on the device, `calibrate --records` elsewhere: what is needed travels in a folder."""

import json
import shutil
import sys

import numpy as np
import pytest

from tests.colours import DESCRIPTION, LARGE, NAMES, SAVER, colour_folders, colour_model
from tests.command import spawned
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.hardware.cpu import read_cpu

ASKED = ("--method", "empirical", "--no-max-drop", "--budget", "escalation_rate=0.5")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Two models, pictures, and a bundle of them that was made here."""
    folder = tmp_path_factory.mktemp("workshop")
    names = ", ".join(f'"{name}"' for name in NAMES)
    for name, kind in (("large", LARGE), ("saver", SAVER)):
        colour_model(folder / f"{name}.onnx", kind)
        (folder / f"{name}.toml").write_text(f"labels = [{names}]\n{DESCRIPTION}")
    colour_folders(folder / "images", each=8)
    models = ("--large", folder / "large.onnx", "--saver", folder / "saver.onnx")
    done = spawned(
        "calibrate", "--data", folder / "images", *models, *ASKED, "--no-timing", "--no-report",
        "--out", folder / "bundle",
    )  # fmt: skip
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def measured(workshop):
    """What `measure` makes of that bundle, moved to where there is neither model nor picture."""
    done = spawned(
        "measure", workshop / "bundle", "--data", workshop / "images", "--no-timing",
        "--out", workshop / "records", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["models"] == ["large", "saver"]
    moved = workshop / "elsewhere" / "records"
    moved.parent.mkdir()
    return (workshop / "records").rename(moved)


@pytest.fixture
def records(measured, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(measured, tmp_path / "records")


def test_the_bundle_is_that_of_a_calibration_on_the_spot(command, workshop, records, tmp_path):
    done = command("calibrate", "--records", records, *ASKED, "--out", tmp_path / "bundle")
    assert done.code == 0, done.err
    assert "verify" in done.err.splitlines()[-1]
    with Bundle.load(tmp_path / "bundle") as there, Bundle.load(workshop / "bundle") as here:
        for name in ("stages", "labels", "calibration", "fusion", "disagreement", "processor"):
            assert getattr(there.manifest, name) == getattr(here.manifest, name), name
    assert command("verify", tmp_path / "bundle").code == 0


def test_no_picture_travels_on_where_none_is_wanted(command, records, tmp_path):
    wanted = ("--no-golden-frames", "--no-report")
    done = command("calibrate", "--records", records, *ASKED, *wanted, "--out", tmp_path / "bundle")
    assert done.code == 0, done.err
    assert not list((tmp_path / "bundle").rglob("*.png"))


def test_golden_samples_are_what_the_device_answered(command, records, tmp_path):
    """Answers of another processor, which this one does not give, come back as they were."""
    path = records / "golden" / "answers.npz"
    with np.load(path) as file:
        tables = dict(file)
    tables["logits_saver"] = (tables["logits_saver"] * 0.97).astype(np.float32)
    np.savez(path, **tables)
    said = json.loads((records / "measured.json").read_text())
    said["processor"] = "aarch64 with dot product"
    said["artefacts"]["saver"]["quantised"] = True
    (records / "measured.json").write_text(json.dumps(said))
    done = command("calibrate", "--records", records, *ASKED, "--out", tmp_path / "bundle")
    assert "thresholds hold for aarch64 with dot product" in done.err
    done = command("verify", tmp_path / "bundle", "--json")
    assert done.code == 2
    checks = {one["name"]: one for one in json.loads(done.out)["checks"]}
    assert checks["answers of large"]["passed"]
    refused = checks["answers of saver"]
    assert not refused["passed"]
    assert "measured on aarch64 with dot product, this is " + read_cpu().family in refused["detail"]
    assert "`tinysaver-edge measure` here" in refused["detail"]
    assert "calibrate --records" in refused["detail"]


def test_models_of_ones_own_are_measured_and_timed(command, workshop, tmp_path, monkeypatch):
    monkeypatch.setattr("tinysaver_edge.calibrate.measured.timing.MOST_ROUNDS", 1)
    plain = tmp_path / "plain"
    plain.mkdir()
    for number, path in enumerate(sorted((workshop / "images").rglob("*.png"))):
        shutil.copyfile(path, plain / f"{number:02d}.png")
    models = ("--large", workshop / "large.onnx", "--saver", workshop / "saver.onnx")
    records = tmp_path / "records"
    assert command("measure", *models, "--data", plain, "--out", records).code == 0
    budget = ("--budget", "mean_latency_ms=1000", "--no-max-drop", "--method", "empirical")
    asked = ("--records", records, "--reference", "large", *budget)
    done = command("calibrate", *asked, "--out", tmp_path / "bundle", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["calibration"]["accuracy_large"] == 1  # nobody labelled these
    assert Bundle.load(tmp_path / "bundle").manifest.latency.mean_latency_ms == 1000
    assert command("verify", tmp_path / "bundle").code == 0


def _touch_model(folder):
    model = next((folder / "models" / "saver").glob("*.onnx"))
    model.write_bytes(model.read_bytes() + b"\0")


def _edit(folder, **changes):
    path = folder / "measured.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGE = {
    "saver.onnx was written to since it was measured": _touch_model,
    "made by tinysaver-edge": lambda folder: _edit(folder, schema_version=9),
    "measured.json: damaged": lambda folder: (folder / "measured.json").write_text("{"),
    "no such file; records there: large": lambda folder: (folder / "saver.npz").unlink(),
    "the samples kept there are damaged": lambda folder: (
        folder / "golden" / "answers.npz"
    ).unlink(),
    "samples.npz: damaged": lambda folder: (folder / "images" / "samples.npz").write_bytes(b"PK"),
    "leaves the folder": lambda folder: _edit(
        folder,
        artefacts={
            name: {**one, "files": ["../../etc/passwd"]}
            for name, one in json.loads((folder / "measured.json").read_text())["artefacts"].items()
        },
    ),
}


@pytest.mark.parametrize("line", DAMAGE)
def test_what_is_damaged_is_told(command, records, tmp_path, line):
    DAMAGE[line](records)
    done = command("calibrate", "--records", records, *ASKED, "--out", tmp_path / "bundle")
    assert done.code == 2
    assert line in done.err
    assert "pydantic" not in done.err
    assert "[type=" not in done.err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--large", "saver"), "leave --large and --saver out"),
        (("--saver", "other"), "measured were large as the large model and saver"),
        (("--macs", "models.csv"), "leave --macs"),
        (("--budget", "mean_latency_ms=9"), "or measure, without --no-timing"),
    ],
)
def test_what_the_records_do_not_hold_is_told(command, records, tmp_path, words, line):
    done = command("calibrate", "--records", records, *words, *ASKED, "--out", tmp_path / "bundle")
    assert (done.code, line in done.err) == (2, True), done.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("bundle", "--out", "r"), "name --data"),
        (
            ("bundle", "--data", "images", "--engine", "openvino", "--out", "r"),
            "leave --engine out",
        ),
        (("--data", "images", "--out", "r"), "no large model"),
        (("bundle", "--data", "images", "--out", "large.onnx"), "is no folder"),
    ],
)
def test_what_cannot_be_measured(command, workshop, monkeypatch, words, line):
    monkeypatch.chdir(workshop)
    done = command("measure", *words)
    assert (done.code, line in done.err) == (2, True), done.err
    assert not (workshop / "r").exists()


def test_a_device_without_onnx_measures_a_bundle(workshop, tmp_path, command, monkeypatch):
    """A finished bundle runs there, so it is measured there: nothing is counted or folded anew."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = command(
        "measure", workshop / "bundle", "--data", workshop / "images", "--no-timing",
        "--out", tmp_path / "records",
    )  # fmt: skip
    assert done.code == 0, done.err
    said = done.err.splitlines()[-1]
    assert said.startswith("Next: ")
    assert f"calibrate --records {tmp_path / 'records'}" in said
