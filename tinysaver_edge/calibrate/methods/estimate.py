"""Estimate: what a score and a fusion would bring on samples that are not looked at yet.

What learns is judged on samples that it did not see: fitted on four fifths, applied to the last,
five times. Only what wins is fitted on all of them.

A tune split of some hundred or thousand samples tells only roughly which threshold will be
certified, and the best of many estimates is mostly luck. So each is made on the same resamples of
the tune split: their spread tells how much of a difference is luck, and as a difference between two
is taken on each resample apart, what they share drops out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.costs import CascadeCosts
from tinysaver_edge.calibrate.methods.counts import SortedScores, Verdicts
from tinysaver_edge.calibrate.methods.fitting import FITTED_SCORES, fit_fusion, fit_score
from tinysaver_edge.calibrate.targets import Objective, Targets
from tinysaver_edge.fusion import ConditionalLogit, Fusion, LinearFusion, NoFusion, fusion_names
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray, Outputs
from tinysaver_edge.score import Score, get_score, score_names

FOLDS = 5

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class ScoreOption:
    """A score to try.

    Attributes:
        learns: whether it has to be fitted.
    """

    name: str

    @property
    def learns(self) -> bool:
        """Whether it has to be fitted."""
        return self.name in FITTED_SCORES


@dataclass(frozen=True, slots=True)
class FusionOption:
    """A fusion to try.

    Attributes:
        fixed: the fusion with parameters of its own, or None where they are to be fitted.
    """

    name: str
    fixed: Fusion | None

    @property
    def learns(self) -> bool:
        """Whether it has to be fitted."""
        return self.fixed is None


def all_scores() -> tuple[ScoreOption, ...]:
    """Return every score there is, those of other packages included."""
    return tuple(map(ScoreOption, score_names()))


def all_fusions() -> tuple[FusionOption, ...]:
    """Return every fusion there is, with its constants and fitted."""
    fixed = tuple(
        FusionOption(fusion.name, fusion)
        for fusion in (NoFusion(), LinearFusion(), ConditionalLogit())
    )
    learned = (FusionOption(name, None) for name in fusion_names() if name != NoFusion.name)
    return (*fixed, *learned)


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """One pair's tune samples, on which scores and fusions are tried.

    Attributes:
        fold: (n,), which fold each sample belongs to; groups stay whole.
    """

    saver: Outputs
    large: Outputs
    truth: IntArray
    fold: IntArray

    @property
    def saver_correct(self) -> BoolArray:
        """Where the saver is right, (n,)."""
        return np.equal(self.saver.predictions, self.truth)

    @property
    def large_correct(self) -> BoolArray:
        """Where the large model is right, (n,)."""
        return np.equal(self.large.predictions, self.truth)

    def answers(self, final: BoolArray) -> Verdicts:
        """Return what each answer loses, given where the fused ones are right."""
        return Verdicts.of((self.saver_correct, final), self.large_correct)

    def scored(self, option: ScoreOption) -> FloatArray:
        """Return each sample's score, (n,); of one that learns, fitted without the sample.

        Raises:
            InputError: the outputs do not hold what the score needs.
        """
        if not option.learns:
            return self.fit_score(option)(self.saver)
        return self._cross_fitted(
            lambda index: self._part(index).fit_score(option),
            lambda score, index: score(self.saver.subset(index)),
        )

    def fused_correct(self, option: FusionOption) -> BoolArray:
        """Return where the answer after an escalation is right, (n,); fitted without the sample."""
        if option.fixed is not None:
            return self._right(option.fixed, np.arange(len(self.truth)))
        return self._cross_fitted(
            lambda index: self._part(index).fit_fusion(option), self._right
        ).astype(bool)

    def fit_score(self, option: ScoreOption) -> Score:
        """Return the score, fitted on all samples where it learns.

        Raises:
            InputError: the outputs do not hold what the score needs.
        """
        if not option.learns:
            return get_score(option.name).suited_to(self.saver)
        return fit_score(
            option.name,
            self.saver,
            saver_correct=self.saver_correct,
            large_correct=self.large_correct,
        ).suited_to(self.saver)

    def fit_fusion(self, option: FusionOption) -> Fusion:
        """Return the fusion, fitted on all samples where it learns."""
        return option.fixed or fit_fusion(option.name, self.saver, self.large, self.truth)

    def _right(self, fusion: Fusion, index: IntArray) -> BoolArray:
        answers, _ = fusion.fuse(self.saver.subset(index), self.large.subset(index))
        right: BoolArray = answers == self.truth[index]
        return right

    def _part(self, index: IntArray) -> Bench:
        return Bench(
            self.saver.subset(index),
            self.large.subset(index),
            self.truth[index],
            self.fold[index],
        )

    def _cross_fitted(
        self,
        fit: Callable[[IntArray], Part],
        apply: Callable[[Part, IntArray], NDArray[Any]],
    ) -> NDArray[Any]:
        result = np.empty(len(self.truth))
        for fold in range(int(self.fold.max()) + 1):
            inside = self.fold == fold
            result[inside] = apply(fit(np.flatnonzero(~inside)), np.flatnonzero(inside))
        return result


def folds(units: int | IntArray, *, seed: int) -> IntArray:
    """Deal samples into folds of about equal size; groups stay whole.

    Args:
        units: number of samples, or each sample's group (n,), numbered from 0.
        seed: of the deal.

    Returns:
        (n,), numbered from 0 without a gap; two folds at least where there are two units.
    """
    groups = np.arange(units) if isinstance(units, int) else units
    count = int(groups.max()) + 1
    dealt: IntArray = np.arange(count) % min(FOLDS, count)
    shuffled: IntArray = np.random.default_rng(seed).permutation(dealt)[groups]
    return shuffled


MOST_THRESHOLDS = 300
"""Thresholds that are looked at: every so many samples one."""

INFEASIBLE = 2.0
"""Stands for the cost of what keeps the limits nowhere: more than any cascade's."""

