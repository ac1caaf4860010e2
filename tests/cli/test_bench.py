"""The command `bench`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.test_bench import described
from tests.cli.test_devices import run
from tests.command import spawned
from tests.small_bundle import small_bundle
from tinysaver_edge._support.files import NOT_OURS

QUICKLY = ("--runs", "5", "--seconds", "0.05")


def test_a_bundles_report_lies_beside_it(tmp_path: Path) -> None:
    small_bundle(tmp_path / "bundle")
    done = spawned("bench", tmp_path / "bundle", *QUICKLY, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert json.loads((tmp_path / "bundle.bench.json").read_text()) == report
    assert [one["name"] for one in report["stages"]] == ["saver", "large"]
    assert report["end_to_end"]["total"]["runs"] >= 5
    for line in ("saver: inference", "cascade: decode to decision", "frames/s", "bench.json"):
        assert line in (done.out + done.err)


def test_notes_of_that_name_are_kept(tmp_path: Path) -> None:
    small_bundle(tmp_path / "bundle")
    (tmp_path / "bundle.bench.json").write_text("my notes")
    done = run(tmp_path, "bench", str(tmp_path / "bundle"), *QUICKLY)
    assert (done.code, NOT_OURS in done.err) == (2, True)
    assert (tmp_path / "bundle.bench.json").read_text() == "my notes"


def test_a_models_report_is_written_only_where_asked(tmp_path: Path) -> None:
    model = described(tmp_path)
    before = set(tmp_path.rglob("*"))
    arguments = ("bench", str(model), *QUICKLY, "--no-throughput", "--sustained", "0.1")
    done = run(tmp_path, *arguments, "--engine", "openvino")
    assert done.code == 0, done.err
    assert "openvino on CPU, float32" in (done.out + done.err)
    assert "after 0 s a run takes" in (done.out + done.err)
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before
    assert run(tmp_path, *arguments, "--out", str(tmp_path / "r.json")).code == 0
    assert json.loads((tmp_path / "r.json").read_text())["sustained"]["runs"] >= 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bundle", "--engine", "openvino"], "for model files"),
        (["bundle", "--image", "none.jpg"], "no such image"),
        (["tiny.onnx", "--engine", "openvino", "--device", "GPU.9"], "no device GPU.9"),
        (["tiny.onnx", "--precision", "int4"], "int4"),
        (["none.onnx"], "none.onnx"),
        (["tiny.onnx", "--runs", "0"], "0"),
        (["tiny.onnx", "--sustained", "-1"], "-1"),
        (["tiny.onnx", "--seconds", "inf"], "inf is no number"),
        (["tiny.onnx", "--fps", "1e-9"], "1e-09 is not in the range"),
        (["tiny.onnx", "--profile", "generic-x86"], "add that"),
        (["tiny.onnx", "--engine", "auto", "--profile", "generic-x87"], "generic-x86"),
        (["tiny.onnx", "--engine", "auto", "--device", "NPU"], "no engine on NPU"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_measured_is_one_line(
    tmp_path: Path, arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_bundle(tmp_path / "bundle", golden=False)
    described(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = run(tmp_path, "bench", *arguments)
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "bundle.bench.json").exists()
