"""A real bundle of tiny models with golden samples, quick to make and to run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.colours import (
    LARGE,
    MIDDLE,
    NAMES,
    OUTPUT,
    PREPROCESS,
    SAVER,
    colour_folders,
    colour_model,
    macs,
)
from tinysaver_edge.artefact import Artefact, combined_sha256
from tinysaver_edge.bundle.bundle import file_entry, write_bundle
from tinysaver_edge.bundle.manifest import (
    DisagreementEntry,
    FiguresEntry,
    Manifest,
    ModelEntry,
    Named,
    StageEntry,
)
from tinysaver_edge.calibrate.chosen.golden import make_golden
from tinysaver_edge.data.files import open_data
from tinysaver_edge.deciding.figures import cost_ratio
from tinysaver_edge.deciding.policy import Policy, StagePolicy
from tinysaver_edge.engines.base import EngineOptions, Precision
from tinysaver_edge.score import Margin

KINDS = {"only": LARGE, "saver": SAVER, "middle": MIDDLE, "large": LARGE}
THRESHOLD = 0.9


def artefact(
    folder: Path,
    name: str,
    *,
    engine: str = "onnxruntime",
    precision: Precision = Precision.FLOAT32,
) -> Artefact:
    """One of the models, its preprocessing done in numpy."""
    path = colour_model(folder / f"{name}.onnx", KINDS[name])
    digest = combined_sha256((path,))
    return Artefact(
        name=name,
        files=(path,),
        sha256=digest,
        source_sha256=digest,
        preprocess=PREPROCESS,
        output=OUTPUT,
        engine=engine,
        options=EngineOptions(threads=1, precision=precision),
        macs=float(macs(KINDS[name])),
        parameters=None,
        classes=len(NAMES),
        labels=NAMES,
    )


def small_bundle(
    target: Path,
    *,
    names: tuple[str, ...] = ("saver", "large"),
    golden: bool = True,
    engine: str = "onnxruntime",
    precision: Precision = Precision.FLOAT32,
    shipped: Callable[[Artefact], Artefact] = lambda made: made,
    pool: tuple[float, ...] | None = None,
    thresholds: tuple[float, ...] = (THRESHOLD, THRESHOLD),
) -> Path:
    """Write a bundle with a stage a name, which is one of `KINDS`.

    ``shipped`` may change what becomes of each model before it is used.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        artefacts = [
            shipped(artefact(folder, name, engine=engine, precision=precision)) for name in names
        ]
        stages = [
            StagePolicy(one.name, macs=one.macs, score=Margin(), threshold=threshold)
            for one, threshold in zip(artefacts[:-1], thresholds, strict=False)
        ]
        stages.append(StagePolicy(names[-1], macs=artefacts[-1].macs))
        files = {f"models/{one.name}.onnx": one.files[0] for one in artefacts}
        entry = None
        (folder / "golden").mkdir()
        if golden:
            with open_data(colour_folders(folder / "images", each=2)) as data:
                entry = make_golden(
                    Policy(tuple(stages), pool=pool),
                    artefacts,
                    data,
                    pool=np.arange(len(data)),
                    seed=0,
                    folder=folder / "golden",
                    files=files,
                    labels=NAMES,
                )
        manifest = _manifest(artefacts, stages, entry)
        manifest = manifest.model_copy(update={"pool": None if pool is None else list(pool)})
        write_bundle(target, manifest, files)
    return target


def _manifest(artefacts: list[Artefact], stages: list[StagePolicy], golden: object) -> Manifest:
    return Manifest(
        created_by="tests",
        labels=list(NAMES),
        stages=[
            StageEntry(
                model=ModelEntry(
                    name=one.name,
                    files=[file_entry(one.files[0], f"models/{one.name}.onnx")],
                    source_sha256=one.source_sha256,
                    engine=one.engine,
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
        calibration=_figures(stages),
        disagreement=DisagreementEntry(
            accepted=400,
            disagreed=4,
            held_out=True,
            choices=1,
            confidence=0.95,
            upper=0.0227,
            stricter=[0.95, 0.99],
        ),
        golden=golden,
    )


def _figures(stages: list[StagePolicy]) -> FiguresEntry:
    """Figures of a cascade whose first stage settles half of ten samples, and the last the rest."""
    settled = [0.0] * len(stages)
    settled[0] += 0.5
    settled[-1] += 0.5
    return FiguresEntry(
        samples=10,
        accuracy_saver=0.5,
        accuracy_large=0.5,
        accuracy_cascade=0.5,
        drop_points=0,
        accept_rate=settled[0],
        cost_macs_ratio=cost_ratio(Policy(tuple(stages)), settled),
        settled=settled,
    )
