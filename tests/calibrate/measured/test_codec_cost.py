"""What a codec costs the large model: counted, bounded, in words."""

from __future__ import annotations

import numpy as np
import pytest

from tinysaver_edge.calibrate.measured.images import codec_cost
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.outputs import Outputs


def problem(right: np.ndarray, groups=None) -> Problem:
    """A large model of two classes that is right where it is said; every true class is 1."""
    logits = np.stack([~right, right], axis=1).astype(np.float32)
    return Problem(
        ModelAnswers("large", Outputs(logits=logits), 1.0),
        (),
        np.ones(len(right), np.int64),
        groups,
    )


def answers(samples: int, *, lost: int, gained: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where it is right on what is sent, and what it answers on pixels."""
    sent, pixels = np.ones(samples, bool), np.ones(samples, bool)
    sent[:lost] = False
    pixels[lost : lost + gained] = False
    return sent, pixels.astype(np.int64)


@pytest.mark.parametrize(("lost", "gained", "points"), [(0, 0, 0.0), (30, 10, 2.0), (10, 30, -2.0)])
def test_it_is_the_difference_of_accuracies_and_a_bound(lost, gained, points) -> None:
    sent, on_pixels = answers(1000, lost=lost, gained=gained)
    cost = codec_cost(problem(sent), on_pixels, Jpeg(90), confidence=0.9)
    assert cost.drop_points == pytest.approx(points)
    assert cost.accuracy_sent == 1 - lost / 1000
    assert cost.accuracy_pixels == 1 - gained / 1000
    assert cost.at_most_points is not None
    assert cost.drop_points < cost.at_most_points < cost.drop_points + 1.5
    assert str(cost) == f"{points:.2f} points, at most {cost.at_most_points:.2f}"


def test_more_confidence_promises_less() -> None:
    sent, on_pixels = answers(1000, lost=30, gained=10)
    bounds = [
        codec_cost(problem(sent), on_pixels, Jpeg(90), confidence=one).at_most_points
        for one in (0.8, 0.9, 0.99)
    ]
    assert bounds == sorted(bounds)


def test_samples_in_groups_are_counted_but_not_bounded() -> None:
    sent, on_pixels = answers(1000, lost=30, gained=10)
    groups = np.repeat(np.arange(100), 10).astype(np.str_)
    cost = codec_cost(problem(sent, groups), on_pixels, Jpeg(90), confidence=0.9)
    assert cost.at_most_points is None
    assert str(cost) == "2.00 points"
