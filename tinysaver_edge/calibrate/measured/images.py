"""Images: measure a plan's models on its images, one after the other, and put them together.

Everything that can be found wrong without running a model over the images is found first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.progress import Progress
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.bundle import measure_look
from tinysaver_edge.bench.engine_choice import (
    CandidateAnswer,
    ChoiceCache,
    TryStep,
    choose_engine,
    in_way,
)
from tinysaver_edge.calibrate.calibration import CodecCost
from tinysaver_edge.calibrate.measured.independence import (
    Independence,
    check_epochs,
    check_independence,
    shared_with,
    test_of,
)
from tinysaver_edge.calibrate.measured.latencies import check_reports, timed_by_reports
from tinysaver_edge.calibrate.measured.measuring import (
    MeasuringRun,
    Shortlist,
    measure_all,
    measure_on_pixels,
)
from tinysaver_edge.calibrate.measured.timing import (
    EFFORT,
    LOOKS,
    LargeTiming,
    PairTimingStep,
    TimingPlace,
    TimingStep,
    time_in_turns,
)
from tinysaver_edge.calibrate.measured.worker import (
    LocalWorkers,
    PrepareStep,
    WorkerLostError,
    Workers,
    run_step,
)
from tinysaver_edge.calibrate.plan import ImageInput, ModelFile
from tinysaver_edge.calibrate.problem import (
    MeasuredProblem,
    Problem,
    check_models,
    join_records,
)
from tinysaver_edge.calibrate.targets import Method
from tinysaver_edge.cascade import Clock
from tinysaver_edge.certificate.certificate import WalkStep, least_certifiable_points
from tinysaver_edge.certificate.p_values import EvidenceKind
from tinysaver_edge.codec import Jpeg, check_carries
from tinysaver_edge.data.epochs import EpochData, open_epochs
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.looks import Looks, read_looks, seen_from_text
from tinysaver_edge.data.source import DataSource, class_indices
from tinysaver_edge.deciding.epochs import EpochTimeline
from tinysaver_edge.engines.registry import AUTO
from tinysaver_edge.errors import DataError, EngineError, InputError
from tinysaver_edge.outputs import IntArray
from tinysaver_edge.preprocess import Preprocessor
from tinysaver_edge.records.measure import check_skipped
from tinysaver_edge.records.timeline import read_timeline

if TYPE_CHECKING:
    from tinysaver_edge.fusion import Fusion


SENT = 64
"""Images, spread over the data, whose files' sizes are averaged."""


def codec_cost(
    problem: Problem, on_pixels: IntArray, codec: Jpeg, *, confidence: float
) -> CodecCost:
    """Compare the large model's answers with those that it gives on pixels.

    Args:
        problem: labelled samples with the large model's answers on what is sent.
        on_pixels: ``(n,)`` its answers on the same samples' pixels.
        codec: what lies between the two.
        confidence: of the bound, 0..1.
    """
    sent = problem.large.outputs.predictions == problem.labels
    pixels = np.equal(on_pixels, problem.labels)
    bound = None
    if problem.groups is None:
        bound = least_certifiable_points(
            WalkStep(0.0, 0, int((pixels & ~sent).sum()), int((sent & ~pixels).sum())),
            evidence=EvidenceKind.LABELS,
            samples=len(sent),
            risk=1 - confidence,
        )
    return CodecCost(codec, float(pixels.mean()), float(sent.mean()), bound, confidence)


def fastest(run: MeasuringRun, model: ModelFile, prepared: Artefact) -> Artefact:
    """Return a prepared model to be run in the fastest way that agrees with the others.

    What its description says of device and precision holds; see `choose_engine`.

    Raises:
        EngineError: it cannot be run in any.
        DataError: no image can be read.
    """

    def apart(step: TryStep, what: str) -> CandidateAnswer:
        isolate = run.given.isolate
        return run_step(step, progress=run.progress, what=what, isolate=isolate)

    said = model.description
    place = TimingPlace(run.data, run.fingerprint, run.folder, alone=run.given.isolate)
    chosen = choose_engine(
        prepared,
        run.ways(),
        place.frames(),
        device=said.device,
        precision=said.precision,
        run=apart,
        cache=ChoiceCache.default(),
    )
    for line in chosen.lines():
        run.progress.note(line)
    return in_way(prepared, chosen.choice)


def from_images(
    given: ImageInput,
    data: DataSource,
    *,
    folder: Path,
    shortlist: Shortlist,
    progress: Progress,
    fusion: Fusion | None = None,
    tell: Callable[..., bool] | None = None,
    clock: Clock = time.monotonic,
) -> MeasuredProblem:
    """Measure every model on the images, or take what is on record.

    Args:
        given: models and options.
        data: the images, open.
        folder: where records and prepared models lie.
        shortlist: tells which savers need no measuring.
        progress: hears of the work.
        fusion: what is likely to combine two models' answers, for timing them.
        tell: says that samples are too few for so many ``candidates``.
        clock: seconds, for the time budget.

    Raises:
        InputError: models, descriptions, images or labels do not fit each other.
        EngineError: a model cannot be run.
    """
    if given.bench:
        check_reports(given.bench)
    fingerprint = data.fingerprint()
    with closing(_workers(given)) as workers:
        run = MeasuringRun(given, data, folder, progress, clock, clock(), fingerprint, workers)
        with run.telling():
            return _measured(run, shortlist, fusion, tell)


