"""A certificate on records, its groups, and what becomes of one that was edited by hand."""

import json
import shutil

import numpy as np
import pytest

from tests.cli.test_records import SAMPLES, on, records  # noqa: F401 - a fixture
from tinysaver_edge.bundle.bundle import Bundle


@pytest.fixture
def bundle(command, records, tmp_path):  # noqa: F811
    done = command(*on(records, "--max-drop", "2", "--no-report", "--out", tmp_path / "b"))
    assert done.code == 0, done.err
    assert command("verify", tmp_path / "b").code == 0
    return tmp_path / "b"


def test_the_terminal_says_what_the_drift_watch_is_promised(command, records, tmp_path):  # noqa: F811
    out = tmp_path / "b"
    done = command(*on(records, "--max-drop", "2", "--no-report", "--out", out))
    with Bundle.load(out) as bundle:
        promised = bundle.manifest.disagreement
    (told,) = (
        line for line in (done.out + done.err).splitlines() if line.startswith("drift watch: ")
    )
    assert f"answered {promised.disagreed:,} otherwise" in told
    assert told.endswith(f"in the field, more than {100 * promised.tested(0.05):.2f} % is drift")


def samples(content):
    content["certificate"]["counts"]["samples"] *= 4


def gained(content):
    content["certificate"]["counts"]["steps"][-1]["gained"] += 10


def lost(content):
    content["certificate"]["counts"]["steps"][-1]["lost"] = 0


def accepted(content):
    content["certificate"]["counts"]["steps"][-1]["accepted"] += 9


def removed(content):
    content["certificate"] = None


def step_of_nothing(content):
    content["certificate"]["counts"]["steps"].append(None)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (samples, "the bundle was calibrated on"),
        (gained, "points lost, the calibration"),
        (lost, "points lost, the calibration"),
        (accepted, "accepted, the calibration"),
        (removed, "is missing, although the method is certified"),
        (step_of_nothing, "the certificate cannot be read"),
    ],
)
def test_edits_are_found_out(command, bundle, edit, says):
    path = bundle / "bundle.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    done = command("verify", bundle, "--json")
    assert done.code == 2, done.err
    (check,) = [one for one in done.json["checks"] if one["name"] == "certificate"]
    assert check["passed"] is False
    assert says in check["detail"]


def test_groups_of_records_make_the_bound_stricter(command, records, tmp_path):  # noqa: F811
    folder = tmp_path / "records"
    shutil.copytree(records, folder)
    np.save(folder / "clips.npy", np.array([f"clip {index // 20}" for index in range(SAMPLES)]))
    rates = {}
    for name, more in {"alone": (), "clips": ("--groups", folder / "clips.npy")}.items():
        out = tmp_path / name
        done = command(*on(folder, "--max-drop", "3", "--no-report", *more, "--out", out, "--json"))
        assert done.code == 0, done.err
        rates[name] = done.json["calibration"]["accept_rate"]
        with Bundle.load(out) as opened:
            assert opened.manifest.certificate is not None
            counts = opened.manifest.certificate.counts
        assert bool(counts["steps"][-1]["group_losses"]) is (name == "clips")
        assert command("verify", out).code == 0
    assert rates["clips"] < rates["alone"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.arange(7), f"7 groups for {SAMPLES} samples"),
        (np.zeros(SAMPLES), "expected whole numbers or names"),
        (np.zeros((SAMPLES, 2), np.int64), "expected one value a sample"),
    ],
)
def test_groups_that_do_not_fit(command, records, tmp_path, values, says):  # noqa: F811
    np.save(tmp_path / "g.npy", values)
    done = command(*on(records, "--groups", tmp_path / "g.npy", "--out", tmp_path / "b"))
    assert done.code == 2
    assert says in done.complaint


def test_records_have_no_columns_and_the_large_model_needs_no_labels(command, records):  # noqa: F811
    assert "records take --groups" in command(*on(records, "--group-column", "clip")).complaint
    assert "leave --labels out" in command(*on(records, "--reference", "large")).complaint
