"""Measuring: run the models over the images, most promising savers first, within a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.progress import Progress
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.engine_choice import candidates
from tinysaver_edge.calibrate.calibration import Candidate
from tinysaver_edge.calibrate.chosen.choose import choose
from tinysaver_edge.calibrate.measured.worker import OutOfTimeError, WorkerLostError, Workers
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.methods.search import search
from tinysaver_edge.calibrate.plan import ImageInput
from tinysaver_edge.calibrate.problem import Problem, join_records, split_holdout
from tinysaver_edge.calibrate.targets import Objective, Targets
from tinysaver_edge.cascade import Clock
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.errors import EngineError, InfeasibleError
from tinysaver_edge.hardware.profile import EngineChoice
from tinysaver_edge.outputs import all_but
from tinysaver_edge.records.measure import is_measured, measure
from tinysaver_edge.records.records import Record


@dataclass(frozen=True, slots=True)
class BestSoFar:
    """The best cascade measured so far.

    Attributes:
        cost: its MACs relative to the large model's.
    """

    saver: str
    cost: float


@dataclass(frozen=True, slots=True)
class Shortlist:
    """Orders savers by what they promise, and says of which measuring is in vain.

    Attributes:
        holdout: share of the samples that will be set aside; they are not looked at here either.
        candidates: how many savers share the risk.
    """

    targets: Targets
    holdout: float
    seed: int
    candidates: int

    def least_cost(self, saver: Artefact, large: Artefact, large_accuracy: float | None) -> float:
        """Return the least that a cascade with this saver could cost, by the large model's cost."""
        return _kappa(saver, large) + self._least_escalated(saver, large_accuracy)

    def cost(self, problem: Problem) -> BestSoFar | None:
        """Return what the best cascade of a problem costs, None where none keeps the limits.

        None as well where a limit is one of what is measured last: time, memory, energy, uplink.
        """
        budgets = self.targets.budgets
        last = (budgets.memory_mb, budgets.mean_energy_mj, budgets.uplink_kbit)
        if self.targets.aim is not Objective.MACS or budgets.needs_latency or any(last):
            return None
        kept, _ = split_holdout(
            len(problem.labels), fraction=self.holdout, seed=self.seed, groups=problem.groups
        )
        problem = problem.subset(kept)
        if self.targets.searches:
            # What is certified later must not depend on the samples that it will rest on.
            one = search(problem, self.targets, seed=self.seed).best
            return BestSoFar(one.saver, one.estimate)
        drawn = {"seed": self.seed, "candidates": self.candidates}
        try:
            choice = choose(problem, propose_all(problem, self.targets, **drawn), self.targets)
        except InfeasibleError:
            return None
        row = next(row for row in choice.candidates if row.chosen)
        return None if row.cost_macs_ratio is None else BestSoFar(row.saver, row.cost_macs_ratio)

    def why_not(
        self,
        saver: Artefact,
        large: Artefact,
        *,
        large_accuracy: float | None,
        best: BestSoFar | None,
    ) -> str | None:
        """Say why measuring a saver is in vain, or None where it is not."""
        limit = self.targets.budgets.mean_macs
        if limit is not None and saver.macs is not None and saver.macs > limit:
            return f"not measured: its own {saver.macs:.4g} MACs are over the budget of {limit:.4g}"
        least = self.least_cost(saver, large, large_accuracy)
        if best is None or least < best.cost:
            return None
        kappa, escalated = _kappa(saver, large), self._least_escalated(saver, large_accuracy)
        its = f"its own cost {kappa:.3f}"
        if escalated > 0:
            assert large_accuracy is not None
            its = (
                f"its own cost {kappa:.3f} and the {escalated:.3f} it must escalate at least, with "
                f"a published top-1 of {saver.published_top1:g} % where the large model has "
                f"{100 * large_accuracy:.2f} %, make {least:.3f}, which"
            )
        return (
            f"not measured: {its} is no less than the {best.cost:.3f} of a cascade with "
            f"{best.saver}"
        )

    def _least_escalated(self, saver: Artefact, large_accuracy: float | None) -> float:
        """Return what an oracle would escalate, taking the published accuracy at its word."""
        drop = self.targets.allowed_drop_points
        if (
            saver.published_top1 is None
            or large_accuracy is None
            or drop is None
            or self.targets.aim is not Objective.MACS
        ):
            return 0.0
        return max(0.0, large_accuracy - (saver.published_top1 + drop) / 100)


def _kappa(saver: Artefact, large: Artefact) -> float:
    if saver.macs is None or large.macs is None:
        return 0.0
    return saver.macs / large.macs