def _workers(given: ImageInput) -> Workers:
    """Return who runs the models: this machine, or the nodes of a cluster."""
    if given.on is None:
        return LocalWorkers(given.isolate)
    from tinysaver_edge.calibrate.measured.ray_workers import RayWorkers

    return RayWorkers.joined(given.on)


def _measured(
    run: MeasuringRun,
    shortlist: Shortlist,
    fusion: Fusion | None,
    tell: Callable[..., bool] | None,
) -> MeasuredProblem:
    """Prepare, look, measure and time, in this order."""
    given, data = run.given, run.data
    large, savers = _prepare(run)
    labels, names = _labels(large, savers, data, labelled=given.labelled)
    looks, known = _look(run, shortlist.targets.method)
    timeline, content = _timeline(run)
    content = content if looks is None else looks.content
    if tell is not None and content is not None:
        test = test_of(
            content,
            large=large.sha256,
            savers={one.sha256: one.name for one in savers},
            targets=shortlist.targets,
            drawn=(shortlist.holdout, shortlist.seed),
        )
        tell(candidates=shortlist.candidates + len(shared_with(test, run.folder)))
    records = measure_all(run, large, savers, labels, shortlist)
    if any((one.engine or one.description.engine) is None for one in (given.large, *given.savers)):
        run.progress.note(
            "engines that nobody names are the default; --engine auto measures which is best"
        )
    costs = {one.name: one.macs for one in (large, *savers) if one.macs is not None}
    if not given.labelled:
        labels = records[0].outputs.predictions
    problem, kept = join_records(records, costs, labels, data.groups, timeline)
    skipped = _skipped(data, kept)
    problem, kept, fitted = without_fitted(problem, kept, given, looks)
    cost = _codec_cost(run, problem, large, kept, confidence=shortlist.targets.confidence)
    timed_by: tuple[str, ...] = ()
    if given.bench:
        prepared = {one.name: one for one in savers}
        problem, said = timed_by_reports(run, problem, large, prepared)
        timed_by = (said,)
    elif given.times_here:
        problem = _timed(run, problem, large, {one.name: one for one in savers}, fusion)
    elif given.on is not None:
        timed_by = (
            "nothing was timed: others work on a cluster's nodes as well; what a frame takes is "
            "told by bench on the device, whose report --bench takes",
        )
    if shortlist.targets.budgets.uplink_kbit is not None:
        sent = sent_bytes(data, large)
        problem = replace(problem, large=replace(problem.large, sent_bytes=sent))
    return MeasuredProblem(
        problem=problem,
        sample_index=kept,
        artefacts={one.name: one for one in (large, *savers)},
        label_names=names,
        lost=run.lost,
        codec_cost=cost,
        warnings=(
            *known.warnings,
            *skipped,
            *fitted,
            *timed_by,
            *(f"{name}: {why}" for name, why in run.lost.items()),
        ),
        stated=(known.stated,) if known.stated else (),
        cut=known.cut,
        content=content,
    )


def _look(run: MeasuringRun, method: Method) -> tuple[Looks | None, Independence]:
    """Look at the images before any model does, and say how many cannot be read at all."""
    if isinstance(run.data, EpochData):
        timeline, content = _timeline(run)
        assert timeline is not None
        assert content is not None
        return None, check_epochs(run.data, timeline, content, stated=run.given.independent)
    if run.data.independent:
        return None, Independence()
    looks = read_looks(
        run.data,
        folder=run.folder,
        fingerprint=run.fingerprint,
        progress=run.progress,
        do=run.workers.run if run.workers.shared else None,
    )
    unreadable = [int(place) for place in np.flatnonzero(~looks.readable)]
    check_skipped(unreadable, run.data, run.given.skip_limit)
    stated = run.given.independent
    return looks, check_independence(run.data, looks, method=method, stated=stated)


def _timeline(run: MeasuringRun) -> tuple[EpochTimeline | None, NDArray[np.uint64] | None]:
    """Return when an epoch's frames were taken and what they look like; None for other images."""
    if not isinstance(run.data, EpochData):
        return None, None
    return read_timeline(
        run.data, folder=run.folder, fingerprint=run.fingerprint, progress=run.progress
    )


def _prepare(run: MeasuringRun) -> tuple[Artefact, list[Artefact]]:
    """Prepare every model and check that they can make a cascade."""
    large = replace(_prepare_one(run, run.given.large), codec=run.given.large_codec)
    if large.codec is not None:
        check_carries(large.preprocess, model=large.name)
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
        raise WorkerLostError("no saver could be prepared: " + run.reasons)
    check_models(
        (large.name, large.macs or 0.0, large.classes),
        [(one.name, one.macs or 0.0, one.classes) for one in savers],
    )
    return large, savers


