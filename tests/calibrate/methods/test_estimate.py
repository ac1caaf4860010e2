"""Estimates against the exact sweep, resamples, and cross-fitting."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinysaver_edge.calibrate.methods.counts import SortedScores, Verdicts
from tinysaver_edge.calibrate.methods.estimate import (
    INFEASIBLE,
    Aim,
    Bench,
    FusionOption,
    Ranking,
    ScoreOption,
    folds,
    resample,
)
from tinysaver_edge.calibrate.methods.sweep import Sweep
from tinysaver_edge.outputs import Outputs

KAPPA = 0.2


def aim(**changes) -> Aim:
    plain = {
        "max_drop": None,
        "deviations": 0.0,
        "units": 1000,
        "rate": 1.0,
        "saver_alone": KAPPA,
        "all_escalated": 1 + KAPPA,
        "accuracy": False,
    }
    return Aim(**{**plain, **changes})


class Right(NamedTuple):
    """Which answers are right."""

    saver: np.ndarray
    large: np.ndarray
    final: np.ndarray

    @property
    def verdicts(self):
        return Verdicts.of((self.saver, self.final), self.large)


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    n = draw(st.integers(2, 80))
    score = rng.integers(0, draw(st.sampled_from([2, 7, 1000])), n) / 7
    saver, large, final = (rng.random(n) < chance for chance in (0.7, 0.8, 0.82))
    return score, Right(saver, large, final)


def exactly(score, answers):
    """The exact sweep of the same samples."""
    return Sweep.of(
        SortedScores.of(score),
        saver_correct=answers.saver,
        large_correct=answers.large,
        final_correct=answers.final,
    )


@given(cases(), st.sampled_from([0.0, 1.0, 5.0, 20.0]))
def test_of_the_samples_as_they_are_it_is_the_exact_sweep(case, points):
    score, answers = case
    ranking = Ranking.of(score, resample(len(score), times=0, seed=0))
    best = exactly(score, answers).loosest_within(points)
    cost = INFEASIBLE if best is None else KAPPA + best.escalation_rate
    found = aim(max_drop=points / 100 + 1e-6).estimate(ranking, answers.verdicts)
    assert found == pytest.approx([cost], abs=1e-5)


@given(cases(), st.sampled_from([0.0, 0.3, 0.8, 1.0]))
def test_within_a_budget_it_is_the_most_accurate_threshold(case, rate):
    score, answers = case
    ranking = Ranking.of(score, resample(len(score), times=0, seed=0))
    sweep = exactly(score, answers)
    fits = 1 - sweep.accept_rates <= rate + 1e-9
    most = sweep.lost[fits].min() / len(score)
    asked = aim(max_drop=1.0, rate=rate, accuracy=True)
    assert asked.estimate(ranking, answers.verdicts) == pytest.approx([most], abs=1e-5)
    strictest = sweep.lost[fits][0] / len(score)
    asked = aim(rate=rate, accuracy=True)
    assert asked.estimate(ranking, answers.verdicts) == pytest.approx([strictest], abs=1e-5)


@given(cases())
def test_what_cannot_be_had_costs_more_than_anything(case):
    score, answers = case
    ranking = Ranking.of(score, resample(len(score), times=3, seed=0))
    assert (aim(rate=None).estimate(ranking, answers.verdicts) == INFEASIBLE).all()
    assert (aim(max_drop=-2.0).estimate(ranking, answers.verdicts) == INFEASIBLE).all()


@given(cases())
def test_caution_never_makes_it_cheaper(case):
    score, answers = case
    ranking = Ranking.of(score, resample(len(score), times=5, seed=1))
    plain = aim(max_drop=0.05).estimate(ranking, answers.verdicts)
    assert (aim(max_drop=0.05, deviations=1.3).estimate(ranking, answers.verdicts) >= plain).all()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(0, 100))
def test_groups_come_or_go_whole_and_count_the_same(sizes, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    weights = resample(groups, times=6, seed=seed)
    assert weights.shape == (6, len(groups))
    per_group = np.stack([np.bincount(groups, weights=row) for row in weights])
    assert np.allclose(per_group, per_group.round(), atol=1e-5)
    assert np.allclose(per_group.sum(axis=1), len(sizes))
    for group in range(len(sizes)):
        inside = weights[:, groups == group]
        assert (inside == inside[:, :1]).all()


def test_resamples_repeat_with_the_seed():
    assert (resample(50, times=4, seed=3) == resample(50, times=4, seed=3)).all()
    assert (resample(50, times=4, seed=3) != resample(50, times=4, seed=4)).any()


def test_folds_keep_groups_whole():
    groups = np.repeat(np.arange(11), 3)
    dealt = folds(groups, seed=0)
    assert all(len(set(dealt[groups == group])) == 1 for group in range(11))
    assert set(dealt) == set(range(5))
    assert set(folds(2, seed=0)) == {0, 1}


def bench(rng, truth) -> Bench:
    logits = [rng.normal(0, 1, (len(truth), 4)) + 2 * np.eye(4)[truth] for _ in range(2)]
    saver, large = map(Outputs.from_logits, logits)
    return Bench(saver, large, truth, folds(len(truth), seed=0))


@settings(max_examples=10)
@given(st.integers(0, 1000))
@pytest.mark.parametrize("name", ["head", "msp_temperature", "maxlogit_pnorm"])
def test_what_learns_is_judged_on_samples_it_did_not_see(name, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 60)
    one = bench(rng, truth)
    sample = int(rng.integers(60))
    other = truth.copy()
    other[one.fold == one.fold[sample]] = (other[one.fold == one.fold[sample]] + 1) % 4
    two = Bench(one.saver, one.large, other, one.fold)
    option = ScoreOption(name)
    assert option.learns
    assert one.scored(option)[sample] == two.scored(option)[sample]


@pytest.mark.parametrize("name", ["linear", "conditional_logit"])
def test_a_fitted_fusion_is_judged_on_samples_it_did_not_see(name):
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 4, 200)
    one, option = bench(rng, truth), FusionOption(name, None)
    right = one.fused_correct(option)
    for fold in range(5):
        inside = one.fold == fold
        outside = one._part(np.flatnonzero(~inside))
        answers, _ = outside.fit_fusion(option).fuse(
            one.saver.subset(inside), one.large.subset(inside)
        )
        assert (right[inside] == (answers == truth[inside])).all()
