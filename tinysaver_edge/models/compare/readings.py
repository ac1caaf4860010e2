"""Which reading of a model's file fits: labelled images are run through every plausible one.

A file seldom tells its scale, colour order, resize or background class, and a wrong one loses
accuracy in silence. Each reading differs from the description in one of them; scale and colour
order, which hide each other, are tried together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.data.source import DataSource, class_indices
from tinysaver_edge.engines.base import Engine, EngineOptions
from tinysaver_edge.engines.registry import create_engine, engine_name
from tinysaver_edge.errors import DataError, TinySaverError
from tinysaver_edge.models.compare.ways import Way, all_ways, resized
from tinysaver_edge.models.description.description import ModelDescription
from tinysaver_edge.preprocess import Batch, Frame, Layout, Preprocess, Preprocessor

Clock = Callable[[], float]
BoolArray = NDArray[np.bool_]

IMAGES = 300
"""Images that readings are tried on, at most."""

_LEAST_IMAGES = 100
_LEAST_BEFORE_GIVING_UP = 32
_SECONDS = 10.0
_MOST_IMAGES = 2000  # where a few readings lie close together
_CONTENDERS = 3
_FAR = 0.1  # of accuracy, by which another order of the classes explains more than a reading
_BATCH = 16
_CLEARLY = 3.5  # standard deviations of the paired difference: some 30 readings are compared
_WORTH = 0.02  # of accuracy, below which a difference is none to speak of


class Fit(str, Enum):
    """How a reading compares with the described one, clearly, by the images that they differ on."""

    DESCRIBED = "described"
    BETTER = "better"
    NOT_TOLD_APART = "not told apart"
    BEHIND = "behind the best"
    SAME = "the same pictures"
    WORSE = "worse"


_ORDER = {
    Fit.BETTER: 0,
    Fit.DESCRIBED: 1,
    Fit.NOT_TOLD_APART: 2,
    Fit.SAME: 3,
    Fit.BEHIND: 4,
    Fit.WORSE: 5,
}


@dataclass(frozen=True, slots=True)
class InputReading:
    """What one reading of the file got right.

    Attributes:
        what: in which it differs from the description.
        images: how many it was tried on: one that falls clearly behind is given up early.
        accuracy: share of these images whose best class is the true one, 0..1.
        difference: from the described reading's on the same images.
    """

    what: str
    images: int
    accuracy: float
    difference: float
    verdict: Fit


@dataclass(frozen=True, slots=True)
class Readings:
    """All readings that were tried, the best first.

    Attributes:
        images: how many images they were tried on.
        guessing: share that always naming the commonest class gets right, 0..1.
        another_order: accuracy of the best reading if its classes stood in another order than
            labels say, where that explains the answers; else None.
        suggested: of those that are clearly better, and about as good as the best, the one that
            differs in the least; None where none is better.
    """

    images: int
    classes: int
    guessing: float
    tried: tuple[InputReading, ...]
    another_order: float | None = None
    suggested: InputReading | None = None

    @property
    def described(self) -> InputReading:
        """The description's own."""
        return next(one for one in self.tried if one.verdict is Fit.DESCRIBED)

    @property
    def fits(self) -> bool:
        """Whether no other reading is clearly better, and the description's beats guessing."""
        return self.suggested is None and not self._guesses

    @property
    def _guesses(self) -> bool:
        """Whether the description's reading gets no more right than guessing would."""
        spread = math.sqrt(max(self.guessing * (1 - self.guessing), 1e-4) / self.images)
        return self.described.accuracy <= self.guessing + 3 * spread

    def sentence(self) -> str:
        """Say which reading fits."""
        own, better = self.described.accuracy, self.suggested
        said = f"{_percent(own)} right on {self.images} images"
        if self.another_order is not None and (
            better is None or better.accuracy < self.another_order - _FAR
        ):
            return (
                f"{said}, {_percent(self.another_order)} if its classes stood in another order: "
                "correct the labels in its description"
            )
        if better is not None:
            return (
                f"{said} as described, {_percent(better.accuracy)} with {better.what}: correct it"
            )
        if self._guesses:
            return (
                f"{said}, which guessing gets as well, and so does every other reading: are these "
                "the model's classes, in the model's order?"
            )
        others = [one for one in self.tried if one.verdict is Fit.NOT_TOLD_APART]
        if not others:
            return f"{said} as described; every other reading is worse"
        count = "another one" if len(others) == 1 else f"{len(others)} others"
        return f"{said} as described; these images do not tell it from {count}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "fits": self.fits}


