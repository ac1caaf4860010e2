"""What version 0.1.0 wrote before its files moved is still read: a bundle, records, a recipe.

`tests/earlier` was written by that version (commit bf6b744) from the models and pictures of
`tests/colours.py`: a hundred pictures a class, `calibrate recipe.toml --data images`.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.colours import DESCRIPTION, LARGE, NAMES, SAVER, colour_folders, colour_model
from tests.command import spawned
from tinysaver_edge import Cascade

EARLIER = Path(__file__).with_name("earlier")
FIGURES = json.loads((EARLIER / "figures.json").read_text())
EACH = 100


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "labels.npy"
    np.save(path, np.repeat(np.arange(len(NAMES)), EACH))
    return path


def test_a_bundle_is_verified_and_decides():
    done = spawned("verify", EARLIER / "bundle.zip")
    assert done.code == 0, done.err
    with Cascade.load(EARLIER / "bundle.zip") as cascade:
        decision = cascade.decide(np.full((32, 32, 3), (230, 50, 25), np.uint8))
    assert decision.label == "blue"


def test_records_are_evaluated_to_the_same_figures(labels):
    asked = ("--records", EARLIER / "records", "--labels", labels, "--json")
    done = spawned("evaluate", EARLIER / "bundle.zip", *asked)
    told = done.json
    assert {name: told[name] for name in FIGURES["evaluate"]} == pytest.approx(FIGURES["evaluate"])


def test_a_recipe_chooses_the_same(tmp_path):
    colour_folders(tmp_path / "images", each=EACH)
    for name, kind in (("large", LARGE), ("saver", SAVER)):
        colour_model(tmp_path / f"{name}.onnx", kind)
        (tmp_path / f"{name}.toml").write_text(f'name = "{name}"' + DESCRIPTION)
    place = ("--root", tmp_path, "--data", tmp_path / "images", "--out", tmp_path / "bundle")
    options = ("--no-timing", "--no-report", "--json")
    done = spawned("calibrate", EARLIER / "recipe.toml", *place, *options)
    assert done.code == 0, done.err
    told = done.json
    assert told["threshold"] == pytest.approx(FIGURES["threshold"])
    for part in ("calibration", "holdout"):
        known = FIGURES[part]
        assert {name: told[part][name] for name in known} == pytest.approx(known)
