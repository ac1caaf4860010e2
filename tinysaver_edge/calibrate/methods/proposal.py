"""What a method allows for one saver: thresholds, and what each does on the samples it rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.problem import ModelAnswers, PairCosts, limits_of
from tinysaver_edge.certificate import upper_rates

if TYPE_CHECKING:
    from tinysaver_edge.calibrate.methods.search import Searched
    from tinysaver_edge.calibrate.targets import Budgets
    from tinysaver_edge.certificate import Certificate
    from tinysaver_edge.fusion import Fusion
    from tinysaver_edge.score import Score

NOTHING = np.inf
"""Threshold that accepts nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """The thresholds that a method allows for one saver.

    Attributes:
        costs: of the saver with the large model.
        score: how far its answers are trusted.
        fusion: how answers are combined after an escalation, or None.
        thresholds: ``(k,)`` strictly falling; infinity, which accepts nothing, may come first.
        accepted: ``(k,)`` samples that each accepts.
        lost: ``(k,)`` net samples that each loses against the large model alone.
        allowed: ``(k,)`` whether the method lets it be used.
        evidence: the samples of the problem that the decision rests on, rising.
        risk: probability with which budgets may be exceeded: rates then enter them at their upper
            bound. None takes the rates as they are.
        relaxed_drop: returns the least drop in points that the method could keep within the
            budgets, None where the budgets alone cannot be kept.
        certify: makes the certificate of one of the allowed thresholds, by its position; None for
            methods that prove nothing.
        why: what is missing, where nothing is allowed.
        searched: how score and fusion were found, None where they were not searched for.
    """

    costs: PairCosts
    score: Score
    fusion: Fusion | None
    thresholds: NDArray[np.float64]
    accepted: NDArray[np.int64]
    lost: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    evidence: NDArray[np.int64]
    relaxed_drop: Callable[[], float | None]
    risk: float | None = None
    certify: Callable[[int], Certificate] | None = None
    why: str = ""
    searched: Searched | None = None

    @property
    def left_out(self) -> bool:
        """Whether a search left the saver out."""
        return self.searched is not None and bool(self.searched.left_out)

    @property
    def saver(self) -> ModelAnswers:
        """The saver."""
        return self.costs.saver

    @property
    def samples(self) -> int:
        """How many samples the decision rests on."""
        return len(self.evidence)

    @property
    def escalation_rates(self) -> NDArray[np.float64]:
        """Share of frames that each threshold escalates, ``(k,)``."""
        rates: NDArray[np.float64] = 1.0 - self.accepted / self.samples
        return rates

    @property
    def budgeted_rates(self) -> NDArray[np.float64]:
        """The rates that budgets are held against, ``(k,)``.

        With a risk δ these are Clopper-Pearson's upper bounds at 1 - δ, so that a budget is kept
        as surely as the drop is.
        """
        if self.risk is None:
            return self.escalation_rates
        return upper_rates(self.samples - self.accepted, self.samples, risk=self.risk)

    @property
    def drop_points(self) -> NDArray[np.float64]:
        """Points that each threshold loses on the evidence, ``(k,)``."""
        points: NDArray[np.float64] = 100.0 * self.lost / self.samples
        return points

    @property
    def asks_nobody(self) -> NDArray[np.bool_]:
        """Whether a threshold accepts nothing by construction, so that the saver is not asked."""
        return np.isinf(self.thresholds)

    def within(self, budgets: Budgets) -> NDArray[np.bool_]:
        """Return which thresholds keep every budget, ``(k,)``."""
        limits = limits_of(budgets)
        rate = self.costs.rate_within(budgets)
        fits = np.zeros(len(self.thresholds), bool)
        if rate is not None:
            fits = within_rate(self.budgeted_rates, rate)
        alone = all(self.costs.alone(name) <= limit for name, limit in limits.items())
        return np.where(self.asks_nobody, alone, fits)

    def quantity(self, name: str, index: int, *, budgeted: bool = False) -> float:
        """Return what `Budgets` limits by that name, at one threshold."""
        if self.asks_nobody[index]:
            return self.costs.alone(name)
        rates = self.budgeted_rates if budgeted else self.escalation_rates
        return self.costs.at(name, float(rates[index]))

    def latency_spread_ms(self, index: int) -> tuple[float, float] | None:
        """Return the least and the greatest mean of the rounds of timing, at one threshold."""
        if self.asks_nobody[index]:
            return None
        return self.costs.mean_spread_ms(float(self.escalation_rates[index]))

    def mean_macs(self) -> NDArray[np.float64]:
        """Expected MACs a frame at each threshold, ``(k,)``."""
        macs: NDArray[np.float64] = self.saver.macs + self.escalation_rates * self.costs.large.macs
        macs[self.asks_nobody] = self.costs.large.macs
        return macs

    def mean_latency_ms(self) -> NDArray[np.float64]:
        """Expected time of a frame at each threshold, ``(k,)``; of pairs that were timed only."""
        assert self.costs.latency is not None
        times = self.costs.latency.mean_ms(self.escalation_rates)
        times[self.asks_nobody] = self.costs.alone("mean_latency_ms")
        return times


def within_rate(rates: NDArray[np.float64], limit: float) -> NDArray[np.bool_]:
    """Return which rates keep a limit; rounding is nothing to fail by."""
    fits: NDArray[np.bool_] = rates <= limit + 1e-12
    return fits
