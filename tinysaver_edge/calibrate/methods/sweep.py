"""The exact sweep: every threshold's accept rate and drop from one sort, and counts at some."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.certificate import Step
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One threshold and what it does on the samples it was measured on.

    Attributes:
        threshold: accept where score >= threshold.
        accepted: samples accepted.
        lost: net samples lost: those that only the large model gets right minus those that only
            the cascade does; negative where the cascade is the better one.
        samples: all samples.
    """

    threshold: float
    accepted: int
    lost: int
    samples: int

    @property
    def accept_rate(self) -> float:
        """Share of samples accepted, 0..1."""
        return self.accepted / self.samples

    @property
    def escalation_rate(self) -> float:
        """Share of samples escalated, 0..1."""
        return 1.0 - self.accept_rate

    @property
    def drop_points(self) -> float:
        """Accuracy lost against the large model alone, in points."""
        return 100.0 * self.lost / self.samples


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Every distinct threshold of one cascade, strict to loose.

    Attributes:
        thresholds: float64 (m,), strictly falling: the distinct scores.
        accepted: int64 (m,), samples accepted at each threshold, strictly rising to `samples`.
        lost: int64 (m,), net samples lost at each (see `OperatingPoint`).
        lost_without_accepting: the same when every sample is escalated; 0 without fusion.
        samples: number of samples.
    """

    thresholds: FloatArray
    accepted: IntArray
    lost: IntArray
    lost_without_accepting: int
    samples: int

    @property
    def accept_rates(self) -> FloatArray:
        """Share of samples accepted at each threshold, (m,)."""
        return self.accepted / self.samples

    @property
    def drop_points(self) -> FloatArray:
        """Accuracy lost at each threshold against the large model alone, in points, (m,)."""
        return 100.0 * self.lost.astype(np.float64) / self.samples

    def point(self, index: int) -> OperatingPoint:
        """The operating point at one of the thresholds."""
        return OperatingPoint(
            threshold=float(self.thresholds[index]),
            accepted=int(self.accepted[index]),
            lost=int(self.lost[index]),
            samples=self.samples,
        )

    def loosest_within(self, max_drop_points: float) -> OperatingPoint | None:
        """The loosest threshold whose drop on these samples is at most `max_drop_points`.

        This is `--method empirical`: it promises nothing about other samples.

        Returns:
            None where no threshold keeps the bound: nothing may be accepted.
        """
        allowed = self.lost <= lost_allowed(max_drop_points, samples=self.samples)
        if not allowed.any():
            return None
        return self.point(int(len(allowed) - 1 - allowed[::-1].argmax()))

    def best_accepting(self, min_accept_rate: float) -> OperatingPoint | None:
        """The most accurate threshold that accepts at least this share; the loosest of equals.

        Args:
            min_accept_rate: 0..1, one minus the highest escalation rate that a budget allows.

        Returns:
            None where even the loosest threshold accepts less (a rate above 1).
        """
        needed = math.ceil(min_accept_rate * self.samples - 1e-9)
        start = int(np.searchsorted(self.accepted, needed))
        if start == len(self.accepted):
            return None
        reachable = self.lost[start:]
        last_best = len(reachable) - 1 - int(reachable[::-1].argmin())
        return self.point(start + last_best)

    def at(self, threshold: float) -> OperatingPoint | None:
        """What any threshold does on these samples; None where it accepts nothing."""
        index = int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1
        if index < 0:
            return None
        point = self.point(index)
        return OperatingPoint(threshold, point.accepted, point.lost, point.samples)


@dataclass(frozen=True, slots=True, eq=False)
class SortedScores:
    """One saver's scores, sorted once and swept against any number of large models.

    Attributes:
        order: int64 (n,), sample indices by falling score.
        thresholds: float64 (m,), the distinct scores, falling.
        accepted: int64 (m,), samples whose score is at least the threshold.
    """

    order: IntArray
    thresholds: FloatArray
    accepted: IntArray

    @classmethod
    def of(cls, score: NDArray[Any]) -> SortedScores:
        """Sort a saver's scores.

        Args:
            score: (n,), n >= 1, no NaN.

        Raises:
            InputError: there is no sample, or a score is NaN.
        """
        values = np.asarray(score, dtype=np.float64)
        if values.ndim != 1 or len(values) == 0:
            raise InputError(f"scores have shape {values.shape}: give one number a sample")
        if np.isnan(values).any():
            bad = int(np.isnan(values).argmax())
            raise InputError(f"score of sample {bad} is NaN: check the saver's outputs")
        # Which of two equal scores comes first changes nothing, so the quicker unstable sort does.
        order = np.argsort(values)[::-1].copy()
        falling = values[order]
        # The last sample of each run of equal scores: they are accepted together.
        ends = np.flatnonzero(falling[1:] != falling[:-1])
        ends = np.append(ends, len(values) - 1)
        return cls(order=order, thresholds=falling[ends], accepted=ends + 1)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.order)

    def accepted_at(self, thresholds: FloatArray) -> IntArray:
        """How many samples each of any thresholds accepts, (k,) -> (k,)."""
        index = np.searchsorted(-self.thresholds, -np.asarray(thresholds), side="right")
        return np.concatenate(([0], self.accepted))[index]

    def sweep(
        self,
        *,
        saver_correct: BoolArray,
        large_correct: BoolArray,
        final_correct: BoolArray | None = None,
    ) -> Sweep:
        """Accept count and drop at every distinct threshold.

        Args:
            saver_correct: bool (n,), is the saver's answer right.
            large_correct: bool (n,), is the large model's.
            final_correct: bool (n,), is the answer given after an escalation: the fused one, or
                None for the large model's.

        Raises:
            InputError: the arrays are not all of one length.
        """
        final = large_correct if final_correct is None else final_correct
        for what, values in (("saver", saver_correct), ("large", large_correct), ("final", final)):
            if len(values) != self.samples:
                raise InputError(
                    f"{self.samples} scores but {len(values)} answers of the {what} model: "
                    "all must be of the same samples"
                )
        base = int(np.count_nonzero(large_correct)) - int(np.count_nonzero(final))
        # Accepting sample i instead of escalating it loses F_i - T_i of a sample.
        change = np.subtract(final, saver_correct, dtype=np.int8)
        lost = np.cumsum(change[self.order], dtype=np.int64)
        if len(self.accepted) < self.samples:
            lost = lost[self.accepted - 1]
        return Sweep(
            thresholds=self.thresholds,
            accepted=self.accepted,
            lost=lost + base,
            lost_without_accepting=base,
            samples=self.samples,
        )


def lost_allowed(max_drop_points: float, *, samples: int) -> int:
    """How many net samples a drop of `max_drop_points` is, rounded down.

    A bound that is a whole number of samples is kept as such: 0.5 points of 600 are 3 samples,
    although 0.005 * 600 is a little less in floating point.
    """
    return math.floor(max_drop_points / 100.0 * samples + 1e-9)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Which answers on n samples are right; the loss of each sample follows.

    Attributes:
        saver: bool (n,), the saver's answer is right.
        large: bool (n,), the large model's is.
        final: bool (n,), the answer given after an escalation is.
    """

    saver: BoolArray
    large: BoolArray
    final: BoolArray

    def subset(self, index: IntArray) -> Answers:
        """The answers on some of the samples."""
        return Answers(self.saver[index], self.large[index], self.final[index])


