"""The exact sweep: every threshold's accept rate and drop from one sort, and counts at some."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinysaver_edge.calibrate.methods.counts import SortedScores
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

    @classmethod
    def of(
        cls,
        scores: SortedScores,
        *,
        saver_correct: BoolArray,
        large_correct: BoolArray,
        final_correct: BoolArray | None = None,
    ) -> Sweep:
        """Accept count and drop at every distinct threshold.

        Args:
            scores: the saver's.
            saver_correct: bool (n,), is the saver's answer right.
            large_correct: bool (n,), is the large model's.
            final_correct: bool (n,), is the answer given after an escalation: the fused one, or
                None for the large model's.

        Raises:
            InputError: the arrays are not all of one length.
        """
        final = large_correct if final_correct is None else final_correct
        for what, values in (("saver", saver_correct), ("large", large_correct), ("final", final)):
            if len(values) != scores.samples:
                raise InputError(
                    f"{scores.samples} scores but {len(values)} answers of the {what} model: "
                    "all must be of the same samples"
                )
        base = int(np.count_nonzero(large_correct)) - int(np.count_nonzero(final))
        # Accepting sample i instead of escalating it loses F_i - T_i of a sample.
        change = np.subtract(final, saver_correct, dtype=np.int8)
        lost = np.cumsum(change[scores.order], dtype=np.int64)
        if len(scores.accepted) < scores.samples:
            lost = lost[scores.accepted - 1]
        return cls(
            thresholds=scores.thresholds,
            accepted=scores.accepted,
            lost=lost + base,
            lost_without_accepting=base,
            samples=scores.samples,
        )

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

    def at(self, threshold: float) -> OperatingPoint | None:
        """What any threshold does on these samples; None where it accepts nothing."""
        index = int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1
        if index < 0:
            return None
        point = self.point(index)
        return OperatingPoint(threshold, point.accepted, point.lost, point.samples)


def lost_allowed(max_drop_points: float, *, samples: int) -> int:
    """How many net samples a drop of `max_drop_points` is, rounded down.

    A bound that is a whole number of samples is kept as such: 0.5 points of 600 are 3 samples,
    although 0.005 * 600 is a little less in floating point.
    """
    return math.floor(max_drop_points / 100.0 * samples + 1e-9)
