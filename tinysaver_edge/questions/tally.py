"""Counts that people's answers move: of a walk, and of how often they repeat themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinysaver_edge.certificate.certificate import WalkStep, runs_of
from tinysaver_edge.certificate.p_values import (
    EvidenceKind,
    count_p_values,
    group_p_values,
    rate_interval,
)
from tinysaver_edge.certificate.p_values import walk as last_passed
from tinysaver_edge.outputs import FloatArray, IntArray
from tinysaver_edge.questions.known import UNKNOWN

MOST_DROP = 100_000
"""In thousandths of a point: everything is lost."""

AT_A_TIME = 64
"""Thresholds over groups that are tested together, which costs little more than one."""

CONFIDENCE = 0.9
"""Of the interval of how often repeats agree."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often people gave the same answer when they were asked for a second time.

    Attributes:
        of: how often two answers were there to compare; "can't tell" is none.
    """

    agreed: int = 0
    of: int = 0

    @property
    def interval(self) -> tuple[float, float] | None:
        """Within what the rate of agreement lies with confidence 0.9; None without repeats."""
        if not self.of:
            return None
        return rate_interval(self.agreed, self.of, risk=1 - CONFIDENCE)

    @property
    def errs(self) -> tuple[float, float] | None:
        """Within what the rate of wrong answers lies with confidence 0.9; None without repeats.

        Of two askings that err by themselves, each at rate e, between 2e - 2e² and 2e - e² differ,
        as two wrong answers are the same or not. An error that somebody makes each time is not
        seen. At most 1: half of the answers wrong, or more, is not told from all.
        """
        if self.interval is None:
            return None
        differs = 1 - self.interval[1], 1 - self.interval[0]
        high = 1.0 if differs[1] >= 0.5 else (1 - math.sqrt(1 - 2 * differs[1])) / 2
        return 1 - math.sqrt(1 - differs[0]), high

    def __str__(self) -> str:
        if self.interval is None or self.errs is None:
            return "no question was asked twice"
        low, high = self.interval
        least, most = self.errs
        return (
            f"{self.agreed} of {self.of} repeats agreed ({100 * low:.0f} to {100 * high:.0f} % "
            f"with confidence {CONFIDENCE:g}; where people err at random, "
            f"{100 * least:.0f} to {100 * most:.0f} % of the answers are wrong)"
        )


@dataclass(frozen=True, slots=True)
class Shares:
    """Of the samples whose answers differ, how many are expected to be lost and gained, 0..1."""

    lost: float
    gained: float


KEPT = Shares(lost=0.5, gained=0.25)
"""Of accepted answers, as a plan expects it before anybody has answered: what the four pairs of
`benchmarks/bench_questions.py` have at their certified thresholds (0.40 to 0.58, 0.24 to 0.33)."""

FUSED = Shares(lost=0.27, gained=0.4)
"""Of fused answers, likewise (0.22 to 0.29, 0.37 to 0.43). A plan promises nothing by either."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Where along k thresholds the cascade's answer is another than the large model's.

    One row a sample and stage whose answer differs and is given somewhere on the walk; of frames of
    epochs, whose answers may come from others, a sample and stretch of the walk.

    Attributes:
        sample: int64 (r,), position among the walk's samples.
        first: int64 (r,), number of the first threshold at which the answer is given.
        end: int64 (r,), number of the first at which it no longer is.
        answer: int64 (r,), the class answered.
        large: int64 (r,), the large model's class.
        escalated: bool (r,), whether the answer is one given after the large model was asked.
        run: int64 (r,), of frames of epochs: which rows are one question, since they are of frames
            running and of the same two classes. None where each sample is asked about by itself.
    """

    sample: IntArray
    first: IntArray
    end: IntArray
    answer: IntArray
    large: IntArray
    escalated: NDArray[np.bool_]
    run: IntArray | None = None

    def __len__(self) -> int:
        return len(self.sample)

    def counts(self, weights: NDArray[np.bool_], thresholds: int) -> IntArray:
        """Count the rows that hold at each threshold, those of weight 0 left out, (k,)."""
        begun = np.bincount(self.first[weights], minlength=thresholds + 1)
        over = np.bincount(self.end[weights], minlength=thresholds + 1)
        counted: IntArray = np.cumsum(begun - over)[:thresholds]
        return counted

    def expected(self, thresholds: int) -> tuple[FloatArray, FloatArray]:
        """Return how many samples are expected to be lost and gained at each threshold, (k,)."""
        kept = self.counts(~self.escalated, thresholds)
        fused = self.counts(self.escalated, thresholds)
        return (
            KEPT.lost * kept + FUSED.lost * fused,
            KEPT.gained * kept + FUSED.gained * fused,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """What a certificate of one cascade is going to be computed from, whatever people answer.

    Attributes:
        thresholds: float64 (k,), strict to loose, fixed before these samples were seen.
        accepted: int64 (k,), samples that the large model is not asked about.
        costs: float64 (k,), MACs a frame, where the large model alone takes 1.
        pairs: where the answers differ.
        groups: int64 (n,), each sample's group from 0 without a gap, or None.
        max_drop_points: ε, in points; None where the threshold comes from a budget, and what can
            be signed there is asked for.
        share: δ of this one certificate.
    """

    thresholds: FloatArray
    accepted: IntArray
    costs: FloatArray
    pairs: Pairs
    samples: int
    evidence: EvidenceKind
    groups: IntArray | None
    max_drop_points: float | None
    share: float

    def p_values(self, lost: ArrayLike, gained: ArrayLike, drop: float) -> list[float]:
        """Return those of counts over samples that stand alone, for a bound in points."""
        found: list[float] = count_p_values(
            lost,
            gained,
            evidence=self.evidence,
            samples=self.samples,
            max_drop_points=drop,
            risk=self.share,
        ).tolist()
        return found


class WalkTally:
    """Counts of a walk with what is known, and at best and at worst with what is not.

    Every answer changes the counts of one sample only, so nothing is counted anew.
    """

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        pairs, count = walk.pairs, len(walk.thresholds)
        order = np.argsort(pairs.sample, kind="stable")
        samples, begins = np.unique(pairs.sample[order], return_index=True)
        ends = [*begins[1:].tolist(), len(order)][: len(samples)]  # none where nothing differs
        self._rows = {
            sample: order[begin:end].tolist()
            for sample, begin, end in zip(samples.tolist(), begins.tolist(), ends, strict=True)
        }
        # Nothing is known yet: at worst each differing answer is lost, at best it is gained.
        self._worst = np.ones(len(pairs), np.int8)
        self._best = np.full(len(pairs), -1, np.int8)
        differing = pairs.counts(np.ones(len(pairs), bool), count)
        nothing = np.zeros(count, np.int64)
        self._lost = np.stack([differing, nothing])  # at worst, at best
        self._gained = np.stack([nothing, differing])
        self._found: dict[str, Any] = {}  # until the next answer
        self._bounds: dict[int, int] = {}
        self._sums: list[NDArray[np.int32]] | None = None
        if walk.groups is not None:
            self._begin_groups(walk.groups)

    def _begin_groups(self, groups: IntArray) -> None:
        """Sum up each group's loss at each threshold, at worst and at best."""
        pairs, count = self.walk.pairs, len(self.walk.thresholds)
        self._sizes = np.bincount(groups)
        change = np.zeros((len(self._sizes), count + 1), np.int32)
        np.add.at(change, (groups[pairs.sample], pairs.first), 1)
        np.add.at(change, (groups[pairs.sample], pairs.end), -1)
        worst = np.cumsum(change, axis=1, dtype=np.int32)[:, :count]
        self._sums = [worst, -worst]

    def tell(
        self, sample: int, *, truth: int = UNKNOWN, neither: Sequence[frozenset[int]] = ()
    ) -> None:
        """Take in what is known of a sample, in place of what was.

        Args:
            sample: position among the walk's samples.
            truth: the true class, `UNKNOWN` where nobody has told.
            neither: pairs of classes that are both wrong.
        """
        self._found.clear()
        wrong = frozenset().union(*neither)
        for row in self._rows.get(sample, ()):
            answer, large = int(self.walk.pairs.answer[row]), int(self.walk.pairs.large[row])
            if truth != UNKNOWN:
                worst = best = int(large == truth) - int(answer == truth)
            else:
                worst = int(large not in wrong)
                best = -int(answer not in wrong)
            self._move(row, 0, self._worst, worst)
            self._move(row, 1, self._best, best)

    def _move(self, row: int, side: int, losses: NDArray[np.int8], loss: int) -> None:
        pairs = self.walk.pairs
        before = int(losses[row])
        if before == loss:
            return
        span = slice(int(pairs.first[row]), int(pairs.end[row]))
        self._lost[side, span] += (loss == 1) - (before == 1)
        self._gained[side, span] += (loss == -1) - (before == -1)
        if self._sums is not None and self.walk.groups is not None:
            self._sums[side][self.walk.groups[pairs.sample[row]], span] += loss - before
        losses[row] = loss

    def reached(self) -> int | None:
        """Number of the loosest threshold certified now; None where there is none."""
        if self.walk.max_drop_points is None:
            return None
        if "reached" not in self._found:
            drop, count = self.walk.max_drop_points, len(self.walk.thresholds)
            self._found["reached"] = self._reached(0, drop, count)
        found: int | None = self._found["reached"]
        return found

    def over(self) -> bool:
        """Whether no answer can bring the walk any further."""
        if self.walk.max_drop_points is None:
            return False
        last = self.reached()
        failed = 0 if last is None else last + 1
        if failed == len(self.walk.thresholds):
            return True
        if "over" not in self._found:
            p = self._p_value(1, failed, self.walk.max_drop_points)
            self._found["over"] = p > self.walk.share
        return bool(self._found["over"])

    def bound_points(self, place: int) -> float:
        """The least drop at which the walk reaches a threshold now, in points to three digits.

        100 where it does at none.
        """

        def passes(thousandths: int) -> bool:
            return self._reached(0, thousandths / 1000, place + 1) == place

        # Answers move it by little: from where it was last, look further and further away.
        before = self._bounds.get(place, MOST_DROP)
        low, high, step = 0, MOST_DROP, 16
        if before < MOST_DROP and not passes(before):
            low = before
        else:
            high = before
            while high - step > low and passes(high - step):
                high, step = high - step, 4 * step
            low = max(low, high - step)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if passes(middle) else (middle, high)
        self._bounds[place] = high
        return high / 1000

    def _reached(self, side: int, drop: float, count: int) -> int | None:
        if self.walk.groups is None:
            return last_passed(self._p_values(side, slice(0, count), drop), risk=self.walk.share)
        for begin in range(0, count, AT_A_TIME):
            end = min(begin + AT_A_TIME, count)
            p_values = self._p_values(side, slice(begin, end), drop)
            last = last_passed(p_values, risk=self.walk.share)
            if last != end - begin - 1:
                failed = begin + (0 if last is None else last + 1)
                return failed - 1 if failed else None
        return count - 1

    def _p_value(self, side: int, place: int, drop: float) -> float:
        return self._p_values(side, slice(place, place + 1), drop)[0]

    def _p_values(self, side: int, places: slice, drop: float) -> list[float]:
        walk = self.walk
        if walk.groups is None:
            return walk.p_values(self._lost[side, places], self._gained[side, places], drop)
        assert self._sums is not None
        means = (self._sums[side][:, places] / self._sizes[:, None]).T
        grouped: list[float] = group_p_values(means, epsilon=drop / 100, risk=walk.share).tolist()
        return grouped

    def step(self, place: int) -> WalkStep:
        """The counts at one threshold, what is not known at its worst."""
        return self._step(0, place)

    def _step(self, side: int, place: int) -> WalkStep:
        losses: tuple[tuple[float, int], ...] = ()
        if self._sums is not None:
            means = self._sums[side][:, place] / self._sizes
            losses = runs_of(means)
        return WalkStep(
            threshold=float(self.walk.thresholds[place]),
            accepted=int(self.walk.accepted[place]),
            lost=int(self._lost[side, place]),
            gained=int(self._gained[side, place]),
            group_losses=losses,
        )