@dataclass(slots=True)
class MeasuringRun:
    """Models being run over images.

    Attributes:
        clock: seconds, for the time budget.
        started: what the clock said at the start.
        fingerprint: of the data.
        found: rows of the savers that have been measured so far.
    """

    given: ImageInput
    data: DataSource
    folder: Path
    progress: Progress
    clock: Clock
    started: float
    fingerprint: str
    workers: Workers
    lost: dict[str, str] = field(default_factory=dict)
    found: list[Candidate] = field(default_factory=list)
    _ways: tuple[EngineChoice, ...] | None = None

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Have an interruption carry what has been found by then, as a failure would."""
        try:
            yield
        except KeyboardInterrupt as interrupted:
            lost = [Candidate(saver=name, kappa=None, why=why) for name, why in self.lost.items()]
            interrupted.candidates = (*self.found, *lost)  # type: ignore[attr-defined]
            raise

    def ways(self) -> tuple[EngineChoice, ...]:
        """Return the ways to run a model that the device offers; this machine is asked once."""
        if self._ways is None:
            self._ways = candidates(self.given.profile)
        return self._ways

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
    def reasons(self) -> str:
        """Say why each saver was lost, each reason once."""
        named = {
            why: [name for name in self.lost if self.lost[name] == why]
            for why in self.lost.values()
        }
        return "; ".join(f"{', '.join(names)}: {why}" for why, names in named.items())

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


def measure_all(
    run: MeasuringRun,
    large: Artefact,
    savers: Sequence[Artefact],
    labels: NDArray[np.int64],
    shortlist: Shortlist,
) -> list[Record]:
    """Measure the large model, then the savers from the most promising on.

    Returns:
        The large model's record, then those of the savers that were measured, as they were named.

    Raises:
        EngineError: the large model cannot be run, or no saver is left.
        DataError: too many images cannot be read.
    """
    base = _measure_one(run, large, seconds=None)
    accuracy = _accuracy(base, labels) if run.given.labelled else None
    costs = {one.name: one.macs or 0.0 for one in (large, *savers)}
    found: dict[str, Record] = {}
    best: BestSoFar | None = None
    for saver in sorted(savers, key=lambda one: shortlist.least_cost(one, large, accuracy)):
        why = shortlist.why_not(saver, large, large_accuracy=accuracy, best=best)
        if why is not None and found:  # without any, nobody could say how far off the limits are
            run.leave_out(saver.name, why)
            continue
        record = _measure_saver(run, saver)
        if record is None:
            continue
        found[saver.name] = record
        right = _accuracy(record, labels) if run.given.labelled else None
        why = "measured; interrupted before anything was chosen"
        run.found.append(Candidate(saver.name, _kappa(saver, large), right, why=why))
        if run.given.labelled:
            problem, _ = join_records([base, record], costs, labels, run.data.groups)
            reached = [one for one in (best, shortlist.cost(problem)) if one is not None]
            best = min(reached, key=lambda one: one.cost, default=None)
    if not found:
        raise WorkerLostError("no saver could be measured: " + run.reasons)
    return [base, *(found[one.name] for one in savers if one.name in found)]


def measure_on_pixels(run: MeasuringRun, large: Artefact) -> Record | None:
    """Measure the large model without its codec; None where no time is left.

    Raises:
        EngineError: it cannot be run.
        DataError: too many images cannot be read.
    """
    left, on_pixels = run.seconds_left, replace(large, codec=None)
    try:
        if left is None or left > 0 or _is_done(run, on_pixels):
            return _measure_one(run, on_pixels, seconds=left)
    except OutOfTimeError:
        pass  # another run goes on from here
    run.progress.note(f"{large.name} was not measured on pixels: {run.spent}")
    return None


def _measure_saver(run: MeasuringRun, saver: Artefact) -> Record | None:
    """Measure a saver in what is left of the time; None where it is lost, with the reason kept."""
    left = run.seconds_left
    if left is not None and left <= 0 and not _is_done(run, saver):
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


def _is_done(run: MeasuringRun, artefact: Artefact) -> bool:
    """Whether there is a record already, so that no time is needed."""
    return is_measured(artefact, run.data, run.folder, fingerprint=run.fingerprint)


def _accuracy(record: Record, labels: NDArray[np.int64]) -> float:
    """Return the share of the readable images that a model gets right."""
    kept = all_but(record.skipped, len(labels))
    return float((record.outputs.predictions[kept] == labels[kept]).mean())


def _measure_one(run: MeasuringRun, artefact: Artefact, *, seconds: float | None) -> Record:
    return measure(
        artefact,
        run.data,
        run.folder,
        fingerprint=run.fingerprint,
        skip_limit=run.given.skip_limit,
        progress=run.progress,
        do=partial(run.workers.run, seconds=seconds),
    )
