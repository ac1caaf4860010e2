"""Whoever tests on the same samples again shares the risk; whoever evaluates on them is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.calibrate.measured.test_independence import Notes
from tests.calibrate.test_false_certificates import colours, plan
from tests.colours import DESCRIPTION, SAVER, colour_folders, colour_model
from tests.real_data import data_folder, needs_records
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate import ModelFile, Plan, RecordInput, Targets, calibrate
from tinysaver_edge.errors import InfeasibleError
from tinysaver_edge.models.description.description import find_description
from tinysaver_edge.records.evaluation import evaluate_images, evaluate_records

__all__ = ["colours"]  # a fixture


def other_saver(folder: Path, name: str, layers: int) -> None:
    colour_model(folder / f"{name}.onnx", replace(SAVER, layers=layers))
    (folder / f"{name}.toml").write_text(DESCRIPTION)


def test_runs_are_remembered_beside_the_bundle_too(colours: Path, tmp_path: Path) -> None:
    """Another --out in the same place is no other set of images; samples that are too few then are
    told of before a model runs."""

    def run(out: str, *savers: str, drop: float = 20.0) -> int:
        asked = plan(colours)
        models = tuple(
            ModelFile(colours / f"{one}.onnx", find_description(colours / f"{one}.onnx"))
            for one in savers
        )
        given = replace(asked.input, savers=models)
        targets = Targets(max_drop_points=drop)
        told = replace(asked, input=given, targets=targets)
        found = calibrate(told, out=tmp_path / out, progress=notes)
        assert found.certificate is not None
        return found.certificate.candidates

    notes = Notes()
    for layers, name in enumerate(("second", "third"), 1):
        other_saver(colours, name, layers)
    assert run("one", "tiny") == 1
    assert run("two", "second") == 2
    assert run("three", "tiny") == 1  # the same again
    notes.heard.clear()
    with pytest.raises(InfeasibleError):
        run("four", "third", drop=1.4)
    told = [place for place, one in enumerate(notes.heard) if "are too few" in one]
    models = [place for place, one in enumerate(notes.heard) if one.startswith("big")]
    assert "shared by 3 savers" in notes.heard[told[0]]
    assert told[0] < min(models, default=len(notes.heard))


@needs_records
def test_what_was_tested_on_records_is_remembered(tmp_path: Path) -> None:
    records = data_folder() / "records"
    macs = tmp_path / "macs.csv"
    macs.write_text((records / "models.csv").read_text())

    def run(out: str, saver: str) -> int:
        given = RecordInput(
            records=records,
            labels=records / "labels.npy",
            macs=macs,
            large="xception",
            savers=(saver,),
        )
        found = calibrate(
            Plan(given, Targets(max_drop_points=1.0), report=False), out=tmp_path / out
        )
        assert found.certificate is not None
        return found.certificate.candidates

    assert run("one", "mobilenet") == 1
    assert run("one", "mobilenetV2") == 2
    assert run("two", "mobilenet") == 1
    with Bundle.load(tmp_path / "two") as bundle:
        found = evaluate_records(bundle, records, records / "labels.npy")
    assert found.seen == pytest.approx(50_000, rel=0.03)  # of so many, hashes of a draw
    assert not list(records.glob("tested.json"))


def test_evaluate_counts_no_copies(colours: Path, tmp_path: Path) -> None:
    calibrate(plan(colours), out=tmp_path / "bundle")
    colour_folders(tmp_path / "new", each=10, seed=3)
    with Bundle.load(tmp_path / "bundle") as bundle:
        honest = evaluate_images(bundle, tmp_path / "new")
        for file in (tmp_path / "new").rglob("*.png"):
            (file.with_stem(f"{file.stem}-again")).write_bytes(file.read_bytes())
        copies = evaluate_images(bundle, tmp_path / "new")
    assert not honest.doubted
    assert honest.figures.drop_interval_points is not None
    assert copies.doubted
    assert copies.figures.drop_interval_points is None
    assert any("60 of 120 images are copies of others" in one for one in copies.warnings)
