"""Combinations: scores and fusions on one pair's tune samples, those that learn cross-fitted.

What learns is judged on samples that it did not see: fitted on four fifths, applied to the last,
five times. Only what wins is fitted on all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.methods.counts import Verdicts
from tinysaver_edge.calibrate.methods.fitting import FITTED_SCORES, fit_fusion, fit_score
from tinysaver_edge.fusion import ConditionalLogit, Fusion, LinearFusion, NoFusion, fusion_names
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray, Outputs
from tinysaver_edge.score import Score, get_score, score_names

FOLDS = 5

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class ScoreOption:
    """A score to try.

    Attributes:
        name: of the score.
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
        name: of the fusion.
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
        saver: the saver's outputs.
        large: the large model's.
        truth: (n,), the classes.
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
        """Return who is right, given where the fused answers are."""
        return Verdicts(self.saver_correct, self.large_correct, final)

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
