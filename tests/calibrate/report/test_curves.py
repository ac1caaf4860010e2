import math
from dataclasses import replace

import numpy as np
import pytest

from tests.calibrate.report.world import MACS, finished, measured, problem
from tinysaver_edge.calibrate.report.curves import bounds_of, trace
from tinysaver_edge.deciding.policy import Policy, StagePolicy
from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion import ConditionalLogit
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.score import Margin, MaxSoftmax


def policy(*thresholds, names=("tiny", "large"), fusion=None):
    """Stages with these thresholds, the last one without."""
    scores = (Margin(), MaxSoftmax())
    early = [
        StagePolicy(name, MACS[name], score, threshold)
        for name, score, threshold in zip(names, scores, thresholds, strict=False)
    ]
    return Policy((*early, StagePolicy(names[-1], MACS[names[-1]])), fusion)


def first_at(given, threshold):
    first, *rest = given.stages
    return replace(given, stages=(replace(first, threshold=threshold), *rest))


@pytest.mark.parametrize("fusion", [None, ConditionalLogit()], ids=["plain", "fused"])
@pytest.mark.parametrize(
    ("names", "thresholds"),
    [(("tiny", "large"), (0.5,)), (("tiny", "small", "large"), (0.5, 0.8))],
    ids=["two stages", "three stages"],
)
def test_every_threshold_does_what_the_policy_does_there(names, thresholds, fusion):
    given = problem(120)
    rule = policy(*thresholds, names=names, fusion=fusion)
    curve = trace(rule, given.outputs_of(rule), given.labels)
    assert curve.thresholds[0] == math.inf
    assert len(curve.thresholds) == 121
    for index in range(len(curve.thresholds)):
        point = curve.point(index)
        found = measured(first_at(rule, point.threshold), given)
        assert point.accept_rate == pytest.approx(found.settled[0])
        assert point.drop_points == pytest.approx(found.drop_points)
        assert point.accuracy == pytest.approx(found.accuracy_cascade)
        assert point.cost == pytest.approx(found.cost_macs_ratio)


def test_any_threshold_can_be_looked_up():
    given = problem(80)
    rule = policy(0.5)
    curve = trace(rule, given.outputs_of(rule), given.labels)
    for threshold in (-1.0, 0.123, 0.9, 2.0):
        point, found = curve.at(threshold), measured(first_at(rule, threshold), given)
        assert (point.threshold, point.accept_rate) == (threshold, found.accept_rate)
        assert point.drop_points == pytest.approx(found.drop_points)
    unasked = curve.at(None)
    assert (unasked.cost, unasked.accept_rate, unasked.drop_points) == (1.0, 0.0, 0.0)


def test_thinned_keeps_both_ends_and_makes_nothing_up():
    given = problem(500)
    rule = policy(0.5)
    curve = trace(rule, given.outputs_of(rule), given.labels)
    points = curve.thinned(40)
    every = {curve.point(i) for i in range(len(curve.thresholds))}
    assert set(points) <= every
    assert len(points) <= 40
    assert (points[0].accept_rate, points[-1].accept_rate) == (0.0, 1.0)
    gaps = np.diff([point.accept_rate for point in points])
    assert gaps.max() < 2 / 39


def test_the_loosest_of_what_fits():
    given = problem(100)
    rule = policy(0.5)
    curve = trace(rule, given.outputs_of(rule), given.labels)
    fits = curve.accept_rates <= 0.5
    assert curve.at(curve.loosest(fits)).accept_rate == 0.5
    assert curve.loosest(curve.accept_rates < 0) is None
    assert curve.loosest(np.isinf(curve.thresholds)) is None


def test_a_stage_without_score_or_macs_has_no_curve():
    given = problem(20)
    bare = Policy((StagePolicy("tiny"), StagePolicy("large")))
    with pytest.raises(InputError, match="tiny has no score or MACs"):
        trace(bare, given.outputs_of(bare), given.labels)
    with pytest.raises(InputError, match="other has no answers"):
        given.outputs_of(Policy((StagePolicy("other"),)))


def test_oracle_is_the_least_cost_at_any_drop():
    given = problem(400)
    bounds = bounds_of(given, "tiny")
    tiny, large = given.savers[0].outputs, given.large.outputs
    saver, big = (one.predictions == given.labels for one in (tiny, large))
    (kappa, low), (cost, high) = bounds.oracle
    assert (kappa, low) == (0.05, pytest.approx(saver.mean()))
    # Escalating only what helps, one frame more at a time: the formula at each of these drops.
    helped = int((big & ~saver).sum())
    for frames in range(helped + 1):
        drop = big.mean() - (saver.sum() + frames) / 400
        formula = kappa + max(0.0, big.mean() - saver.mean() - drop)
        along = low + (formula - kappa)
        assert formula == pytest.approx(kappa + frames / 400)
        assert along == pytest.approx((saver.sum() + frames) / 400)
    assert (cost, high) == (
        pytest.approx(kappa + helped / 400),
        pytest.approx((saver | big).mean()),
    )


def test_random_line_is_the_mean_of_random_acceptance():
    given = problem(400)
    (left, low), (right, high) = bounds_of(given, "tiny").random
    rng = np.random.default_rng(3)
    tiny, large = given.savers[0].outputs.predictions, given.large.outputs.predictions
    accept = rng.random((3000, 400)) < 0.3
    accuracy = (np.where(accept, tiny, large) == given.labels).mean()
    assert right - left == pytest.approx(1.0)
    assert low + 0.7 * (high - low) == pytest.approx(accuracy, abs=2e-3)


def test_no_score_of_the_chosen_saver_crosses_the_oracle():
    facts = finished().facts()
    (kappa, low), (cost, _) = facts.bounds.oracle
    for point in facts.sweep.calibration:
        assert point.accuracy <= low + min(point.cost, cost) - kappa + 1e-12


def test_truncated_records_have_curves_too():
    given = problem(60)
    top = Outputs.from_topk(*given.savers[0].outputs.top(3))
    rule = policy(0.5)
    whole = trace(rule, given.outputs_of(rule), given.labels)
    cut = trace(rule, [top, given.large.outputs], given.labels)
    assert np.allclose(whole.drop_points, cut.drop_points)
