"""The command on records: no models, no images, and quick."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.command import ROOT, spawned
from tests.real_data import data_folder, needs_records
from tinysaver_edge.bundle.bundle import Bundle

FIGURES = {
    "samples",
    "accuracy_saver",
    "accuracy_large",
    "accuracy_cascade",
    "drop_points",
    "accept_rate",
    "cost_macs_ratio",
    "drop_interval_points",
    "saver_drop_interval_points",
    "accuracy_local",
    "reuse",
    "settled",
}
KEYS = {
    "stages",
    "saver",
    "score",
    "threshold",
    "method",
    "calibration",
    "holdout",
    "candidates",
    "warnings",
    "bundle",
}
SAMPLES = 4000
MACS = {"big": 2e9, "mid": 6e8, "tiny": 1e8}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Three models of rising accuracy that are surest where they are right, in class order."""
    folder = tmp_path_factory.mktemp("records")
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, 10, SAMPLES))
    hardness = rng.exponential(size=(SAMPLES, 1))
    for name, noise in (("big", 0.6), ("mid", 0.75), ("tiny", 0.95)):
        logits = 3 * np.eye(10)[labels] + noise * hardness * rng.normal(size=(SAMPLES, 10))
        np.savez(folder / f"{name}.npz", logits=logits.astype(np.float32))
    np.save(folder / "labels.npy", labels)
    rows = "".join(f"{name},{macs}\n" for name, macs in MACS.items())
    (folder / "models.csv").write_text("name,macs\n" + rows)
    return folder


def on(folder, *more, large="big", savers=("all",)):
    """Arguments of a calibration on records."""
    named = [word for saver in savers for word in ("--saver", saver)]
    return [
        "calibrate", "--records", folder, "--labels", folder / "labels.npy",
        "--macs", folder / "models.csv", "--large", large, *named, *more,
    ]  # fmt: skip


def rows_of(result):
    return {row["saver"]: row for row in result["candidates"]}


def test_json_is_one_object_on_stdout_and_everything_else_on_stderr(command, records, tmp_path):
    done = command(*on(records, "--method", "empirical", "--out", tmp_path / "b", "--json"))
    assert done.code == 0
    result = done.json
    assert result.keys() >= KEYS
    assert result["calibration"].keys() == FIGURES
    assert result["holdout"] is None
    assert result["method"] == "empirical"
    assert result["bundle"] == str(tmp_path / "b")
    assert [stage["model"] for stage in result["stages"]] == [result["saver"], "big"]
    first, last = result["stages"]
    assert (first["score"], first["threshold"]) == (result["score"], result["threshold"])
    assert (last["score"], last["threshold"]) == (None, None)
    assert [row["saver"] for row in result["candidates"]] == ["tiny", "mid"]
    assert "Candidates" in (done.out + done.err)
    assert "tiny" in (done.out + done.err)


def test_without_json_the_tables_are_on_stdout(command, records, tmp_path):
    done = command(*on(records, "--out", tmp_path / "b"))
    assert done.code == 0
    assert "not worth it" not in (done.out + done.err)
    assert "κ" in done.out


