"""A saver in a file format of somebody else's, with the engine that reads it, from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.calibrate.recipes import plug_in, recipe
from tests.colours import COLOURS, LARGE, SAVER, colour_folders
from tests.command import spawned

# The classes' colours as a text file: the nearest to a picture's mean wins.
NEAREST = """
import numpy as np
from tinysaver_edge.engines.base import Engine, ModelSignature

class Strange(Engine):
    name = "strange"
    suffixes = frozenset({".colours"})

    def _load(self):
        self.colours = np.loadtxt(self.model)
        classes = len(self.colours)
        shape = (None, 3, 16, 16)
        return "CPU", ModelSignature("image", shape, "float32", "far", (None, classes), "float32")

    def _run(self, batch):
        far = batch.mean(axis=(2, 3))[:, None, :] - self.colours
        return (-20 * np.square(far).sum(axis=2)).astype(np.float32)
"""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    made = recipe(
        tmp_path, {"other": SAVER, "large": LARGE}, {"other": 'engine = "strange"\n$macs'}
    )
    text = made.read_text().replace('file = "other.onnx"', 'file = "other.colours"')
    made.write_text(text)
    blurred = COLOURS + np.random.default_rng(0).normal(0, 0.1, COLOURS.shape)
    np.savetxt(tmp_path / "other.colours", blurred)
    colour_folders(tmp_path / "data", each=50)
    return made


def calibrated(made: Path, *, macs: str):
    made.write_text(made.read_text().replace("$macs", macs))
    folder = made.parent
    return spawned(
        "calibrate", made, "--data", folder / "data", "--out", folder / "bundle",
        "--method", "empirical", "--max-drop", "1", "--no-timing", "--no-report", "--json",
        path=folder / "packages" if (folder / "packages").exists() else None,
    )  # fmt: skip


def test_it_calibrates_and_runs_where_its_macs_are_said(world: Path) -> None:
    packages = plug_in(world.parent / "packages", NEAREST)
    done = calibrated(world, macs="macs = 100")
    assert done.code == 0, done.err
    (row,) = done.json["candidates"]
    assert row["accuracy_saver"] > 0.5
    verified = spawned("verify", world.parent / "bundle", "--json", path=packages)
    assert verified.code == 0, verified.err
    ran = spawned(
        "run", world.parent / "bundle", "--source", world.parent / "data", "--json", path=packages
    )
    assert ran.code == 0, ran.err
    assert len([json.loads(line) for line in ran.out.splitlines()]) == 300


def test_without_them_it_says_what_to_write(world: Path) -> None:
    plug_in(world.parent / "packages", NEAREST)
    done = calibrated(world, macs="")
    assert done.code == 2
    assert "write macs into its description" in done.err
