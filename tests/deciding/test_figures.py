"""Figures come with the interval that their samples leave."""

import numpy as np
import pytest

from tinysaver_edge.deciding.figures import EXACT_FROM, drop_interval, figures, interval_of
from tinysaver_edge.deciding.policy import Policy, StagePolicy
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.score import Margin


@pytest.mark.arithmetic
@pytest.mark.parametrize("samples", [18, EXACT_FROM - 1, EXACT_FROM, 2000])
@pytest.mark.parametrize(
    ("lost", "gained"),
    [(0.02, 0.01), (0.1, 0.1), (0.0, 0.05), (0.4, 0.2), (0.5, 0.3), (0.45, 0.01)],
)
def test_the_true_drop_lies_within_as_often_as_is_said(samples, lost, gained):
    rng = np.random.default_rng(samples)
    missed = 0
    for _ in range(100):
        draw = rng.random(samples)
        before = draw < 0.5 - gained
        after = before.copy()
        before |= (draw >= 0.5) & (draw < 0.5 + lost)
        after |= (draw >= 0.5 - gained) & (draw < 0.5)
        low, high = drop_interval(before, after)
        missed += not low <= 100 * (lost - gained) <= high
    assert missed <= 10  # of 100, where 5 are allowed for on average


def test_eighteen_samples_tell_little():
    before, after = np.ones(18, bool), np.ones(18, bool)
    low, high = drop_interval(before, after)
    assert low < -15
    assert high > 15
    assert low == pytest.approx(-high)
    many = drop_interval(np.ones(4000, bool), np.ones(4000, bool))
    assert many == pytest.approx((-0.15, 0.15), abs=0.05)


@pytest.mark.parametrize(
    ("lost", "gained", "samples"),
    [(400, 100, 500), (450, 10, 500), (340, 2, 500), (5000, 2000, 10_000), (9_900, 0, 10_000)],
)
def test_of_two_that_hardly_agree_as_much_is_told(lost, gained, samples):
    low, high = interval_of(lost, gained, samples)
    drop = 100 * (lost - gained) / samples
    assert low < drop < high
    assert high - low < 700 / samples**0.5
    assert interval_of(gained, lost, samples) == pytest.approx((-high, -low))


def test_no_samples_have_no_interval():
    assert drop_interval(np.ones(0, bool), np.ones(0, bool)) is None


def test_frames_of_a_clip_are_not_counted_as_if_each_stood_alone():
    logits = np.tile([2.0, 0.0], (600, 1)).astype(np.float32)
    policy = Policy((StagePolicy("tiny", score=Margin(), threshold=0.1), StagePolicy("big")))
    outputs, labels = [Outputs(logits=logits)] * 2, np.zeros(600, np.int64)
    alone = figures(policy, outputs, labels)
    low, high = alone.drop_interval_points
    assert low <= alone.drop_points <= high
    assert alone.saver_drop_interval_points == alone.drop_interval_points
    together = figures(policy, outputs, labels, grouped=True)
    assert together.drop_interval_points is None
    assert together.saver_drop_interval_points is None