def try_readings(
    description: ModelDescription,
    data: DataSource,
    *,
    threads: int | None = None,
    clock: Clock = time.monotonic,
) -> Readings:
    """Run labelled images through the plausible readings of a model's file.

    Args:
        description: the model; its scale, colour order, resize, layout and class offset are
            doubted, its size, type and kind of answer are not.
        data: labelled images, of which a few hundred are drawn.
        threads: processor threads; None leaves it to the engine.
        clock: seconds; a slow model is tried on fewer images.

    Raises:
        DataError: the labels are none of the model's, or no image can be read.
        EngineError: the model cannot be run.
    """
    trial = _Trial(description, data, threads, clock)
    trial.run([Way("", description.preprocess), *all_ways(description)])
    trial.run_off()
    found = trial.readings()
    if found.tried[0].verdict is Fit.BETTER:  # the resize may be wrong besides
        best = trial.way_of(found.tried[0].what)
        trial.run(list(resized(best, f"{best.what}, ")))
        found = trial.readings()
    return found


class _Trial:
    """Runs readings over the same images, each decoded once a run, and keeps what was right."""

    def __init__(
        self,
        description: ModelDescription,
        data: DataSource,
        threads: int | None,
        clock: Clock,
    ) -> None:
        self._description = description
        self._data = data
        self._threads = threads
        self._clock = clock
        drawn = np.random.default_rng(0).permutation(len(data))[:_MOST_IMAGES]
        self._places = [int(place) for place in drawn]
        self._runs: dict[str, _Run] = {}
        self._truth: dict[int, NDArray[np.int64]] = {}
        self._answers: dict[str, BoolArray] = {}

    def way_of(self, what: str) -> Way:
        """Return the way of a reading, whatever its class offset."""
        return self._runs[what.partition(" and class_offset")[0].partition("class_offset")[0]].way

    def run(self, ways: Sequence[Way]) -> None:
        """Run ways over the images; one that falls clearly behind the best is given up early."""
        runs = [_Run(way) for way in ways]
        self._runs |= {run.way.what: run for run in runs}
        self._go_on(runs, self._places[:IMAGES])
        if not self._runs[""].done:
            raise DataError(f"data {self._data.path}: none of the images can be read")

    def run_off(self) -> None:
        """Run the described way and those that seem better over more images, to tell them apart."""
        own = self._runs[""]
        ahead = [
            run
            for run in self._runs.values()
            if run.done == own.done and not run.same and run.best().sum() > own.best().sum()
        ]
        ahead.sort(key=lambda run: -int(run.best().sum()))
        if ahead and own.done >= _LEAST_IMAGES and not _is_clear(ahead[0], own):
            self._go_on([own, *ahead[:_CONTENDERS]], self._places[own.seen :])

    def _go_on(self, runs: list[_Run], places: Sequence[int]) -> None:
        started, least = self._clock(), runs[0].done + _LEAST_IMAGES
        layouts = {run.way.preprocess.format.layout: run.way.preprocess for run in runs}
        engines = {layout: self._open(one) for layout, one in layouts.items()}
        try:
            for start in range(0, len(places), _BATCH):
                found = [(at, self._data.frame(at)) for at in places[start : start + _BATCH]]
                frames = [frame for _, frame in found if frame is not None]
                runs = self._left(runs)
                if not runs:
                    return
                for run in runs:
                    run.seen += len(found)
                    if frames:
                        self._ask(
                            run, engines, frames, [at for at, one in found if one is not None]
                        )
                if runs[0].done >= least and self._clock() - started > _SECONDS:
                    return
        finally:
            for engine in engines.values():
                engine.close()

    def _left(self, runs: list[_Run]) -> list[_Run]:
        """Return the runs that are not clearly behind the best, and the described one always."""
        done = runs[0].done
        if done < _LEAST_BEFORE_GIVING_UP:
            return [run for run in runs if not run.same]
        rivals = [run for run in self._runs.values() if run.done >= done and not run.same]
        best = max((run.best()[:done] for run in rivals), key=lambda right: right.sum())
        for run in runs:
            run.given_up = (
                run.way.what != "" and not run.same and _verdict(run.best(), best) is Fit.WORSE
            )
        return [run for run in runs if not run.same and not run.given_up]

    def _ask(
        self,
        run: _Run,
        engines: Mapping[Layout, Engine],
        frames: Sequence[Frame],
        places: Sequence[int],
    ) -> None:
        batch = run.preprocessor.batch(frames)
        own = self._runs[""]
        if run is own:
            own.first = batch if own.first is None else own.first
        elif run.done == 0 and own.first is not None and np.array_equal(batch, own.first):
            run.same = True
            return
        answer = engines[run.way.preprocess.format.layout].infer(batch).copy()
        # What is no number counts as the least likely.
        self._count(run, np.where(np.isfinite(answer), answer, -np.inf), places)

    def _open(self, preprocess: Preprocess) -> Engine:
        """Open the model, answering with all its outputs."""
        said = self._description
        options = EngineOptions(device=said.device, threads=self._threads)
        if said.precision is not None:
            options = replace(options, precision=said.precision)
        return create_engine(
            engine_name(said.engine, said.file, device=said.device),
            said.file,
            preprocess=preprocess,
            output=replace(said.output, class_offset=0, class_order=None),
            options=options,
        )

    def _count(self, run: _Run, outputs: NDArray[np.float32], places: Sequence[int]) -> None:
        """Count what is right with the class offset described, and with the others."""
        own = self._description.output.class_offset
        for offset in {own, 0, 1}:
            if offset not in self._truth:
                try:
                    self._truth[offset] = self._labels(outputs.shape[1] - offset, offset)
                except TinySaverError:
                    if offset == own:
                        raise
                    continue
            best = outputs[:, offset:].argmax(axis=1)
            truth = self._truth[offset][list(places)]
            run.right.setdefault(offset, []).extend((best == truth).tolist())
            if offset == own:
                run.answered.extend(best.tolist())
                run.truth.extend(truth.tolist())

    def _labels(self, classes: int, offset: int) -> NDArray[np.int64]:
        output = replace(self._description.output, class_offset=offset)
        labels = replace(self._description, output=output).class_labels(classes)
        samples, path = self._data.samples, self._data.path
        return class_indices(samples, labels=labels, classes=classes, path=path)

    def readings(self) -> Readings:
        """Return all that was run, the best first."""
        own, described = self._description.output.class_offset, self._runs[""]
        truth = np.array(described.truth)
        found = [
            reading
            for run in self._runs.values()
            for offset in ([own] if run.same else run.right)
            if (reading := self._reading(run, offset)) is not None
        ]
        found.sort(key=lambda one: (_ORDER[one.verdict], -one.difference, len(one.what)))
        counts = np.bincount(truth)
        return Readings(
            images=len(truth),
            classes=int((counts > 0).sum()),
            guessing=float(counts.max() / len(truth)),
            tried=tuple(found),
            another_order=_another_order(np.array(described.answered), truth),
            suggested=self._suggested(found),
        )

    def _suggested(self, found: Sequence[InputReading]) -> InputReading | None:
        """Return the simplest of the better readings that the best is not clearly better than."""
        better = [one for one in found if one.verdict is Fit.BETTER]
        if not better:
            return None
        best = self._answers[better[0].what]
        close = [
            one
            for one in better
            if _verdict(*_both(self._answers[one.what], best)) is not Fit.WORSE
        ]
        return min(
            close, key=lambda one: (one.what.count(",") + one.what.count(" and "), -one.difference)
        )

    def _reading(self, run: _Run, offset: int) -> InputReading | None:
        """Return what one run found with one class offset; None where it is of no interest."""
        own, described = self._description.output.class_offset, self._runs[""]
        parts = [run.way.what] if run.way.what else []
        parts += [f"class_offset {offset}"] if offset != own else []
        what, right = " and ".join(parts), np.array(described.right[own])
        if run.same:
            return InputReading(what, len(right), float(right.mean()), 0.0, Fit.SAME)
        there = np.array(run.right[offset])
        if not parts:
            return InputReading("as described", len(there), float(there.mean()), 0.0, Fit.DESCRIBED)
        there, right = _both(there, right)
        self._answers[what] = there
        verdict = _verdict(there, right)
        if run.given_up and verdict is Fit.NOT_TOLD_APART:
            verdict = Fit.BEHIND
        if offset != own and run.way.what and verdict is not Fit.BETTER:
            return None
        difference = float(there.mean() - right.mean())
        return InputReading(what, len(there), float(there.mean()), difference, verdict)


