"""`calibrate --large-jpeg`: what it says, what the bundle then does, and mistakes."""

from __future__ import annotations

import pytest

from tests.colours import DESCRIPTION, LARGE, SAVER, colour_folders, colour_model
from tests.command import spawned
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.codec import Jpeg


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large-jpeg")
    for name, kind in (("big", LARGE), ("tiny", SAVER)):
        colour_model(folder / f"{name}.onnx", kind)
        (folder / f"{name}.toml").write_text(DESCRIPTION)
    colour_folders(folder / "images", each=40)
    return folder


def asked(work, *more):
    return [
        "calibrate", "--data", work / "images", "--large", work / "big.onnx", "--saver",
        work / "tiny.onnx", "--max-drop", 5, "--no-timing", "--work-dir", work / "records",
        "--out", work / "bundle", *more,
    ]  # fmt: skip


def test_it_tells_what_the_large_model_sees(work, command):
    done = spawned(*asked(work, "--large-jpeg", 40, "--json"))
    assert done.code == 0, done.err
    assert done.json["large_jpeg"] == 40
    said = " ".join((done.out + done.err).split())
    assert "big sees JPEG of quality 40, which costs it " in said
    assert "; the drop counts from its accuracy on that" in said
    assert done.json["jpeg_cost"]["at_most_points"] > done.json["jpeg_cost"]["drop_points"]
    with Bundle.load(work / "bundle") as opened:
        assert opened.manifest.stages[-1].model.codec == Jpeg(40)
    checked = command("verify", work / "bundle", "--json")
    assert checked.code == 0, checked.err
    details = {one["name"]: one["detail"] for one in checked.json["checks"]}
    assert details["answers of big"].endswith(", through JPEG of quality 40")
    assert "counted from the large model on JPEG of quality 40" in details["certificate"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--large-jpeg", 0], "Invalid value for '--large-jpeg': 0 is not in the range 1<=x<=100."),
        (["--large-jpeg", 101], "101 is not in the range 1<=x<=100."),
        (["--large-jpeg", "high"], "'high' is not a valid integer range."),
        (["--large-jpeg", 90, "--no-embed"], "big takes float32 NCHW RGB: JPEG is for models"),
    ],
)
def test_mistakes_are_one_clear_line(work, command, tmp_path, options, complaint):
    done = command(*asked(work, *options, "--out", tmp_path / "none"))
    assert done.code == 2
    assert complaint in done.err.splitlines()[-1]
    assert not (tmp_path / "none").exists()


def test_records_alone_were_measured_already(work, command, tmp_path):
    done = command(
        "calibrate", "--records", work, "--labels", "l.npy", "--macs", "m.csv", "--large", "big",
        "--saver", "tiny", "--large-jpeg", 90, "--out", tmp_path / "none",
    )  # fmt: skip
    assert done.code == 2
    assert "--large-jpeg need model files: records are as they were measured" in done.complaint
