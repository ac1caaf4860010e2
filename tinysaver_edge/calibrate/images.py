"""Images: measure a plan's models on its images, one after the other, and put them together.

Everything that can be found wrong without running a model over the images is found first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.calibrate.gather import join_records
from tinysaver_edge.calibrate.gathered import Gathered
from tinysaver_edge.calibrate.plan import ImageInput, ModelFile
from tinysaver_edge.calibrate.problem import Answers, Problem, check_models
from tinysaver_edge.calibrate.shortlist import Measured, Shortlist
from tinysaver_edge.calibrate.steps import MeasureStep, PrepareStep, run_step
from tinysaver_edge.calibrate.timing import LargeTiming, PairTimingStep, TimingPlace
from tinysaver_edge.calibrate.worker import OutOfTimeError, WorkerLostError
from tinysaver_edge.cascade import Clock
from tinysaver_edge.data import DataSource, class_indices, open_data
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.measure import measure
from tinysaver_edge.progress import Progress
from tinysaver_edge.records import Record

if TYPE_CHECKING:
    from tinysaver_edge.fusion import Fusion


@dataclass(slots=True)
class _Run:
    """One gathering under way."""

    given: ImageInput
    data: DataSource
    folder: Path
    progress: Progress
    clock: Clock
    started: float
    fingerprint: str
    lost: dict[str, str] = field(default_factory=dict)

    def is_variant(self, name: str) -> bool:
        """Whether a saver is one of several forms of a file."""
        return any(one.variant and one.description.name == name for one in self.given.savers)

    def lose(self, name: str, error: EngineError) -> None:
        """Go on without a saver whose process died, or a variant that cannot be run.

        Raises:
            EngineError: the error, where the saver was asked for as it is.
        """
        if not isinstance(error, WorkerLostError) and not self.is_variant(name):
            raise error
        self.leave_out(name, str(error))

    def leave_out(self, name: str, why: str) -> None:
        """Go on without a saver."""
        self.lost[name] = why
        self.progress.note(f"{name}: {why}")

    @property
    def spent(self) -> str:
        """Say that there is no time left."""
        return f"the time budget of {self.given.time_budget_s:g} s is spent"

    @property
    def seconds_left(self) -> float | None:
        """What is left of the time budget, None where there is none."""
        if self.given.time_budget_s is None:
            return None
        return self.given.time_budget_s - (self.clock() - self.started)


def from_images(
    given: ImageInput,
    data: DataSource,
    *,
    folder: Path,
    shortlist: Shortlist,
    progress: Progress,
    fusion: Fusion | None = None,
    clock: Clock = time.monotonic,
) -> Gathered:
    """Measure every model on the images, or take what is on record.

    Args:
        given: models and options.
        data: the images, open.
        folder: where records and prepared models lie.
        shortlist: tells which savers need no measuring.
        progress: hears of the work.
        fusion: what is likely to combine two models' answers, for timing them.
        clock: seconds, for the time budget.

    Raises:
        InputError: models, descriptions, images or labels do not fit each other.
        EngineError: a model cannot be run.
    """
    run = _Run(given, data, folder, progress, clock, clock(), data.fingerprint())
    large, savers = _prepare(run)
    labels, names = _labels(large, savers, data, labelled=given.labelled)
    records = _measure(run, large, savers, labels, shortlist)
    costs = {one.name: one.macs for one in (large, *savers) if one.macs is not None}
    if not given.labelled:
        labels = records[0].outputs.predictions
    problem, kept = join_records(records, costs, labels, data.groups)
    if given.timing:
        problem = _timed(run, problem, large, {one.name: one for one in savers}, fusion)
    return Gathered(
        problem=problem,
        sample_index=kept,
        artefacts={one.name: one for one in (large, *savers)},
        label_names=names,
        lost=run.lost,
        warnings=(*_skipped(data, kept), *(f"{name}: {why}" for name, why in run.lost.items())),
    )


def _prepare(run: _Run) -> tuple[Artefact, list[Artefact]]:
    """Prepare every model and check that they can make a cascade."""
    large = _prepare_one(run, run.given.large)
    savers = []
    for model in run.given.savers:
        try:
            saver = _prepare_one(run, model).aligned_with(large)
        except EngineError as error:
            run.lose(model.description.name, error)
            continue
        if run.is_variant(saver.name) and (saver.macs or 0.0) >= (large.macs or 0.0):
            why = f"takes {saver.macs:.4g} MACs, no less than the large model's {large.macs:.4g}"
            run.leave_out(saver.name, why)
        else:
            savers.append(saver)
    if not savers:
        raise WorkerLostError("; ".join(run.lost.values()) or "no saver to choose from")
    check_models(
        (large.name, large.macs or 0.0, large.classes),
        [(one.name, one.macs or 0.0, one.classes) for one in savers],
    )
    return large, savers


def _prepare_one(run: _Run, model: ModelFile) -> Artefact:
    step = PrepareStep(model, run.folder / "models", run.given.embed)
    return step.known() or run_step(
        step,
        progress=run.progress,
        what=f"preparing {model.path.name}",
        isolate=run.given.isolate,
    )


def _labels(
    large: Artefact, savers: Sequence[Artefact], data: DataSource, *, labelled: bool
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Return the true class of every sample and the classes' names, None where not known.

    Without labels the classes are the large model's answers, known only once it is measured.
    """
    names = next((one.labels for one in (large, *savers) if one.labels is not None), None)
    classes = large.classes or 0
    if not labelled:
        return np.zeros(len(data), np.int64), names
    labels = class_indices(data.samples, labels=names, classes=classes, path=data.path)
    return labels, names or _folder_names(data, labels, classes)


