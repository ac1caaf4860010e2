"""What a method allows for one cascade: thresholds, and what each does on its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.costs import CascadeCosts
from tinysaver_edge.calibrate.methods.path import Path
from tinysaver_edge.calibrate.problem import ModelAnswers
from tinysaver_edge.calibrate.targets import limits_of
from tinysaver_edge.certificate.p_values import upper_rates
from tinysaver_edge.deciding.policy import Policy, StagePolicy

if TYPE_CHECKING:
    from tinysaver_edge.calibrate.methods.counts import CertifiedTest
    from tinysaver_edge.calibrate.methods.reuse import EpochTest
    from tinysaver_edge.calibrate.methods.search import Searched
    from tinysaver_edge.calibrate.targets import Budgets
    from tinysaver_edge.certificate.certificate import Certificate
    from tinysaver_edge.fusion import Fusion
    from tinysaver_edge.reuse import ReuseRule
    from tinysaver_edge.score import Score

SEVERAL = " → "
"""Stands between the names of models asked in turn."""

NOTHING = np.inf
"""Threshold that accepts nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """The thresholds that a method allows for one saver, or for several in turn.

    Attributes:
        costs: of the saver, or the savers, with the large model.
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
        path: how the other stages' thresholds follow from the first one's, and how they are pooled.
        reached: ``(stages - 1, k)`` samples that go on to each later stage, where there are more
            than two; of two stages the last are those not accepted.
        asked: ``(k,)`` samples that the first model is asked about; None for all of them. Where
            there is such a thing, answers are reused, and rates begin with its share.
        over_epochs: what the certificate over epochs is computed from, which holds rates and
            budgets by epochs; None where nothing is reused.
        reuse: of the certificate over epochs, makes the rule that stands with a threshold; None
            where nothing is reused.
        skipped: whether a tune split ruled it out, so that it was not looked at any further.
        told: what became of others that were looked at beside it, for people; or empty.
        trial: what a certificate is computed from; None for methods that prove nothing.
    """

    costs: CascadeCosts
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
    path: Path = field(default_factory=Path)
    reached: NDArray[np.int64] | None = None
    asked: NDArray[np.int64] | None = None
    over_epochs: EpochTest | None = None
    reuse: Callable[[float], ReuseRule] | None = None
    skipped: bool = False
    told: str = ""
    trial: CertifiedTest | None = None

    @property
    def models(self) -> tuple[ModelAnswers, ...]:
        """All models, in the order in which they are asked."""
        return (self.saver, *self.costs.later)

    @property
    def name(self) -> str:
        """The models asked before the large one."""
        return SEVERAL.join(one.name for one in self.models[:-1])

    def policy_at(self, threshold: float | None) -> Policy:
        """Return the cascade at one of the first stage's thresholds; None accepts nothing.

        What accepts nothing is not asked, and pools nothing.
        """
        early = self.models[:-1]
        each = self.path.at(threshold) if threshold is not None else (None,) * len(early)
        stages = [
            StagePolicy(one.name, one.macs, self.score, its)
            for one, its in zip(early, each, strict=True)
        ]
        large = self.costs.large
        pool = None if threshold is None else self.path.pool
        return Policy((*stages, StagePolicy(large.name, large.macs)), self.fusion, pool)

    def rule_at(self, threshold: float | None) -> ReuseRule | None:
        """Return what is reused at one of the thresholds; None for nothing."""
        return None if threshold is None or self.reuse is None else self.reuse(threshold)

    @property
    def left_out(self) -> bool:
        """Whether a tune split left it out."""
        return self.skipped

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
        last: NDArray[np.float64] = self._rates(budgeted=True)[-1]
        return last

    def _rates(self, *, budgeted: bool) -> NDArray[np.float64]:
        """Share of frames that reach each later stage, ``(stages - 1, k)``, or its upper bound."""
        reached = self.reached
        if reached is None:
            reached = (self.samples - self.accepted)[None]
        if self.over_epochs is not None and budgeted:
            return self.over_epochs.upper_rates(self.thresholds)
        if self.asked is not None:
            reached = np.vstack((self.asked, reached))
        if not budgeted or self.risk is None:
            shares: NDArray[np.float64] = 1.0 - (self.samples - reached) / self.samples
            return shares
        risk = self.risk / len(reached)
        return np.stack([upper_rates(row, self.samples, risk=risk) for row in reached])

    def rates_at(self, index: int, *, budgeted: bool = False) -> tuple[float, ...]:
        """Return the rates of one threshold, as `CascadeCosts` takes them."""
        if self.reached is None and self.asked is None:
            rates = self.budgeted_rates if budgeted else self.escalation_rates
            return (float(rates[index]),)
        return tuple(self._rates(budgeted=budgeted)[:, index].tolist())

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
        fits = np.zeros(len(self.thresholds), bool)
        if self.over_epochs is not None:
            if limits:
                steps = self.over_epochs.affordable(self.costs, limits)
                fits = steps[np.searchsorted(-self.over_epochs.thresholds, -self.thresholds)]
            return fits if limits else ~fits
        if self.costs.between or self.costs.reuses:
            rates = self._rates(budgeted=True).T.tolist()
            fits = np.array([keeps(self.costs, limits, one) for one in rates], bool)
        elif (rate := self.costs.rate_within(budgets)) is not None:
            fits = within_rate(self.budgeted_rates, rate)
        alone = all(self.costs.alone(name) <= limit for name, limit in limits.items())
        return np.where(self.asks_nobody, alone, fits)

    def quantity(self, name: str, index: int, *, budgeted: bool = False) -> float:
        """Return what `Budgets` limits by that name, at one threshold."""
        if self.asks_nobody[index]:
            return self.costs.alone(name)
        return self.costs.at(name, *self.rates_at(index, budgeted=budgeted))

    def latency_spread_ms(self, index: int) -> tuple[float, float] | None:
        """Return the least and the greatest mean of the rounds of timing, at one threshold."""
        if self.asks_nobody[index]:
            return None
        return self.costs.mean_spread_ms(float(self.escalation_rates[index]))

    def mean_macs(self) -> NDArray[np.float64]:
        """Expected MACs a frame at each threshold, ``(k,)``."""
        each = np.array([model.macs for model in self.models])
        rates = self._rates(budgeted=False)
        if self.asked is None:
            rates = np.vstack((np.ones(rates.shape[1]), rates))
        macs: NDArray[np.float64] = each @ rates
        macs[self.asks_nobody] = self.costs.large.macs
        return macs

    def mean_latency_ms(self) -> NDArray[np.float64]:
        """Expected time of a frame at each threshold, ``(k,)``; of what was timed only."""
        if self.costs.latency is not None:
            times = self.costs.latency.mean_ms(self.escalation_rates)
        else:
            assert self.costs.ways is not None
            steps = np.diff([way.mean_ms for way in self.costs.ways])
            times = self.costs.ways[0].mean_ms + steps @ self._rates(budgeted=False)
        times[self.asks_nobody] = self.costs.alone("mean_latency_ms")
        return times


def keeps(costs: CascadeCosts, limits: Mapping[str, float], rates: Sequence[float]) -> bool:
    """Return whether a cascade keeps every limit at some rates; rounding is nothing to fail by."""
    return all(costs.at(name, *rates) <= limit * (1 + 1e-12) for name, limit in limits.items())


def within_rate(rates: NDArray[np.float64], limit: float) -> NDArray[np.bool_]:
    """Return which rates keep a limit; rounding is nothing to fail by."""
    fits: NDArray[np.bool_] = rates <= limit + 1e-12
    return fits
