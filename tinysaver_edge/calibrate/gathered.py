"""From a plan to all models' answers on the same samples, whatever they come from."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import lock
from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.calibrate.chosen.golden import keep_golden
from tinysaver_edge.calibrate.measured.given_records import (
    check_copies,
    from_measured,
    from_records,
    golden_folder,
    measured_path,
    read_measured,
    write_measured,
)
from tinysaver_edge.calibrate.measured.images import from_images, open_input_data, sent_bytes
from tinysaver_edge.calibrate.measured.independence import too_few
from tinysaver_edge.calibrate.measured.latencies import (
    energy_of_profile,
    for_device,
    is_this_machine,
)
from tinysaver_edge.calibrate.measured.measuring import Shortlist
from tinysaver_edge.calibrate.methods.certify import default_fusion
from tinysaver_edge.calibrate.methods.search import check_asked
from tinysaver_edge.calibrate.plan import CutEpochs, ImageInput, Plan, beside
from tinysaver_edge.calibrate.problem import MeasuredProblem
from tinysaver_edge.calibrate.targets import ALL, Method, Objective, Reference, Targets
from tinysaver_edge.collect.draw import Draw
from tinysaver_edge.collect.recordings import Recording, collect_recorded, recordings_of
from tinysaver_edge.collect.store import Store
from tinysaver_edge.data.collection import CollectionFile, CollectionState, length_of
from tinysaver_edge.data.images import check_left_out
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion import ConditionalLogit, Fusion, get_fusion
from tinysaver_edge.hardware.cpu import read_cpu
from tinysaver_edge.models.labels import read_labels

_ALL_OF_THEM = Targets(max_drop_points=None, objective=Objective.ACCURACY)
"""Asked so, no saver is left out for what another costs."""


def check_plan(plan: Plan) -> None:
    """Refuse what cannot be had whatever the images are, before any of them is looked at.

    Raises:
        InputError: no calibration can do what is asked.
    """
    check_asked(plan.targets)
    given, targets = plan.input, plan.targets
    if not isinstance(given, ImageInput) or given.times_here or given.bench:
        return
    elsewhere = plan.device is not None and not is_this_machine(plan.device)
    times = targets.needs_latency and not elsewhere
    if times or targets.budgets.memory_mb is not None:
        if given.on is not None:
            raise InputError(
                f"--on {given.on} times nothing, since others work on a cluster's nodes as well: "
                f"for a limit of time or memory, or to choose by latency, name what bench measured "
                f"on the device with --bench"
            )
        raise InputError(
            "--no-timing leaves nothing to hold a limit of time or memory against, and no latency "
            "to choose by: leave it out, or name what bench measured on the device with --bench"
        )


def gather(
    plan: Plan, out: Path | None, stack: ExitStack, progress: Progress
) -> tuple[MeasuredProblem, DataSource | None]:
    """Measure every model on the images, or read the records.

    Args:
        plan: models and samples.
        out: of the bundle; the records lie beside it where nothing else is said.
        stack: closes the images, and lets go of the folder of records.
        progress: hears of the work.

    Returns:
        All models' answers, and the images, open; None for records.

    Raises:
        InputError: something cannot be read, or used.
        EngineError: a model cannot be run.
    """
    names = _class_names(plan)  # before hours of measuring
    gathered, data = _gathered(plan, out, stack, progress)
    return (gathered if names is None else _named(gathered, names, plan)), data


def _class_names(plan: Plan) -> tuple[str, ...] | None:
    if plan.class_names is None:
        return None
    if not plan.class_names.is_file():
        raise InputError(f"--class-names {plan.class_names}: there is no such file")
    return read_labels(str(plan.class_names.absolute()), (Path(),), source="--class-names")


def _named(gathered: MeasuredProblem, names: tuple[str, ...], plan: Plan) -> MeasuredProblem:
    """Return the problem with names for its classes."""
    if gathered.label_names not in (None, names):
        raise InputError(
            f"--class-names {plan.class_names}: the classes have names already "
            f"({', '.join(gathered.label_names[:3])}, …): leave it out"
        )
    large = gathered.problem.large
    models = (large, *gathered.problem.savers)
    artefact = gathered.artefacts.get(large.name)
    offset = 0 if artefact is None else artefact.output.class_offset
    if large.outputs.truncated:  # how many classes there are is not known, but which are named
        classes = 1 + max(int(one.outputs.predictions.max()) for one in models)
        fits = len(names) >= classes
    else:
        classes = large.outputs.width
        names = names[offset:] if len(names) == classes + offset else names
        fits = len(names) == classes
    if not fits:
        raise InputError(
            f"--class-names {plan.class_names}: {len(names)} names for {classes} classes: one line "
            "for each, in the order of the models' outputs"
        )
    return replace(gathered, label_names=names)


def _gathered(
    plan: Plan, out: Path | None, stack: ExitStack, progress: Progress
) -> tuple[MeasuredProblem, DataSource | None]:
    if not isinstance(plan.input, ImageInput):
        measured = read_measured(plan.input.records)
        if measured is not None:
            return from_measured(plan.input, measured), None
        gathered, looks = from_records(plan.input)
        known = check_copies(
            gathered.problem,
            where=str(plan.input.records),
            method=plan.targets.method,
            stated=plan.input.independent,
            numbered=gathered.sample_index,
            looks=looks,
        )
        gathered = replace(
            gathered,
            warnings=known.warnings,
            stated=(known.stated,) if known.stated else (),
        )
        _tell_if_too_few(
            plan,
            len(gathered.problem.labels),
            gathered.problem.groups,
            unit="samples" if gathered.problem.groups is None else "groups",
            candidates=len(gathered.problem.savers),
            progress=progress,
        )
        return gathered, None
    if plan.input.cut is not None:
        cut_epochs(plan.input.cut, seed=plan.seed, progress=progress)
    data = stack.enter_context(open_input_data(plan.input))
    candidates = len(plan.input.savers)
    unit = "epochs" if plan.input.epochs else "samples" if data.groups is None else "groups"
    tell = partial(_tell_if_too_few, plan, len(data), data.groups, unit=unit, progress=progress)
    told = tell(candidates=candidates)
    folder = records_folder(plan, out)
    if folder is None:
        raise InputError("nowhere to keep records: name a bundle (--out) or a folder (--work-dir)")
    shortlist = Shortlist(plan.targets, plan.holdout, plan.seed, candidates)
    fusion = _fusion(plan, samples=len(data))
    again = None if told else tell
    return _measured_here(plan.input, data, folder, stack, shortlist, fusion, progress, again), data


def _measured_here(
    given: ImageInput,
    data: DataSource,
    folder: Path,
    stack: ExitStack,
    shortlist: Shortlist,
    fusion: Fusion | None,
    progress: Progress,
    tell: Callable[..., bool] | None = None,
) -> MeasuredProblem:
    left_out = check_left_out(data.left_out, kept=len(data), limit=given.skip_limit, path=data.path)
    if (endings := data.endings) is not None:
        progress.note(f"images by their files' endings: {endings}")
    stack.enter_context(_alone(folder))
    gathered = from_images(
        given, data, folder=folder, shortlist=shortlist, progress=progress, fusion=fusion, tell=tell
    )
    cpu = read_cpu()
    return replace(
        gathered,
        warnings=(*left_out, *gathered.warnings),
        processor=None if cpu is None else cpu.family,
    )


def measure(given: ImageInput, *, out: Path, progress: Progress = SILENT) -> MeasuredProblem:
    """Measure all models here, for a calibration that is done later or on another machine.

    Args:
        given: models and images.
        out: folder for the records and all else that `calibrate` needs of this machine: the models
            as they were run, labels, timings, samples with their answers.
        progress: hears of the work.

    Raises:
        InputError: something given cannot be used; the message names it.
        EngineError: a model cannot be run.
    """
    if given.epochs:
        raise InputError("epochs are calibrated where they are measured: calibrate --epochs")
    with ExitStack() as stack:
        data = stack.enter_context(open_input_data(given))
        shortlist = Shortlist(_ALL_OF_THEM, 0.0, 0, len(given.savers))
        found = _measured_here(given, data, out, stack, shortlist, ConditionalLogit(), progress)
        large = found.problem.large
        sent = sent_bytes(data, found.artefacts[large.name])
        problem = replace(found.problem, large=replace(large, sent_bytes=sent))
        found = replace(found, problem=problem)
        if given.golden_frames:
            models = (found.problem.large, *found.problem.savers)
            golden = keep_golden(
                [found.artefacts[model.name] for model in models],
                data,
                pool=found.sample_index,
                seed=0,
                folder=golden_folder(out),
            )
            found = replace(found, golden=golden)
        write_measured(out, found, labelled=given.labelled)
        return found


def cut_epochs(cut: CutEpochs, *, seed: int, progress: Progress) -> None:
    """Cut recordings into epochs, unless that was done already.

    Raises:
        InputError: a recording cannot be read or tells no times, there is no room, or the folder
            holds epochs that were drawn otherwise.
    """
    draw = Draw(cut.count, seed, epoch_s=cut.epoch_s, epoch_fps=cut.fps)
    recordings, _ = recordings_of(cut.recordings)
    with Store(cut.folder, warn=progress.note, progress=progress) as store:
        if store.begun and store.file.state is CollectionState.FINISHED:
            _check_drawn(store.file, draw, recordings, folder=cut.folder)
            return

        def begun(file: CollectionFile) -> None:
            left = len(store.open_moments)
            progress.note(
                f"{store.drawn} epochs of {length_of(cut.epoch_s)} at random moments of "
                f"{length_of(file.period_s)}, drawn with seed {file.seed}"
            )
            progress.start("cutting epochs", total=store.drawn, done=store.drawn - left)

        try:
            collect_recorded(
                recordings,
                store,
                draw,
                wall=time.time,
                stop=threading.Event(),
                progress=progress,
                begun=begun,
            )
        finally:
            progress.finish()


def _check_drawn(
    file: CollectionFile, draw: Draw, recordings: Sequence[Recording], *, folder: Path
) -> None:
    there = [(one.name, one.size_bytes) for one in file.sources]
    same = there == [(one.name, one.size_bytes) for one in recordings]
    drawn = (file.drawn, file.seed, file.epoch_s, file.epoch_fps)
    if not same or drawn != (draw.count, draw.seed, draw.epoch_s, draw.epoch_fps):
        raise InputError(
            f"epochs {folder}: hold {file.drawn} epochs of {', '.join(n for n, _ in there)}, drawn "
            f"otherwise (seed {file.seed}, {file.epoch_s:g} s): name another --out, or delete them"
        )


def records_folder(plan: Plan, out: Path | None) -> Path | None:
    """Return where records are kept, and who looked at them; None where there is no such place."""
    given = plan.input
    if not isinstance(given, ImageInput):
        if measured_path(given.records).is_file():
            return given.records
        return None if out is None else default_records(out)
    if given.records is not None or out is not None:
        return given.records or (None if out is None else default_records(out))
    # Where no bundle is wanted, only a plan, they lie beside the images.
    if plan.outlook and isinstance(given.data, Path):
        return default_records(given.data)
    return None


def _tell_if_too_few(
    plan: Plan,
    samples: int,
    groups: NDArray[np.str_] | None,
    *,
    unit: str,
    candidates: int,
    progress: Progress,
) -> bool:
    """Say before any model runs that nothing can be certified; return whether that is so."""
    units = samples if groups is None else len(np.unique(groups))
    units = round((1 - plan.holdout) * units)
    said = too_few(plan.targets, units=units, candidates=candidates, unit=unit)
    if said is not None:
        progress.note(said)
    return said is not None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a folder of records to one calibration; whoever holds it may die without a trace.

    One that is made here and to which nothing came is taken away again.

    Raises:
        InputError: another one is under way there, or nothing can be written.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.fdopen(os.open(folder / ".lock", os.O_RDWR | os.O_CREAT), "rb")
    except OSError as error:
        raise InputError(f"records {folder}: cannot be written ({error.strerror})") from error
    with held:
        lock(
            held.fileno(),
            f"records {folder}: another calibration writes there: wait for it, or name another "
            "--out and --work-dir",
        )
        try:
            yield
        finally:
            with suppress(OSError):
                if new and [one.name for one in folder.iterdir()] == [".lock"]:
                    (folder / ".lock").unlink()
                    folder.rmdir()


def _fusion(plan: Plan, *, samples: int) -> Fusion | None:
    """Return what is going to combine two models' answers, as far as that is known beforehand."""
    targets = plan.targets
    if targets.fusion == ALL:
        return ConditionalLogit()
    if targets.fusion is not None:
        fusion = get_fusion(targets.fusion)
    elif targets.method is Method.CERTIFIED:
        drop = targets.allowed_drop_points
        fusion = default_fusion(
            units=round((1 - plan.holdout) * samples),
            max_drop_points=100.0 if drop is None else drop,
            labelled=targets.reference is Reference.LABELS,
        )
    else:
        return None
    return fusion if fusion.changes_answers else None


