from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import beta

from tests.calibrate.report.world import finished, problem
from tinysaver_edge.bundle.manifest import DisagreementEntry
from tinysaver_edge.calibrate.chosen.assemble import audit, disagreement
from tinysaver_edge.calibrate.targets import Targets
from tinysaver_edge.deciding.policy import Policy, StagePolicy
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.score import Margin


@pytest.fixture(scope="module")
def chosen():
    return finished(problem(3000), targets=Targets(max_drop_points=3))


def policy(threshold, *, fusion=None):
    return Policy((StagePolicy("tiny", score=Margin(), threshold=threshold), StagePolicy("large")))


def test_every_accepted_sample_is_escalated_and_compared_with_what_that_would_answer(chosen):
    result, given = chosen.result, chosen.problem
    assert result.policy.fusion is not None
    saver = next(one for one in given.savers if one.name == result.policy.stages[0].model)
    found = audit(result.policy, (saver.outputs, given.large.outputs))
    first = result.policy.stages[0]
    score = first.score(saver.outputs)
    assert (found.accepted == np.flatnonzero(score >= first.threshold)).all()
    assert (found.score == score[found.accepted]).all()
    fused = result.policy.fusion.fuse(saver.outputs, given.large.outputs)[0]
    differs = saver.outputs.predictions != fused
    assert (found.disagrees == differs[found.accepted]).all()
    assert 0 < found.disagrees.sum() < len(found.accepted)


def test_with_three_stages_the_later_two_answer_together():
    logits = [[9.0, 0], [9.0, 0], [0, 9.0]], [[0, 9.0], [1.0, 0], [0, 9.0]], [[0, 9.0]] * 3
    stages = [
        StagePolicy(name, score=Margin(), threshold=limit)
        for name, limit in (("a", 0.9), ("b", 0.99))
    ]
    three = Policy((*stages, StagePolicy("c")))
    found = audit(three, [Outputs.from_logits(one) for one in logits])
    assert found.accepted.tolist() == [0, 1, 2]
    assert found.disagrees.tolist() == [True, True, False]


@pytest.mark.parametrize("threshold", [None, np.inf])
def test_where_nothing_is_accepted_nothing_is_promised(threshold):
    assert disagreement(policy(threshold), problem(100), None, choices=1, seed=0) is None


def test_the_bound_holds_for_all_thresholds_there_were_to_choose_from():
    given = problem(600)
    one = disagreement(policy(0.5), given, None, choices=1, seed=0)
    many = disagreement(policy(0.5), given, None, choices=100, seed=0)
    assert one.disagreed == many.disagreed > 0
    for entry, risk in ((one, 0.05), (many, 0.0005)):
        exact = beta.ppf(1 - risk, entry.disagreed + 1, entry.accepted - entry.disagreed)
        assert entry.upper == pytest.approx(exact)
    assert one.upper < many.upper


def test_held_out_samples_are_counted_where_they_are_many():
    given, aside = problem(600), problem(400, seed=9)
    entry = disagreement(policy(0.5), given, aside, choices=100, seed=0)
    assert (entry.held_out, entry.choices) == (True, 1)
    alone = disagreement(policy(0.5), aside, None, choices=1, seed=0)
    assert (entry.accepted, entry.disagreed) == (alone.accepted, alone.disagreed)
    few = disagreement(policy(0.5), given, problem(60, seed=9), choices=100, seed=0)
    assert (few.held_out, few.choices) == (False, 100)


def test_stricter_thresholds_keep_three_quarters_and_fewer():
    given = problem(3000)
    entry = disagreement(policy(0.2), given, None, choices=1, seed=0)
    score = audit(policy(0.2), (given.savers[0].outputs, given.large.outputs)).score
    kept = [float((score >= one).mean()) for one in entry.stricter]
    assert kept == pytest.approx([0.75, 0.5, 0.25, 0.1], abs=0.002)
    assert min(entry.stricter) > 0.2


def test_of_each_group_one_sample_is_counted():
    given = problem(600)
    groups = np.array([str(number // 10) for number in range(600)])
    entry = disagreement(policy(0.2), replace(given, groups=groups), None, choices=1, seed=0)
    assert 50 <= entry.accepted <= 60


@pytest.mark.parametrize(
    "changes",
    [{"disagreed": 11}, {"stricter": [0.9, 0.7]}, {"accepted": 0}, {"upper": 1.2}],
    ids=str,
)
def test_an_entry_that_contradicts_itself_is_refused(changes):
    good = {"accepted": 10, "disagreed": 1, "held_out": True, "choices": 1}
    more = {"confidence": 0.95, "upper": 0.4, "stricter": [0.7]}
    DisagreementEntry(**good, **more)
    with pytest.raises(ValidationError):
        DisagreementEntry(**{**good, **more, **changes})
