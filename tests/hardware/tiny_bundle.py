"""A real bundle of two tiny ONNX models with golden samples, quick to make and to run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from tests.model_zoo import Form, tiny_classifier
from tests.pictures import class_folders
from tinysaver_edge.artefact import Artefact, combined_sha256
from tinysaver_edge.bundle import file_entry, write_bundle
from tinysaver_edge.calibrate.golden import make_golden
from tinysaver_edge.data import open_data
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.manifest import FiguresEntry, Manifest, ModelEntry, Named, StageEntry
from tinysaver_edge.policy import Policy, StagePolicy
from tinysaver_edge.score import Margin

LABELS = ("a", "b", "c", "d", "e")
THRESHOLD = 0.3


def artefact(path: Path, form: Form, name: str, *, engine: str = "onnxruntime") -> Artefact:
    """A model file as an artefact, its preprocessing done in numpy."""
    digest = combined_sha256((path,))
    return Artefact(
        name=name,
        files=(path,),
        sha256=digest,
        source_sha256=digest,
        preprocess=form.preprocess,
        output=form.output,
        engine=engine,
        options=EngineOptions(threads=1),
        macs=1e3 if name == "saver" else 1e4,
        parameters=None,
        classes=form.outputs,
        labels=LABELS,
    )


def small_bundle(
    target: Path, *, names: tuple[str, ...] = ("saver", "large"), golden: bool = True
) -> Path:
    """Write a bundle of as many stages as there are names."""
    form = Form()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        artefacts = [
            artefact(tiny_classifier(folder / f"{name}.onnx", form, seed=seed), form, name)
            for seed, name in enumerate(names)
        ]
        stages = [
            StagePolicy(name, macs=one.macs, score=Margin(), threshold=THRESHOLD)
            for name, one in zip(names, artefacts, strict=True)
        ]
        stages[-1] = StagePolicy(names[-1], macs=artefacts[-1].macs)
        files = {f"models/{one.name}.onnx": one.files[0] for one in artefacts}
        entry = None
        (folder / "golden").mkdir()
        if golden:
            images = class_folders(folder / "images", classes=LABELS, each=2)
            with open_data(images) as data:
                entry = make_golden(
                    Policy(tuple(stages)),
                    artefacts,
                    data,
                    pool=np.arange(len(data)),
                    seed=0,
                    folder=folder / "golden",
                    files=files,
                )
        write_bundle(target, _manifest(artefacts, stages, entry), files)
    return target


def _manifest(artefacts: list[Artefact], stages: list[StagePolicy], golden: object) -> Manifest:
    return Manifest(
        created_by="tests",
        labels=list(LABELS),
        stages=[
            StageEntry(
                model=ModelEntry(
                    name=one.name,
                    files=[file_entry(one.files[0], f"models/{one.name}.onnx")],
                    source_sha256=one.source_sha256,
                    engine=one.engine,
                    device=None,
                    precision=one.options.precision.value,
                    preprocess=one.preprocess,
                    output=one.output,
                    macs=one.macs,
                ),
                score=None if stage.score is None else Named(name=stage.score.name),
                threshold=stage.threshold,
            )
            for one, stage in zip(artefacts, stages, strict=True)
        ],
        method="empirical",
        seed=0,
        calibration=FiguresEntry(
            samples=10,
            accuracy_saver=0.5,
            accuracy_large=0.5,
            accuracy_cascade=0.5,
            drop_points=0,
            accept_rate=0.5,
            cost_macs_ratio=0.6,
        ),
        golden=golden,
    )