@dataclass(frozen=True, slots=True, eq=False)
class WalkCounts:
    """Counts at each of k thresholds.

    Attributes:
        thresholds: float64 (k,), strict to loose.
        accepted: int64 (k,), samples accepted.
        lost: int64 (k,), samples where only the large model is right (D = 1).
        gained: int64 (k,), samples where only the cascade is right (D = -1).
        samples: number of samples.
    """

    thresholds: FloatArray
    accepted: IntArray
    lost: IntArray
    gained: IntArray
    samples: int

    @classmethod
    def of(cls, scores: SortedScores, answers: Answers, thresholds: FloatArray) -> WalkCounts:
        """Count at any thresholds, two passes over the samples for all of them together."""
        accepted = scores.accepted_at(thresholds)
        saver, large, final = answers.saver, answers.large, answers.final
        return cls(
            thresholds=thresholds,
            accepted=accepted,
            lost=_count(scores, large & ~saver, large & ~final, accepted),
            gained=_count(scores, ~large & saver, ~large & final, accepted),
            samples=scores.samples,
        )

    def step(self, index: int, *, group_losses: tuple[tuple[float, int], ...] = ()) -> Step:
        """The counts at one threshold, with the groups' losses where there are groups."""
        return Step(
            threshold=float(self.thresholds[index]),
            accepted=int(self.accepted[index]),
            lost=int(self.lost[index]),
            gained=int(self.gained[index]),
            group_losses=group_losses,
        )


def group_losses(
    score: FloatArray, answers: Answers, groups: IntArray, thresholds: FloatArray
) -> Iterator[tuple[tuple[float, int], ...]]:
    """Each threshold's mean losses of the groups, as distinct losses and how often each occurs.

    Args:
        score: float64 (n,).
        answers: who is right on the n samples.
        groups: int64 (n,), each sample's group, numbered from 0 without a gap.
        thresholds: float64 (k,), strict to loose.
    """
    sizes = np.bincount(groups)
    escalated = answers.large.astype(np.int64) - answers.final
    change = answers.final.astype(np.int64) - answers.saver
    total = np.bincount(groups, weights=escalated)
    # Sample i is first accepted at threshold number `entering[i]`.
    entering = np.searchsorted(-thresholds, -score, side="left")
    order = np.argsort(entering, kind="stable")
    bounds = np.searchsorted(entering[order], np.arange(len(thresholds) + 1))
    for index in range(len(thresholds)):
        new = order[bounds[index] : bounds[index + 1]]
        total += np.bincount(groups[new], weights=change[new], minlength=len(sizes))
        losses, counts = np.unique(total / sizes, return_counts=True)
        yield tuple(zip(losses.tolist(), counts.tolist(), strict=True))


def _count(
    scores: SortedScores, if_accepted: BoolArray, if_escalated: BoolArray, accepted: IntArray
) -> IntArray:
    """Samples with the event, when the first `accepted` by score are accepted."""
    change = np.subtract(if_accepted, if_escalated, dtype=np.int8)
    summed = np.concatenate(([0], np.cumsum(change[scores.order], dtype=np.int64)))
    return summed[accepted] + int(np.count_nonzero(if_escalated))