def test_the_figures_are_those_of_the_records(command, records, tmp_path):
    asked = ("--method", "empirical", "--max-drop", 1, "--holdout", 0.5, "--seed", 3)
    result = command(*on(records, *asked, "--out", tmp_path / "b", "--json")).json
    labels = np.load(records / "labels.npy")
    logits = {name: np.load(records / f"{name}.npz")["logits"] for name in MACS}
    held = np.random.default_rng(3).permutation(SAMPLES)[: SAMPLES // 2]
    parts = {"holdout": held, "calibration": np.setdiff1d(np.arange(SAMPLES), held)}
    for part, index in parts.items():
        saver, large = logits[result["saver"]][index].astype(np.float64), logits["big"][index]
        weights = np.exp(saver - saver.max(axis=1, keepdims=True))
        best = np.sort(weights / weights.sum(axis=1, keepdims=True), axis=1)
        accept = best[:, -1] - best[:, -2] >= result["threshold"] - 1e-6
        right = {
            "accuracy_saver": saver.argmax(axis=1) == labels[index],
            "accuracy_large": large.argmax(axis=1) == labels[index],
        }
        right["accuracy_cascade"] = np.where(accept, *right.values())
        found = result[part]
        for name, values in right.items():
            assert found[name] == pytest.approx(values.mean())
        assert found["samples"] == SAMPLES // 2
        assert found["accept_rate"] == pytest.approx(accept.mean())
        kappa = MACS[result["saver"]] / MACS["big"]
        assert found["cost_macs_ratio"] == pytest.approx(kappa + 1 - accept.mean())
        drop = found["accuracy_large"] - found["accuracy_cascade"]
        assert found["drop_points"] == pytest.approx(100 * drop, abs=1e-9)
    assert result["calibration"]["drop_points"] <= 1
    assert 0.2 < result["calibration"]["accept_rate"] < 1


def test_the_seed_decides_the_holdout_and_repeats(command, records, tmp_path):
    def drawn(seed):
        asked = ("--method", "empirical", "--holdout", 0.3, "--seed", seed)
        result = command(*on(records, *asked, "--json")).json
        return json.dumps([result["threshold"], result["holdout"]])

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_bundle_of_records_holds_the_policy_and_no_models(command, records, tmp_path):
    bundle = tmp_path / "b"
    made = command(*on(records, "--method", "empirical", "--out", bundle, "--json")).json
    files = sorted(file.name for file in bundle.rglob("*") if file.is_file())
    assert files == ["bundle.json", "seen.npy"]
    evaluated = command(
        "evaluate", bundle, "--records", records, "--labels", records / "labels.npy", "--json"
    )
    assert evaluated.code == 0
    assert {name: evaluated.json[name] for name in FIGURES} == made["calibration"]
    assert evaluated.json["seen_samples"] == evaluated.json["samples"]
    verified = command("verify", bundle, "--json")
    assert (verified.code, verified.json["passed"]) == (0, True)
    for refused in (
        command("run", bundle, "--source", "demo://?frames=1"),
        command("evaluate", bundle, "--data", records),
    ):
        assert refused.code == 2
        assert "made from records, it names models" in refused.complaint
        assert "calibrate with the model files" in refused.complaint


def test_a_bundle_may_be_a_zip(command, records, tmp_path):
    bundle = tmp_path / "b.zip"
    assert command(*on(records, "--out", bundle)).code == 0
    assert bundle.is_file()
    with Bundle.load(bundle) as opened:
        assert opened.manifest.stages[-1].model.name == "big"
    assert command("verify", bundle).code == 0


def test_nothing_is_written_where_no_place_is_named(command, records, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(records.iterdir())
    assert command(*on(records, "--json")).json["bundle"] is None
    assert list(tmp_path.iterdir()) == []
    assert sorted(records.iterdir()) == before


@pytest.mark.parametrize("score", ["head", "msp_temperature", "maxlogit_pnorm"])
def test_a_score_that_learns_may_be_named(command, records, score):
    done = command(*on(records, "--score", score, "--max-drop", "2", "--json", savers=("tiny",)))
    assert done.code == 0, done.err
    assert done.json["score"] == score


class TestBudgets:
    @pytest.mark.parametrize("budget", ["mean_macs=1.0e9", "mean_flops=2.0e9"])
    def test_the_most_accurate_cascade_that_fits(self, command, records, budget):
        asked = ("--method", "empirical", "--budget", budget)
        result = command(*on(records, *asked, "--json")).json
        assert result["calibration"]["cost_macs_ratio"] <= 0.5
        rows = rows_of(result)
        best = max(rows.values(), key=lambda row: -row["drop_points"])
        assert rows[result["saver"]]["drop_points"] == best["drop_points"]
        assert all(row["cost_macs_ratio"] <= 0.5 + 1e-9 for row in rows.values())

    def test_with_a_drop_both_hold(self, command, records):
        asked = ("--method", "empirical", "--budget", "mean_macs=1.5e9", "--max-drop", "1")
        result = command(*on(records, *asked, "--json")).json
        assert result["calibration"]["cost_macs_ratio"] <= 0.75
        assert result["calibration"]["drop_points"] <= 1

    @pytest.mark.parametrize(("method", "drop"), [("empirical", "0.1"), ("certified", "1")])
    def test_that_cannot_be_kept_exit_with_3_and_say_how_far_off(
        self, command, records, tmp_path, method, drop
    ):
        asked = ("--method", method, "--budget", "mean_macs=1e6", "--max-drop", drop)
        done = command(*on(records, *asked, "--out", tmp_path / "b", "--json"))
        assert done.code == 3
        *shown, last = done.err.splitlines()
        complaint = last.removeprefix("tinysaver-edge: ")
        assert complaint.startswith("no cascade keeps every limit: ")
        assert "mean_macs 1e+06 would have to be " in complaint
        assert "(over by " in complaint
        # What remains is what was tested on the samples.
        assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["tested.json"]
        # A program hears the same, and everybody what each saver would do.
        said = done.json
        assert (said["error"], said["exit_code"]) == (complaint, 3)
        assert {row["saver"] for row in said["candidates"]} == {
            "mid",
            "tiny",
            *(["tiny → mid"] if method == "certified" else []),
        }
        assert not any(row["feasible"] or row["chosen"] for row in said["candidates"])
        assert shown[0].strip() == "Candidates, on these samples"

    def test_every_failure_is_an_object_where_one_was_asked_for(self, command, records):
        done = command(*on(records, "--holdout", "1.5", "--json"))
        assert done.code == 2
        (line,) = done.err.splitlines()
        said = line.removeprefix("tinysaver-edge: ")
        assert done.json == {"error": said, "exit_code": 2, "candidates": []}

    def test_a_failed_request_leaves_an_old_bundle_alone(self, command, records, tmp_path):
        bundle = tmp_path / "b"
        command(*on(records, "--out", bundle))
        before = (bundle / "bundle.json").read_bytes()
        asked = ("--budget", "mean_macs=1e6", "--max-drop", "0.1", "--out", bundle)
        assert command(*on(records, *asked)).code == 3
        assert (bundle / "bundle.json").read_bytes() == before


@needs_records
class TestOnRealRecords:
    """What 13 real models answered on all 50,000 ImageNet validation images."""

    @staticmethod
    def real(*more, savers=("mobilenetV2",)):
        return on(data_folder() / "records", *more, large="nasnetlarge", savers=savers)

    def test_the_papers_rule_to_the_letter(self, command, tmp_path):
        asked = ("--method", "tinysaver", "--out", tmp_path / "b", "--json")
        done = command(*self.real(*asked))
        result = done.json
        assert done.code == 0
        assert (result["method"], result["score"]) == ("tinysaver", "msp")
        assert result["threshold"] == np.nextafter(0.997, 1)
        assert result["calibration"]["accept_rate"] == pytest.approx(0.0065, abs=5e-5)
        assert result["calibration"]["cost_macs_ratio"] > 1
        (warning,) = [text for text in result["warnings"] if "not worth it" in text]
        assert warning in " ".join((done.out + done.err).split())

    def test_every_cheaper_model_is_a_candidate(self, command):
        asked = ("--method", "empirical", "--max-drop", "0.5", "--json")
        result = command(*self.real(*asked, savers=("all",))).json
        assert len(result["candidates"]) == 12
        assert result["calibration"]["samples"] == 50_000
        assert result["calibration"]["drop_points"] <= 0.5
        costs = [row["cost_macs_ratio"] for row in result["candidates"]]
        assert rows_of(result)[result["saver"]]["cost_macs_ratio"] == min(costs)
        assert min(costs) < 0.6


def test_the_command_in_a_process_of_its_own(records, tmp_path):
    done = spawned(*on(records, "--method", "empirical", "--out", tmp_path / "b", "--json"))
    assert done.code == 0
    assert done.json["bundle"] == str(tmp_path / "b")
    bad = spawned(*on(records, "--large", "none"))
    assert bad.code == 2
    assert "none" in bad.complaint


def test_a_reader_that_has_had_enough_is_no_error(records):
    """As in `tinysaver-edge … | head -1`."""
    words = [str(word) for word in on(records, "--json")]
    done = subprocess.run(
        f"{sys.executable} -c 'from tinysaver_edge.cli import main; main()' {' '.join(words)}"
        " | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr
