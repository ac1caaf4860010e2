"""TinySaver's own rule for the threshold, to the letter, for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import BoolArray, FloatArray

STEPS = 1000


@dataclass(frozen=True, slots=True)
class TinySaverThreshold:
    """Where the paper's scan stops.

    Attributes:
        t: the paper's threshold, a multiple of 0.001; it accepts `confidence > t`.
        threshold: the next float up, so that `score >= threshold` accepts the same samples.
        accepted: samples accepted.
        samples: all samples.
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
