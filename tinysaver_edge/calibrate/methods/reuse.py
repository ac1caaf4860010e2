"""Reuse on one path: threshold, `still` and `same` as a family of one parameter, by epochs.

The certificate walks it strict to loose as any other; what it counts at each step is what a gate
that is empty at each epoch's start would have done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.costs import CascadeCosts
from tinysaver_edge.calibrate.methods.counts import CertifiedTest, WalkCounts
from tinysaver_edge.certificate.certificate import WalkStep, runs_of
from tinysaver_edge.certificate.p_values import group_p_values
from tinysaver_edge.deciding.epochs import EpochTimeline, ReusedFrames, reused
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray, Outputs
from tinysaver_edge.questions.known import Known
from tinysaver_edge.questions.tally import Pairs
from tinysaver_edge.reuse import STEPS, ReuseRule

LOOSER_REUSE, LOOSER_SAVER = 30, 12
"""Steps on which mostly reuse becomes looser, and then those on which the threshold alone does."""

MOST_STILL, MOST_SAME = 8.0, 0.3
"""Where reuse ends, in grey levels and as a distance of probabilities."""

STRICT, THEN = 1 - 1e-9, 0.97
"""The threshold at first, and where reuse ends."""

CUT = 16.0
"""Grey levels by which two frames running differ where a scene is cut: a question asked about one
of them does not stand for the other."""


@dataclass(frozen=True, slots=True, eq=False)
class ReusePath:
    """Thresholds of the first stage, each with what stands with it.

    Reuse comes first and the saver second: where a scene rests, an answer of the large model that
    is repeated loses less than one of the saver's, and saves more. The constants were chosen on
    the scenes of `benchmarks/scenes.py`; a certificate holds whatever they are.

    Attributes:
        thresholds: float64 (k,), strictly falling.
        still: float64 (k,), in grey levels, rising.
        same: float64 (k,), rising.
    """

    thresholds: FloatArray
    still: FloatArray
    same: FloatArray

    @classmethod
    def fixed(
        cls,
        *,
        most_still: float = MOST_STILL,
        most_same: float = MOST_SAME,
        then: float = THEN,
    ) -> ReusePath:
        """Return the path: its constants come from no sample of the calibration.

        `benchmarks/bench_path.py` holds them against others, which nothing else asks for.
        """
        share = np.linspace(0, 1, LOOSER_REUSE)
        odds = np.linspace(1, 0, LOOSER_SAVER + 1)[1:]
        return cls(
            np.concatenate((STRICT + (then - STRICT) * share, then * odds)),
            most_still * np.concatenate((share, np.ones(LOOSER_SAVER))),
            most_same * np.concatenate((share, np.ones(LOOSER_SAVER))),
        )

    def rule(
        self, threshold: float, *, epoch_s: float, frames_per_s: float | None = None
    ) -> ReuseRule:
        """Return what stands with one of the thresholds.

        Raises:
            InputError: it is none of them.
        """
        place = int(np.argmin(np.abs(self.thresholds - threshold)))
        if self.thresholds[place] != threshold:
            raise InputError(f"threshold {threshold:g} is not on the path")
        return ReuseRule(
            round(float(self.still[place]), 4),
            round(float(self.same[place]), 5),
            epoch_s,
            frames_per_s=frames_per_s,
        )


@dataclass(frozen=True, slots=True, eq=False)
class StepOnEpochs:
    """What one step of the path does on every frame.

    Attributes:
        frames: which are reused, and from where.
        stage: int64 (n,), the stage that would settle each frame by itself.
        loss: int64 (n,), 1 where only the large model is right, -1 where only the answer given is.
    """

    frames: ReusedFrames
    stage: IntArray
    loss: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class EpochTest(CertifiedTest):
    """What a certificate over epochs is computed from.

    Attributes:
        timeline: the frames that the scores are of.
        saver: the first stage's outputs on them.
        known: what is known of their true classes.
        reuse: the path.
    """

    timeline: EpochTimeline
    saver: Outputs
    known: Known
    reuse: ReusePath
    _done: dict[float, StepOnEpochs] = field(default_factory=dict, init=False, repr=False)

    def at(self, threshold: float) -> StepOnEpochs:
        """Replay one step; what was replayed is kept."""
        done = self._done.get(threshold)
        if done is None:
            done = self._done[threshold] = self._replayed(threshold)
        return done

    def answers_at(self, threshold: float) -> IntArray:
        """Return the class that one step answers on every frame."""
        return self._answers(self.at(threshold))

    def open_at(self, threshold: float, known: Known) -> int:
        """Return how many questions, each about a run, bear on a step and have no answer."""
        answers = self.answers_at(threshold)
        frames = np.flatnonzero(known.open(answers, self.large))
        return len(np.unique(self._runs(frames, answers[frames])))

    def _answers(self, done: StepOnEpochs) -> IntArray:
        alone = self.given[done.stage, np.arange(self.samples)]
        # A repeated answer is held against what is to be seen now, not when it was found.
        answers: IntArray = alone[done.frames.of]
        return answers

    def pairs(self) -> Pairs:
        """Return where along the walk which answers differ from the large model's, and how.

        An answer may come, go and come again: each time is a row of its own.
        """
        nothing = -1
        shown = np.full(self.samples, nothing, np.int64)
        since = np.zeros(self.samples, np.int64)
        rows: list[tuple[IntArray, ...]] = []
        count = len(self.thresholds)
        for place in range(count + 1):
            now = np.full(self.samples, nothing, np.int64)
            if place < count:
                given = self.answers_at(float(self.thresholds[place]))
                now[given != self.large] = given[given != self.large]
            changed = now != shown
            over = np.flatnonzero(changed & (shown != nothing))
            rows.append((over, since[over], np.full(len(over), place), shown[over]))
            since[changed] = place
            shown = now
        sample, first, end, answer = (np.concatenate(one) for one in zip(*rows, strict=True))
        return Pairs(
            sample=sample,
            first=first,
            end=end,
            answer=answer,
            large=self.large[sample],
            escalated=self._last_on(sample, first),
            run=self._runs(sample, answer),
        )

    def _last_on(self, sample: IntArray, place: IntArray) -> BoolArray:
        """Return whether it is the last stage whose answer a frame is given at a step."""
        found = np.zeros(len(sample), bool)
        for one in np.unique(place).tolist():
            done, rows = self.at(float(self.thresholds[one])), place == one
            found[rows] = done.stage[done.frames.of[sample[rows]]] == len(self.scores)
        return found

    def _runs(self, sample: IntArray, answer: IntArray) -> IntArray:
        """Number the runs of frames on which the same two classes are to be told apart.

        A run ends with its epoch, and where the picture changes at once.
        """
        seen = self.timeline.thumbnails
        apart = np.abs(np.diff(seen, axis=0)).mean(axis=1, dtype=np.float64) / STEPS
        breaks = np.concatenate(([True], (apart > CUT) | (np.diff(self.timeline.numbers) != 0)))
        both = np.sort(np.stack([answer, self.large[sample]]), axis=0)
        order = np.lexsort((sample, both[1], both[0]))
        low, high, at = both[0][order], both[1][order], sample[order]
        step = np.diff(at, prepend=-2)
        begins = (np.diff(low, prepend=-1) != 0) | (np.diff(high, prepend=-1) != 0)
        begins |= (step != 0) & ((step != 1) | breaks[at])
        runs = np.empty(len(sample), np.int64)
        runs[order] = np.cumsum(begins) - 1
        return runs

    def _replayed(self, threshold: float) -> StepOnEpochs:
        rule = self.reuse.rule(threshold, epoch_s=self.timeline.epoch_s)
        stage = self.path.settles(self.scores, threshold)
        frames = reused(rule, self.timeline, self.saver, stage == 0)
        done = StepOnEpochs(frames, stage, np.zeros(0, np.int64))
        loss = self.known.losses(self._answers(done), self.large).astype(np.int64)
        return replace(done, loss=loss)

    def expected_to_pass(self, max_drop_points: float, *, epochs: int) -> int:
        """Return how many steps so many epochs like these are expected to certify.

        By a normal bound: for choosing what to look at, it promises nothing.
        """
        losses = np.stack([self._by_epoch(self.at(float(t)).loss) for t in self.thresholds])
        spread = losses.std(axis=1, ddof=1) / np.sqrt(epochs)
        high = losses.mean(axis=1) + NormalDist().inv_cdf(1 - self.share) * spread
        fails = np.flatnonzero(high > max_drop_points / 100)
        return int(fails[0]) if len(fails) else len(losses)

    def affordable(self, costs: CascadeCosts, limits: Mapping[str, float]) -> BoolArray:
        """Return which steps of the path keep every limit on whatever the epochs were drawn from.

        Frames of an epoch are not independent, so that no bound on a rate of frames holds: each
        limit is one on the mean of something within each epoch, and tested as the drop is, by
        epochs. From the loosest step on, in a fixed order, until one fails: so all of them keep
        the limits together, with the confidence.
        """
        worths = [costs.worth(name, limit) for name, limit in limits.items()]
        fits = np.ones(len(self.thresholds), bool)
        shares = np.stack([self._ways(float(one)) for one in self.thresholds])
        for worth, bound in worths:
            most = float(worth.max())
            if most > bound:
                spent = np.einsum("kwn,w->kn", shares, worth / most)
                p = group_p_values(spent, epsilon=bound / most, risk=self.share / len(worths))
                fits &= p <= self.share / len(worths)
        kept: BoolArray = np.logical_and.accumulate(fits[::-1])[::-1]
        return kept

    def upper_rates(self, thresholds: FloatArray) -> FloatArray:
        """Return upper bounds of the shares of frames that reach each stage, ``(stages, k)``.

        By epochs, each at its part of the risk, to a thousandth.
        """
        reached = np.stack([self._reached(float(one)) for one in thresholds])  # (k, stages, n)
        count, stages, epochs = reached.shape
        rows = reached.reshape(count * stages, epochs)
        risk = self.share / stages
        low, high = np.zeros(len(rows)), np.ones(len(rows))
        for _ in range(10):
            middle = (low + high) / 2
            passes = group_p_values(rows, epsilon=middle, risk=risk) <= risk
            low, high = np.where(passes, low, middle), np.where(passes, middle, high)
        bounds: FloatArray = high.reshape(count, stages).T
        return bounds

    def _reached(self, threshold: float) -> FloatArray:
        """Return each epoch's shares that reach each stage, in the order drawn, ``(stages, n)``."""
        done = self.at(threshold)
        asked = [done.frames.asked]
        asked += [done.frames.fresh & (done.stage >= at) for at in range(1, len(self.scores) + 1)]
        return np.stack([self._by_epoch(one) for one in asked])

    def _ways(self, threshold: float) -> FloatArray:
        """Return each epoch's shares that are still, or settled by each stage; as `_reached`."""
        reached = self._reached(threshold)
        edges = np.vstack([np.ones(reached.shape[1]), reached, np.zeros(reached.shape[1])])
        ways: FloatArray = -np.diff(edges, axis=0)
        return ways

    def _by_epoch(self, values: NDArray[Any]) -> FloatArray:
        """Return the mean of a value of each frame over each epoch, in the order drawn."""
        assert self.groups is not None
        means = np.empty(self.timeline.epochs)
        means[self.groups[self.timeline.starts]] = self.timeline.by_epoch(values)
        return means

    def counted(self, thresholds: FloatArray) -> WalkCounts:
        """Count at some thresholds of the path."""
        steps = [self.at(float(one)) for one in thresholds]
        stages = len(self.scores)
        reached = np.array(
            [
                [np.count_nonzero(one.frames.fresh & (one.stage >= place)) for one in steps]
                for place in range(1, stages + 1)
            ],
            dtype=np.int64,
        ).reshape(stages, len(steps))
        return WalkCounts(
            thresholds=np.asarray(thresholds),
            accepted=self.samples - reached[-1],
            lost=np.array([np.count_nonzero(one.loss == 1) for one in steps], np.int64),
            gained=np.array([np.count_nonzero(one.loss == -1) for one in steps], np.int64),
            samples=self.samples,
            reached=reached,
            asked=np.array([np.count_nonzero(one.frames.asked) for one in steps], np.int64),
        )

    def _walked(
        self, thresholds: FloatArray, max_drop_points: float
    ) -> tuple[list[WalkStep], list[float]]:
        return self._walked_lazily(self._steps(thresholds), max_drop_points)

    def _steps(self, thresholds: FloatArray) -> Iterator[WalkStep]:
        """Yield the steps, each replayed when it is asked for."""
        for threshold in thresholds.tolist():
            done = self.at(threshold)
            rule = self.reuse.rule(threshold, epoch_s=self.timeline.epoch_s)
            losses = self._by_epoch(done.loss)
            asked = done.frames.fresh & (done.stage == len(self.scores))
            yield WalkStep(
                threshold=threshold,
                accepted=self.samples - int(np.count_nonzero(asked)),
                lost=int(np.count_nonzero(done.loss == 1)),
                gained=int(np.count_nonzero(done.loss == -1)),
                group_losses=runs_of(losses),
                still=rule.still,
                same=rule.same,
            )
