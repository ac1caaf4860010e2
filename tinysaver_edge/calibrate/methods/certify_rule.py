"""What is certified: score, fusion and split, chosen by rules that look at no certify label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinysaver_edge.calibrate.methods.fit_fusion import fit_fusion
from tinysaver_edge.calibrate.methods.fitting import FITTED_SCORES, fit_score
from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion import ConditionalLogit, Fusion, NoFusion, fusion_names
from tinysaver_edge.outputs import FloatArray, IntArray, Outputs
from tinysaver_edge.score import Head, Margin, Score, get_score

FUSE_FROM_LOST = 15
"""Fuse where the bound allows this many samples to be lost. Below, the answers that a fusion
changes add more noise to the test than they win: with 10, a pair of ImageNet records costs up to
18 % more; with 15, up to 8 % more and 3 % less on average."""

TUNE_SHARE = 0.05
HEAD_TUNE_SHARE = 0.2
LEAST_TUNE = 200
TUNED_THRESHOLDS = 250


@dataclass(frozen=True, slots=True)
class CertifyRule:
    """What to certify for one pair, before any sample is looked at.

    A name means "fit it on the tune split where it learns anything"; a value is taken as it is.

    Attributes:
        score: a score, or the name of one.
        fusion: a fusion, or the name of one.
    """

    score: Score | str
    fusion: Fusion | str

    @property
    def tune_share(self) -> float:
        """The share of the samples to tune on; 0 where there is nothing to fit or to choose."""
        if self.score == Head.name:
            return HEAD_TUNE_SHARE
        if self._learns_score or self._learns_fusion or self._score.fixed_thresholds() is None:
            return TUNE_SHARE
        return 0.0

    def fitted(self, saver: Outputs, large: Outputs, truth: IntArray) -> tuple[Score, Fusion]:
        """Fit on the tune samples what learns.

        Args:
            saver: the saver's outputs on the tune samples.
            large: the large model's.
            truth: (n,), their classes.
        """
        score = (
            fit_score(
                str(self.score),
                saver,
                saver_correct=saver.predictions == truth,
                large_correct=large.predictions == truth,
            )
            if self._learns_score
            else self._score
        )
        if self._learns_fusion:
            return score, fit_fusion(str(self.fusion), saver, large, truth)
        return score, self._fusion

    @property
    def _learns_score(self) -> bool:
        return isinstance(self.score, str) and self.score in FITTED_SCORES

    @property
    def _learns_fusion(self) -> bool:
        return isinstance(self.fusion, str) and self.fusion != NoFusion.name

    @property
    def _score(self) -> Score:
        return get_score(self.score) if isinstance(self.score, str) else self.score

    @property
    def _fusion(self) -> Fusion:
        return NoFusion() if isinstance(self.fusion, str) else self.fusion


def default_rule(
    *,
    units: int,
    max_drop_points: float,
    labelled: bool,
    score: Score | str | None = None,
    fusion: Fusion | str | None = None,
) -> CertifyRule:
    """The rule: the margin, fused by constant weights where there are enough labelled samples.

    Nothing is fitted and no sample is spent on tuning. On the ImageNet records a head with 5 % or
    20 % of the samples to learn from, or a fusion with 5 % or 10 %, wins less at n = 50,000 than
    rounding shows, and loses at 10,000 (`benchmarks/bench_certified_cost.py`). Without labels a
    fused answer that differs from the large model's only counts against the cascade, so there is
    no fusion.

    Args:
        units: how many independent samples (or groups) there are, a tune split included.
        max_drop_points: ε, in points.
        labelled: whether the true classes are known.
        score: what the user asked for instead, or None.
        fusion: likewise.

    Raises:
        InputError: a fusion is asked for by a name that there is not.
    """
    if isinstance(fusion, str) and fusion not in fusion_names():
        raise InputError(f"no fusion is called {fusion!r}: there are {', '.join(fusion_names())}")
    if fusion is None:
        fusion = default_fusion(units=units, max_drop_points=max_drop_points, labelled=labelled)
    return CertifyRule(score=Margin() if score is None else score, fusion=fusion)


def default_fusion(*, units: int, max_drop_points: float, labelled: bool) -> Fusion:
    """The fusion of `default_rule` where none is asked for; see there."""
    enough = labelled and units * max_drop_points / 100 >= FUSE_FROM_LOST
    return ConditionalLogit() if enough else NoFusion()


def split(units: int | IntArray, *, share: float, seed: int) -> tuple[IntArray, IntArray]:
    """Tune and certify samples by a seeded permutation; groups stay whole.

    Args:
        units: number of samples, or each sample's group (n,), numbered from 0.
        share: share of the samples (or groups) to tune on, 0..1.
        seed: of the permutation.

    Returns:
        Indices of the tune samples and of the certify samples, each rising.
    """
    groups = np.arange(units) if isinstance(units, int) else units
    count = int(groups.max()) + 1 if len(groups) else 0
    wanted = 0 if share == 0 else min(count // 2, max(math.ceil(share * count), LEAST_TUNE))
    tuned = np.zeros(count, dtype=bool)
    tuned[np.random.default_rng(seed).permutation(count)[:wanted]] = True
    return np.flatnonzero(tuned[groups]), np.flatnonzero(~tuned[groups])


def tuned_thresholds(scores: FloatArray) -> FloatArray:
    """Thresholds from strict to loose at even accept rates of the tune samples.

    Args:
        scores: float64 (n,) of the tune samples.
    """
    rates = np.linspace(1 / TUNED_THRESHOLDS, 1.0, TUNED_THRESHOLDS)
    values = np.quantile(scores, 1.0 - rates, method="lower")
    return np.unique(values)[::-1].copy()