def _prepare_one(run: MeasuringRun, model: ModelFile) -> Artefact:
    step = PrepareStep(model, run.folder / "models", run.given.embed)
    prepared = step.known() or run_step(
        step,
        progress=run.progress,
        what=f"preparing {model.path.name}",
        isolate=run.given.isolate,
    )
    asked = model.engine or model.description.engine
    return fastest(run, model, prepared) if asked == AUTO else prepared


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


def _codec_cost(
    run: MeasuringRun,
    problem: Problem,
    large: Artefact,
    kept: NDArray[np.int64],
    *,
    confidence: float,
) -> CodecCost | None:
    """Return what its codec costs the large model, where it has one and there are labels."""
    if large.codec is None or not run.given.labelled:
        return None
    record = measure_on_pixels(run, large)
    if record is None:
        return None
    on_pixels = record.outputs.predictions[kept]
    return codec_cost(problem, on_pixels, large.codec, confidence=confidence)


def sent_bytes(data: DataSource, large: Artefact) -> float:
    """Return the mean size of what is sent of a frame to the large model, over some of the images.

    Raises:
        DataError: no image can be read.
    """
    preprocess = large.preprocess
    if large.codec is None:
        size = np.dtype(preprocess.format.dtype).itemsize * math.prod(preprocess.shape(1))
        return float(size)
    sizes, convert = [], Preprocessor(preprocess)
    for index in np.linspace(0, len(data) - 1, min(SENT, len(data))).astype(int):
        frame = data.frame(int(index))
        if frame is not None:
            sizes.append(len(large.codec.encode(convert.batch([frame]))[0]))
    if not sizes:
        raise DataError(f"data {data.path}: no image can be read")
    return float(np.mean(sizes))


def _timed(
    run: MeasuringRun,
    problem: Problem,
    large: Artefact,
    artefacts: Mapping[str, Artefact],
    fusion: Fusion | None,
) -> Problem:
    """Return the problem with what the large model and every saver with it take here."""
    place = TimingPlace(
        run.data, run.fingerprint, run.folder, alone=run.given.isolate, effort=EFFORT
    )
    steps: dict[str, TimingStep] = {large.name: LargeTiming(large, place)}
    for saver in problem.savers:
        steps[saver.name] = PairTimingStep(artefacts[saver.name], large, fusion, place)
    known = {} if run.given.retime else {name: one.known() for name, one in steps.items()}
    found = {name: one for name, one in known.items() if one is not None}

    def once(step: TimingStep, name: str) -> Any:  # noqa: ANN401
        what = f"timing {name}" + ("" if name == large.name else f" with {large.name}")
        return run_step(step, progress=run.progress, what=what, isolate=run.given.isolate)

    unknown = {name: step for name, step in steps.items() if name not in found}
    for name, came in time_in_turns(unknown, once):
        if not isinstance(came, EngineError):
            found[name] = came
        elif name == large.name:
            raise came
        else:
            run.lose(name, came)
    latency = found[large.name]
    savers = [
        replace(saver, with_large=found[saver.name])
        for saver in problem.savers
        if saver.name in found
    ]
    if not savers:
        raise WorkerLostError("no saver could be timed: " + run.reasons)
    look = measure_look(place.frames(), effort=LOOKS) if problem.timeline is not None else None
    large_timed = replace(problem.large, latency=latency)
    return replace(problem, large=large_timed, savers=tuple(savers), look=look)


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


def without_fitted(
    problem: Problem, kept: NDArray[np.int64], given: ImageInput, looks: Looks | None
) -> tuple[Problem, NDArray[np.int64], list[str]]:
    """Leave out the images that a model itself says it was fitted to.

    Returns:
        The same without them, and a line for each model.

    Raises:
        DataError: there are no others.
    """
    said: list[str] = []
    if looks is None:
        return problem, kept, said
    content = looks.content[kept]
    others = np.ones(len(content), bool)
    for model in (given.large, *given.savers):
        places = seen_from_text(model.description.fitted_on).places(content)
        if len(places):
            others[places] = False
            said.append(
                f"{len(places)} images are left out: {model.description.name} was quantised on them"
            )
    if not others.any():
        raise DataError(f"data {given.data}: the models were quantised on every image: give others")
    index = np.flatnonzero(others)
    return (problem.subset(index) if said else problem), kept[index], said


def open_input_data(given: ImageInput) -> DataSource:
    """Open the images of a plan.

    Raises:
        InputError: they cannot be read, or a model is named twice.
    """
    models = (given.large, *given.savers)
    for place, model in enumerate(models):
        name = model.description.name
        same = [one for one in models[:place] if one.description.name == name]
        if any(one.path == model.path for one in same):
            raise InputError(f"model {model.path}: is named twice; name it once")
        if same:
            raise InputError(
                f"two models are called {name}: give each its own name in its description"
            )
    if isinstance(given.data, DataSource):
        return given.data
    if given.epochs:
        if not isinstance(given.data, Path):
            raise DataError(f"epochs {given.data}: must lie on this machine")
        return open_epochs(given.data, spans=given.spans)
    return open_data(given.data, group_column=given.group_column, labelled=given.labelled)