def _measure(
    run: _Run,
    large: Artefact,
    savers: Sequence[Artefact],
    labels: NDArray[np.int64],
    shortlist: Shortlist,
) -> list[Record]:
    """Measure the large model, then the savers from the most promising on."""
    base = _measure_one(run, large, seconds=None)
    accuracy = _accuracy(base, labels) if run.given.labelled else None
    costs = {one.name: one.macs or 0.0 for one in (large, *savers)}
    found: dict[str, Record] = {}
    best: Measured | None = None
    for saver in sorted(savers, key=lambda one: shortlist.least_cost(one, large, accuracy)):
        why = shortlist.why_not(saver, large, large_accuracy=accuracy, best=best)
        if why is not None:
            run.leave_out(saver.name, why)
            continue
        record = _measure_saver(run, saver)
        if record is None:
            continue
        found[saver.name] = record
        if run.given.labelled:
            problem, _ = join_records([base, record], costs, labels, run.data.groups)
            reached = [one for one in (best, shortlist.cost(problem)) if one is not None]
            best = min(reached, key=lambda one: one.cost, default=None)
    if not found:
        raise WorkerLostError("no saver could be measured: " + "; ".join(run.lost.values()))
    return [base, *(found[one.name] for one in savers if one.name in found)]


def _measure_saver(run: _Run, saver: Artefact) -> Record | None:
    """Measure a saver in what is left of the time; None where it is lost, with the reason kept."""
    left = run.seconds_left
    step = MeasureStep(saver, run.data, run.folder, run.fingerprint, run.given.skip_limit)
    if left is not None and left <= 0 and not step.is_done():
        run.leave_out(saver.name, f"not measured: {run.spent}")
        return None
    try:
        return _measure_one(run, saver, seconds=left)
    except OutOfTimeError:
        run.leave_out(
            saver.name, f"not measured to the end: {run.spent}; another run goes on from here"
        )
    except EngineError as error:
        run.lose(saver.name, error)
    return None


def _accuracy(record: Record, labels: NDArray[np.int64]) -> float:
    """Return the share of the readable images that a model gets right."""
    kept = np.setdiff1d(np.arange(len(labels)), np.array(record.skipped, np.int64))
    return float((record.outputs.predictions[kept] == labels[kept]).mean())


def _timed(
    run: _Run,
    problem: Problem,
    large: Artefact,
    artefacts: Mapping[str, Artefact],
    fusion: Fusion | None,
) -> Problem:
    """Return the problem with what the large model and every saver with it take here."""
    place = TimingPlace(run.data, run.fingerprint, run.folder, alone=run.given.isolate)
    alone = LargeTiming(large, place)
    latency = alone.known() or run_step(
        alone, progress=run.progress, what=f"timing {large.name}", isolate=run.given.isolate
    )
    savers: list[Answers] = []
    for saver in problem.savers:
        step = PairTimingStep(artefacts[saver.name], large, fusion, place)
        try:
            pair = step.known() or run_step(
                step,
                progress=run.progress,
                what=f"timing {saver.name} with {large.name}",
                isolate=run.given.isolate,
            )
        except EngineError as error:
            run.lose(saver.name, error)
        else:
            savers.append(replace(saver, with_large=pair))
    if not savers:
        raise WorkerLostError("no saver could be timed: " + "; ".join(run.lost.values()))
    return replace(problem, large=replace(problem.large, latency=latency), savers=tuple(savers))


def _measure_one(run: _Run, artefact: Artefact, *, seconds: float | None) -> Record:
    step = MeasureStep(artefact, run.data, run.folder, run.fingerprint, run.given.skip_limit)
    if not step.is_done():
        run_step(
            step,
            progress=run.progress,
            what=f"measuring {artefact.name}",
            isolate=run.given.isolate,
            seconds=seconds,
        )
    # Now there is a record of this very key: it is read, not made.
    return measure(
        artefact,
        run.data,
        run.folder,
        fingerprint=run.fingerprint,
        skip_limit=run.given.skip_limit,
    )


def _skipped(data: DataSource, kept: NDArray[np.int64]) -> list[str]:
    skipped = np.setdiff1d(np.arange(len(data)), kept)
    if not len(skipped):
        return []
    names = ", ".join(data.samples[index].file for index in skipped[:5])
    more = ", …" if len(skipped) > 5 else ""
    return [
        f"{len(skipped)} of {len(data)} images could not be read and were left out: {names}{more}"
    ]


def _folder_names(
    data: DataSource, labels: NDArray[np.int64], classes: int
) -> tuple[str, ...] | None:
    """Name classes by the data's own labels where they are names and all there."""
    names = {int(index): sample.label for index, sample in zip(labels, data.samples, strict=True)}
    if len(names) != classes or all(name.isdecimal() for name in names.values()):
        return None
    return tuple(names[index] for index in range(classes))


def open_input_data(given: ImageInput) -> DataSource:
    """Open the images of a plan.

    Raises:
        InputError: they cannot be read, or a model is named twice.
    """
    names = [model.description.name for model in (given.large, *given.savers)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two models are called {name}: give each its own name in its description"
            )
    if isinstance(given.data, DataSource):
        return given.data
    return open_data(given.data, group_column=given.group_column, labelled=given.labelled)
