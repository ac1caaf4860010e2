"""The exact sweep, each threshold's accept rate and drop from one sort, and other ways to take one.

TinySaver's own rule is among them, for the table of methods.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tinysaver_edge.calibrate.methods.counts import SortedScores, WalkCounts
from tinysaver_edge.certificate.p_values import walk
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One threshold and what it does on the samples it was measured on.

    Attributes:
        threshold: accept where score >= threshold.
        lost: net samples lost: those that only the large model gets right minus those that only
            the cascade does; negative where the cascade is the better one.
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


STEPS = 1000


@dataclass(frozen=True, slots=True)
class TinySaverThreshold:
    """Where the paper's scan stops.

    Attributes:
        t: the paper's threshold, a multiple of 0.001; it accepts `confidence > t`.
        threshold: the next float up, so that `score >= threshold` accepts the same samples.
    """

    t: float
    threshold: float
    accepted: int
    samples: int

    @property
    def accept_rate(self) -> float:
        """Share of samples accepted, 0..1."""
        return self.accepted / self.samples


def tinysaver_threshold(
    confidences: FloatArray, *, saver_correct: BoolArray, large_correct: BoolArray
) -> TinySaverThreshold:
    """Scan t = 1.000, 0.999, ... 0.001 and stop at the first t where the saver is the worse one.

    That is: the first t whose accepted set {confidence > t} is not empty and on which the saver is
    less accurate than the large model. Where there is none the scan ends at 0.001, as the
    authors' code does (TinySaver, arXiv 2403.17726, and its `exit_estimation.py`). One pass over
    a histogram of the steps instead of a thousand masks.

    Args:
        confidences: (n,), the saver's highest softmax probability.
        saver_correct: bool (n,), is the saver right.
        large_correct: bool (n,), is the large model right.

    Raises:
        InputError: the arrays differ in length or are empty.
    """
    n = len(confidences)
    if n == 0 or len(saver_correct) != n or len(large_correct) != n:
        raise InputError(
            f"{n} confidences, {len(saver_correct)} saver and {len(large_correct)} large answers: "
            "give as many of each, at least one"
        )
    steps = np.arange(1, STEPS + 1) / STEPS
    # Sample i is accepted at every t below its confidence: at the first `below` of the steps.
    below = np.searchsorted(steps, np.asarray(confidences, dtype=np.float64), side="left")
    change = np.subtract(large_correct, saver_correct, dtype=np.int8)
    entering = np.bincount(below, minlength=STEPS + 1)
    losing = np.bincount(below, weights=change, minlength=STEPS + 1)
    # Index j: accepted at steps[j] are those with below > j.
    accepted = np.cumsum(entering[::-1])[::-1][1:]
    lost = np.cumsum(losing[::-1])[::-1][1:]
    stops = np.flatnonzero((accepted > 0) & (lost > 0))
    index = int(stops[-1]) if len(stops) else 0
    t = float(steps[index])
    return TinySaverThreshold(
        t=t,
        threshold=float(np.nextafter(t, np.inf)),
        accepted=int(accepted[index]),
        samples=n,
    )


def crc(sweep: Sweep, max_drop_points: float) -> OperatingPoint | None:
    """Conformal risk control (Angelopoulos et al., arXiv 2208.02814): E[drop] <= ε.

    Takes the loosest threshold such that it and all stricter ones have
    (n · drop + 1) / (n + 1) <= ε: the drop on the samples, with one more sample at the greatest
    loss. The promise is about the mean over calibration sets, not about this one, and it assumes
    a drop that only grows as the threshold loosens; stopping at the first violation is the usual
    repair.

    Args:
        sweep: every distinct threshold of the cascade.
        max_drop_points: ε, in points.

    Returns:
        None where even the strictest threshold violates the bound.
    """
    bounded = (sweep.lost + 1) <= max_drop_points / 100 * (sweep.samples + 1) + 1e-9
    violations = np.flatnonzero(~bounded)
    last = int(violations[0]) - 1 if len(violations) else len(bounded) - 1
    return None if last < 0 else sweep.point(last)


def ltt_hoeffding_bentkus(
    counts: WalkCounts, max_drop_points: float, *, risk: float
) -> OperatingPoint | None:
    """Learn then Test with Hoeffding-Bentkus p-values (arXiv 2110.01052), fixed sequence.

    The same promise as `certified`, from a p-value that knows only that losses are bounded: D in
    -1..1 is mapped to (D + 1) / 2.

    Args:
        counts: at thresholds fixed before the samples were seen, strict to loose.
        max_drop_points: ε, in points.
        risk: δ.

    Returns:
        None where even the strictest threshold fails.
    """
    n = counts.samples
    mean_loss = (counts.lost - counts.gained + n) / (2 * n)
    p = hoeffding_bentkus(mean_loss, n, bound=(1 + max_drop_points / 100) / 2)
    last = walk(p, risk=risk)
    if last is None:
        return None
    step = counts.step(last)
    return OperatingPoint(step.threshold, step.accepted, step.lost - step.gained, n)


def hoeffding_bentkus(mean_loss: ArrayLike, samples: int, *, bound: float) -> FloatArray:
    """p-values of "the expected loss, within 0..1, is above the bound" (Bates et al., 2101.02703).

    Args:
        mean_loss: (k,), mean losses on the samples, within 0..1.
        samples: how many samples.
        bound: the risk to control, within 0..1.

    Returns:
        (k,), the smaller of Hoeffding's bound in its relative-entropy form and Bentkus's.
    """
    from scipy.special import bdtr, xlogy  # see certificate/p_values.py

    observed = np.atleast_1d(np.asarray(mean_loss, dtype=np.float64))
    low = np.minimum(observed, bound)
    entropy = xlogy(low, low / bound) + xlogy(1 - low, (1 - low) / (1 - bound))
    hoeffding = np.exp(-samples * entropy)
    # A mean that is a whole number of samples must not be rounded up to the next.
    bentkus = math.e * bdtr(np.ceil(samples * observed - 1e-9), samples, bound)
    p: FloatArray = np.minimum(np.minimum(hoeffding, bentkus), 1.0)
    return p