class _Run:
    """What one way answered so far, image by image.

    Attributes:
        right: what was right, by class offset.
        seen: images that were looked at, those that cannot be read among them.
        first: the first batch of the described way.
        same: whether its pictures are those of the described way.
        given_up: whether it fell clearly behind the best.
    """

    def __init__(self, way: Way) -> None:
        self.way = way
        self.preprocessor = Preprocessor(way.preprocess)
        self.right: dict[int, list[bool]] = {}
        self.answered: list[int] = []
        self.truth: list[int] = []
        self.seen = 0
        self.first: Batch | None = None
        self.same = self.given_up = False

    @property
    def done(self) -> int:
        """Images that were answered."""
        return len(self.truth)

    def best(self) -> BoolArray:
        """Return what was right, with the class offset that got most right."""
        return np.array(max(self.right.values(), key=sum))


def _both(one: BoolArray, other: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Return two readings' answers on the images that both were tried on."""
    common = min(len(one), len(other))
    return one[:common], other[:common]


def _is_clear(run: _Run, own: _Run) -> bool:
    return _verdict(run.best(), own.best()) is Fit.BETTER


def _verdict(right: BoolArray, described: BoolArray) -> Fit:
    """Tell two readings apart by the images that only one of them gets right (McNemar)."""
    won, lost = int((right & ~described).sum()), int((described & ~right).sum())
    if abs(won - lost) < max(_WORTH * len(right), _CLEARLY * math.sqrt(won + lost)):
        return Fit.NOT_TOLD_APART
    return Fit.BETTER if won > lost else Fit.WORSE


def _another_order(best: NDArray[np.int64], truth: NDArray[np.int64]) -> float | None:
    """Return the accuracy with each answer read as the class it mostly goes with, if that tells.

    The reading is found on one half of the images and counted on the other.
    """
    half = len(truth) // 2
    classes = int(max(best.max(), truth.max())) + 1
    if len(truth) < 10 * len(np.unique(truth)):
        return None
    pairs = np.zeros((classes, classes), np.int64)
    np.add.at(pairs, (best[:half], truth[:half]), 1)
    read_as = pairs.argmax(axis=1)
    found = float((read_as[best[half:]] == truth[half:]).mean())
    own = float((best == truth).mean())
    return found if found > max(0.5, 2 * own) else None


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
