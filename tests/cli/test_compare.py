"""The command `compare`, on a bundle made from records."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.calibrate.report.world import MACS, problem
from tests.cli.test_devices import run
from tinysaver_edge.calibrate import Method, Plan, RecordInput, Targets, calibrate

HEAD = "system,data,large,saver,max_drop_points,top1_percent,mean_gmacs,cost_macs_ratio,source"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    given = problem()
    for model in (given.large, *given.savers):
        np.savez(folder / f"{model.name}.npz", logits=model.outputs.logits)
    np.save(folder / "labels.npy", given.labels)
    rows = "".join(f"{name},{macs}\n" for name, macs in MACS.items())
    (folder / "macs.csv").write_text("name,macs\n" + rows)
    plan = Plan(
        RecordInput(folder, folder / "labels.npy", folder / "macs.csv", "large", ("all",)),
        Targets(method=Method.EMPIRICAL, max_drop_points=1.0),
        holdout=0.25,
    )
    calibrate(plan, out=folder / "bundle")
    return folder / "bundle"


def test_it_stands_beside_the_published_figures(bundle, tmp_path):
    done = run(tmp_path, "compare", str(bundle), "--json")
    assert done.code == 0, done.err
    assert "no published figure is of large" in done.err
    assert "arXiv 2403.17726" in done.err
    found = json.loads(done.out)
    assert [one["data"] for one in found["own"]] == ["450 calibration samples", "150 hold-out"]
    assert {one["system"] for one in found["published"]} == {"TinySaver", "Little-Big"}


def test_figures_of_ones_own(bundle, tmp_path):
    (tmp_path / "mine.csv").write_text(f"{HEAD}\nMine,these,large,tiny,1,90,0.4,,a note\n")
    done = run(tmp_path, "compare", str(bundle), "--published", str(tmp_path / "mine.csv"))
    assert done.code == 0, done.err
    assert "no published figure" not in done.err
    assert "0.400" in done.out


def test_a_wrong_table_is_one_line(bundle, tmp_path):
    (tmp_path / "mine.csv").write_text("what,ever\n")
    done = run(tmp_path, "compare", str(bundle), "--published", str(tmp_path / "mine.csv"))
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "its columns must be" in done.err