Weights = NDArray[np.float32]


def resample(units: int | IntArray, *, times: int, seed: int) -> Weights:
    """Draw samples with replacement, as often as there are; groups come or go as a whole.

    Args:
        units: number of samples, or each sample's group (n,), numbered from 0.
        times: how many draws; 0 for the samples as they are, once.
        seed: of the draws.

    Returns:
        (times, n), how much each sample counts; every group counts the same.
    """
    groups = np.arange(units) if isinstance(units, int) else units
    sizes = np.bincount(groups)
    count = len(sizes)
    drawn = np.ones((1, count))
    if times:
        chance = np.full(count, 1 / count)
        drawn = np.random.default_rng(seed).multinomial(count, chance, size=times).astype(float)
    weights: Weights = (drawn / sizes)[:, groups].astype(np.float32)
    return weights


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The tune samples in the order of one score, with a few hundred thresholds between them.

    Attributes:
        order: int64 (n,), sample indices by falling score.
        starts: int64 (k,), where in that order what a threshold adds begins.
        weights: float32 (times, n), in that order.
        total: float32 (times, 1), their sums.
        accepted: (times, k), share that each threshold accepts.
    """

    order: IntArray
    starts: IntArray
    weights: Weights
    total: Weights
    accepted: Weights

    @classmethod
    def of(cls, score: FloatArray, weights: Weights) -> Ranking:
        """Sort a score.

        Args:
            score: (n,).
            weights: (times, n), from `resample`.
        """
        scores = SortedScores.of(score)
        ends = scores.accepted
        if len(ends) > MOST_THRESHOLDS:
            ends = ends[np.linspace(0, len(ends) - 1, MOST_THRESHOLDS).round().astype(int)]
        starts = np.concatenate(([0], ends[:-1]))
        ordered = weights[:, scores.order]
        total = ordered.sum(axis=1, keepdims=True)
        shares = np.cumsum(np.add.reduceat(ordered, starts, axis=1), axis=1) / total
        return cls(scores.order, starts, ordered, total, shares)

    def losses(self, answers: Verdicts) -> tuple[Weights, Weights]:
        """Return the mean loss at each threshold and the mean square, both (times, k)."""
        accepted, escalated = answers.losses
        mean = self._mean(accepted, escalated)
        return mean, self._mean(np.abs(accepted), np.abs(escalated))

    def _mean(self, if_accepted: NDArray[np.int8], if_escalated: NDArray[np.int8]) -> Weights:
        change = (if_accepted - if_escalated)[self.order]
        base = self.weights @ if_escalated[self.order].astype(np.float32)
        added = np.add.reduceat(self.weights * change, self.starts, axis=1)
        mean: Weights = (base[:, None] + np.cumsum(added, axis=1)) / self.total
        return mean


@dataclass(frozen=True, slots=True)
class Aim:
    """What is asked of one saver's threshold, for samples of which the tune split knows nothing.

    Attributes:
        max_drop: ε as a fraction, None where only budgets limit.
        deviations: how many standard deviations a drop must stay below ε to be certified.
        units: samples (or groups) that will be certified on.
        rate: the largest escalation rate that keeps the budgets; None where none does.
        saver_alone: cost where nothing is escalated, relative to the large model alone.
        all_escalated: cost where everything is.
        accuracy: whether the least drop is wanted, not the least cost.
    """

    max_drop: float | None
    deviations: float
    units: int
    rate: float | None
    saver_alone: float
    all_escalated: float
    accuracy: bool

    @classmethod
    def of(cls, costs: CascadeCosts, targets: Targets, *, units: int, certified: bool) -> Aim:
        """Say what the targets ask of a pair.

        Args:
            costs: of the pair.
            targets: limits and objective.
            units: samples or groups that the decision will rest on.
            certified: whether the bound is to be proved on them.
        """
        from scipy.special import ndtri  # see certificate/p_values.py

        name = "mean_latency_ms" if targets.aim is Objective.LATENCY else "mean_macs"
        alone = costs.alone(name)
        drop = targets.allowed_drop_points
        return cls(
            max_drop=None if drop is None else drop / 100,
            deviations=-float(ndtri(targets.risk)) if certified else 0.0,
            units=units,
            rate=costs.rate_within(targets.budgets),
            saver_alone=costs.at(name, 0.0) / alone,
            all_escalated=costs.at(name, 1.0) / alone,
            accuracy=targets.aim is Objective.ACCURACY,
        )

    def estimate(self, ranking: Ranking, answers: Verdicts) -> FloatArray:
        """Return what can be had, on each resample: a cost, or a drop; the less, the better.

        Returns:
            (times,), relative to the large model alone, or a fraction of the samples lost.
        """
        mean, square = ranking.losses(answers)
        rates: Weights = 1 - ranking.accepted
        value: Weights = mean
        usable = self._affordable(rates)
        if self.max_drop is not None:
            variance = np.maximum(square - mean**2, 0)
            usable &= mean + self.deviations * np.sqrt(variance / self.units) <= self.max_drop
        if not self.accuracy:
            value = self.saver_alone + rates * np.float32(self.all_escalated - self.saver_alone)
        elif self.max_drop is None:  # the threshold comes from the budget alone: the strictest
            usable &= np.cumsum(usable, axis=1) == 1
        least: FloatArray = np.where(usable, value, INFEASIBLE).min(axis=1).astype(np.float64)
        return least

    def _affordable(self, rates: Weights) -> BoolArray:
        if self.rate is None:
            return np.zeros(rates.shape, bool)
        if self.rate >= 1:
            return np.ones(rates.shape, bool)
        bound = rates + self.deviations * np.sqrt(rates * (1 - rates) / self.units)
        return np.less_equal(bound, self.rate + 1e-6)
