"""Evidence that a rate is exceeded: an e-process, valid whenever one looks at it."""

from __future__ import annotations

import math

from tinysaver_edge.errors import InputError

GAPS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""Alternatives that are bet on: the rate plus so much of what is missing to 1."""

LARGEST = 1e300
"""Where the evidence stops growing, short of what a float holds."""


class Evidence:
    """A bettor's wealth against "the rate is at most r"; whoever starts with 1 cannot get rich.

    At each observation x in {0, 1} a stake on the alternative q > r is multiplied by
    ``(q/r)^x ((1-q)/(1-r))^(1-x)``. While the rate is at most r, given all that came before, no
    stake gains on average, so that the wealth is a nonnegative supermartingale and the probability
    that it *ever* reaches 1/α is at most α (Ville; Ramdas et al., arXiv 2210.01948).

    Not all is staked at once: a field that changes after a quiet year would find a bettor who had
    lost everything. After k observations ``1 / (1 + ln(1+k))`` is still in reserve; what leaves it
    is staked, in equal parts, on the alternatives. A change after k observations is thus found as
    one at the start would be, but for ``ln k + 2 ln(1 + ln k)`` nats of evidence more (as in the
    mixtures over starting times of Shin, Ramdas and Rinaldo's e-detectors, arXiv 2203.03532).

    Args:
        rate: r, within 0..1; at 0 or 1 it is moved inside by 1e-9.

    Raises:
        InputError: the rate is not within 0..1.

    Attributes:
        observed: how many observations there were.
        events: how many of them were 1.
    """

    def __init__(self, rate: float) -> None:
        if not 0 <= rate <= 1:
            raise InputError(f"rate {rate}: must be within 0..1")
        r = min(max(rate, 1e-9), 1 - 1e-9)
        alternatives = [r + (1 - r) * gap for gap in GAPS]
        self._gain = [q / r for q in alternatives]
        self._loss = [(1 - q) / (1 - r) for q in alternatives]
        self._stakes = [0.0] * len(alternatives)
        self.observed = 0
        self.events = 0

    @property
    def value(self) -> float:
        """The wealth; 1 before the first observation."""
        return min(LARGEST, sum(self._stakes) + _reserve(self.observed))

    def add(self, event: bool) -> None:
        """Take in one observation."""
        more = (_reserve(self.observed) - _reserve(self.observed + 1)) / len(self._stakes)
        factors = self._gain if event else self._loss
        self._stakes = [
            min(LARGEST, (stake + more) * factor)
            for stake, factor in zip(self._stakes, factors, strict=True)
        ]
        self.observed += 1
        self.events += event


def _reserve(observed: int) -> float:
    return 1 / (1 + math.log1p(observed))
