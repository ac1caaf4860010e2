"""Reports of `bench`, read by a calibration in place of timing the models itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.calibrate.recipes import recipe
from tests.colours import LARGE, MIDDLE, SAVER, colour_folders
from tests.command import Command, Done, spawned

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated bundle of two of three models, and the report of a bench beside it."""
    folder = tmp_path_factory.mktemp("bench")
    recipe(folder, {"tiny": SAVER, "mid": MIDDLE, "big": LARGE})
    colour_folders(folder / "images", each=60)
    made = calibrate(spawned, folder, "--saver", "tiny", "--no-timing")
    assert made.code == 0, made.err
    benched = spawned("bench", folder / "bundle", "--runs", 20, "--seconds", 0.1, "--no-throughput")
    assert benched.code == 0, benched.err
    return folder


def calibrate(command: Command, folder: Path, *more: object) -> Done:
    return command(
        "calibrate", folder / "recipe.toml", "--data", folder / "images", "--method", "empirical",
        "--max-drop", 5, "--no-report", "--out", folder / "bundle", "--json", *more,
    )  # fmt: skip


def test_latencies_are_the_reports(command: Command, work: Path) -> None:
    report = json.loads((work / "bundle.bench.json").read_text())
    done = calibrate(command, work, "--saver", "tiny", "--bench", work / "bundle.bench.json")
    assert done.code == 0, done.err
    found = done.json["latency"]
    large = report["stages"][1]["stage"]
    assert found["large"]["mean_ms"] == pytest.approx(large["mean_ms"])
    rate = found["escalation_rate"]
    accepted, escalated = (report["end_to_end"][way] for way in ("accepted", "escalated"))
    if accepted is not None and escalated is not None:
        expected = (1 - rate) * accepted["mean_ms"] + rate * escalated["mean_ms"]
        assert found["cascade"]["mean_ms"] == pytest.approx(expected)
    assert not list((work / "bundle.records").glob("*.timing.json")), "nothing was timed here"
    (said,) = (one for one in done.json["warnings"] if "latencies are from" in one)
    assert report["measured_at"] in said


def test_a_budget_is_held_against_them(command: Command, work: Path) -> None:
    report = json.loads((work / "bundle.bench.json").read_text())
    for way in ("accepted", "escalated"):
        report["end_to_end"][way] = None
    for one in report["stages"]:
        one["stage"]["samples_ms"] = [1000.0 if one["name"] == "big" else 1.0]
    slow = work / "slow.json"
    slow.write_text(json.dumps(report))
    asked = ("--saver", "tiny", "--bench", slow, "--budget")
    assert calibrate(command, work, *asked, "mean_latency_ms=0.9").code == 3
    kept = calibrate(command, work, *asked, "mean_latency_ms=900")
    assert kept.code == 0, kept.err
    rate = kept.json["latency"]["escalation_rate"]
    assert kept.json["latency"]["cascade"]["mean_ms"] == pytest.approx(1 + 1000 * rate)
    manifest = json.loads((work / "bundle" / "bundle.json").read_text())
    assert manifest["latency"]["mean_latency_ms"] == 900


def test_energy_is_the_reports_and_uplink_what_the_frames_weigh(
    command: Command, work: Path
) -> None:
    report = json.loads((work / "bundle.bench.json").read_text())
    for one in report["stages"]:
        one["energy"] = {"mj": 1000.0 if one["name"] == "big" else 10.0}
    counted = work / "counted.json"
    counted.write_text(json.dumps(report))
    asked = ("--saver", "tiny", "--bench", counted, "--budget")
    refused = calibrate(command, work, *asked, "mean_energy_mj=9")
    assert refused.code == 3
    assert "mean_energy_mj 9 would have to be" in refused.err
    kept = calibrate(command, work, *asked, "mean_energy_mj=900", "--budget", "uplink_kbit=6")
    assert kept.code == 0, kept.err
    # 16 x 16 pixels of three bytes are 6.144 kilobits.
    row = next(one for one in kept.json["candidates"] if one["chosen"])
    escalated = 1 - row["accept_rate"]
    assert row["uplink_kbit"][0] == pytest.approx(6.144 * escalated)
    assert row["uplink_kbit"][0] <= row["uplink_kbit"][1] <= 6
    assert row["energy_mj"][0] == pytest.approx(10 + 1000 * escalated)
    assert row["energy_mj"][1] <= 900
    assert f"uplink: {row['uplink_kbit'][0]:.3g} kbit a frame on average" in kept.err
    uncounted = calibrate(command, work, "--saver", "tiny", "--budget", "mean_energy_mj=900")
    assert uncounted.code == 2
    assert "bench it where a counter of energy tells" in uncounted.err


def test_a_saver_that_no_report_has_is_left_out_and_says_so(command: Command, work: Path) -> None:
    limits = ("--budget", "p95_latency_ms=1e6")
    done = calibrate(command, work, "--bench", work / "bundle.bench.json", *limits)
    assert done.code == 0, done.err
    (lost,) = (row for row in done.json["candidates"] if row["saver"] == "mid")
    assert "does not have it: bench it too" in lost["why"]
    assert done.json["saver"] == "tiny"


def test_what_cannot_be_used_is_one_line(command: Command, work: Path) -> None:
    report = json.loads((work / "bundle.bench.json").read_text())
    other = {**report, "machine": {**report["machine"], "processor": "Cortex-A76"}}
    (work / "other.json").write_text(json.dumps(other))
    lacking = {**report, "stages": report["stages"][:1]}
    (work / "lacking.json").write_text(json.dumps(lacking))
    own = work / "bundle.bench.json"
    for files, says in (
        ([own, work / "other.json"], "of different processors"),
        ([work / "lacking.json"], "has no latency of big as it is run here (onnxruntime"),
        ([work / "none.json"], "none.json: cannot be read"),
    ):
        named = [word for file in files for word in ("--bench", file)]
        done = calibrate(command, work, "--saver", "tiny", *named)
        assert done.code == 2
        assert says in done.err.splitlines()[-1]


def test_power_of_a_device_times_latencies_of_another_is_no_energy(
    command: Command, work: Path
) -> None:
    limit = ("--saver", "tiny", "--device", "raspberry-pi-5", "--budget", "mean_energy_mj=1e6")
    here = calibrate(command, work, *limit)
    assert here.code == 2
    assert "if that is another machine, a report of it" in here.err
    benched = calibrate(command, work, *limit, "--bench", work / "bundle.bench.json")
    assert benched.code == 0, benched.err
    assert "25 W, the most that it draws" in benched.err
