"""A calibration on shards, here and elsewhere, finds what it finds in folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.calibrate.recipes import recipe
from tests.colours import LARGE, SAVER, colour_folders
from tests.data.test_shards import parquet, tar
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate import calibrate
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.data.store import DataPlace
from tinysaver_edge.records.records import load_record
from tinysaver_edge.verify.run import verify


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    recipe(folder, {"saver": SAVER, "large": LARGE})
    pictures = colour_folders(folder / "pictures", each=40)
    return folder, pictures, calibrated(folder, pictures, folder / "bundle", isolate=False)


def calibrated(folder: Path, data: str | Path, out: Path, *, isolate: bool):
    given = {"data": DataPlace.of(data), "out": out, "max_drop": 20.0, "no_timing": True}
    settings = load_recipe(str(folder / "recipe.toml"))
    plan = plan_of(settings.overridden({**given, "no_report": True}))
    result = calibrate(replace(plan, input=replace(plan.input, isolate=isolate)), out=out)
    return result, load_record(out.with_name(f"{out.name}.records"), "saver").outputs.logits


@pytest.mark.parametrize("kind", ["tar", "parquet", "memory"])
def test_shards_give_what_folders_give(made, tmp_path, kind):
    folder, pictures, (wanted, logits) = made
    files = sorted(pictures.rglob("*.png"))
    data: str | Path = tmp_path / "shards"
    if kind == "memory":
        fsspec = pytest.importorskip("fsspec", reason="no fsspec: pip install '.[cloud]'")
        data = f"memory://{tmp_path.name}/pictures"
        fsspec.filesystem("memory").put(str(pictures), f"/{tmp_path.name}/pictures", recursive=True)
    else:
        Path(data).mkdir()
        for number, some in enumerate((files[:100], files[100:])):
            rows = [(file.read_bytes(), file.parent.name) for file in some]
            if kind == "parquet":
                parquet(tmp_path / f"shards/{number}.parquet", rows)
                continue
            tar(
                tmp_path / f"shards/{number}.tar",
                [
                    (f"{place:04d}.{ending}", content)
                    for place, row in enumerate(rows)
                    for ending, content in (("png", row[0]), ("cls", row[1].encode()))
                ],
            )
    # In processes of their own, what lies in this one's memory must come along.
    found, others = calibrated(folder, data, tmp_path / "other", isolate=kind == "memory")
    assert np.array_equal(logits, others)
    assert found.policy == wanted.policy
    assert found.certificate == wanted.certificate
    with Bundle.load(tmp_path / "other") as bundle:
        assert len(bundle.manifest.golden.frames) == 16
        assert verify(bundle).passed