def loosened(plan: Plan) -> list[str]:
    """Say which of the device's own limits a looser one was asked in place of."""
    if plan.device is None:
        return []
    asked = plan.targets.budgets
    return [
        f"budget {name}={getattr(asked, name):.4g} is looser than the {limit:.4g} of device "
        f"{plan.device.name}: the budget holds"
        for name, limit in plan.device.budgets.items()
        if getattr(asked, name) > limit
    ]


def on_device(gathered: MeasuredProblem, plan: Plan) -> MeasuredProblem:
    """Take the published figures of the device that is asked for, where nothing was measured."""
    if plan.device is None:
        return gathered
    problem, warnings = gathered.problem, tuple[str, ...]()
    given, timed = plan.input, gathered.problem.large.latency is not None
    benched = given.bench if isinstance(given, ImageInput) else timed
    its_own = bool(benched or is_this_machine(plan.device))
    if not its_own:
        problem, told = for_device(problem, plan.device)
        warnings = tuple(told)
        if problem.timeline is not None and plan.targets.needs_latency:
            warnings += (
                f"what it takes {plan.device.name} to find a frame still is not known: such a "
                "frame counts as long as one that the first model answers",
            )
        its_own = problem is not gathered.problem or not timed
        problem = replace(problem, look=None)
    # Its power for as long as a frame takes another machine would be nobody's energy.
    if its_own and plan.targets.budgets.mean_energy_mj is not None:
        problem, told = energy_of_profile(problem, plan.device)
        warnings += tuple(told)
    return replace(gathered, problem=problem, warnings=(*gathered.warnings, *warnings))


def default_records(out: Path) -> Path:
    """Return the folder for records beside a bundle."""
    return beside(out, "records")
