"""Moments are uniform and independent, and recordings weigh each frame as long as it is shown."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tinysaver_edge.collect.draw import Draw, shown_s
from tinysaver_edge.errors import InputError


def test_moments_are_uniform_over_period_and_sources():
    drawn = Draw(20_000, seed=1, period_s=1000.0).moments(["a", "b", "c"], [1000.0] * 3)
    at_s = np.array([one.moment_s for one in drawn])
    assert stats.kstest(at_s / 1000, "uniform").pvalue > 0.001
    assert (np.diff(at_s) >= 0).all()
    counts = [sum(one.source == name for one in drawn) for name in "abc"]
    assert stats.chisquare(counts).pvalue > 0.001
    # Independent: the gaps between uniform moments are exponential, of sources in any order.
    assert stats.kstest(np.diff(at_s) * len(at_s) / 1000, "expon").pvalue > 0.001


def test_names_all_differ_and_tell_nothing_of_the_order():
    drawn = Draw(5000, seed=2, period_s=10.0).moments(["a"], [10.0])
    ranks = np.argsort(np.argsort([one.name for one in drawn]))
    assert len({one.name for one in drawn}) == 5000
    assert abs(stats.spearmanr(ranks, np.arange(5000)).statistic) < 0.05


def test_recordings_weigh_as_long_as_they_are():
    drawn = Draw(10_000, seed=3).moments(["short", "long"], [10.0, 90.0])
    of_short = [one.moment_s for one in drawn if one.source == "short"]
    assert stats.binomtest(len(of_short), 10_000, 0.1).pvalue > 0.001
    assert stats.kstest(np.array(of_short) / 10, "uniform").pvalue > 0.001


def test_epochs_end_within_what_they_are_cut_from():
    drawn = Draw(1000, seed=4, epoch_s=4.0).moments(["short", "long"], [3.0, 10.0])
    assert {one.source for one in drawn} == {"long"}
    assert max(one.moment_s for one in drawn) <= 6.0


def test_one_seed_draws_the_same():
    one, again, other = (
        Draw(50, seed=seed, period_s=9.0).moments(["a"], [9.0]) for seed in (7, 7, 8)
    )
    assert one == again
    assert one != other


@given(st.lists(st.tuples(st.floats(0.001, 10), st.integers(1, 3)), min_size=2, max_size=50))
@settings(max_examples=100, deadline=None)
def test_a_frame_is_shown_until_the_next_less_what_was_not_decoded(steps):
    gaps = np.array([gap for gap, _ in steps])
    jumps = np.array([jump for _, jump in steps])
    times, numbers = np.cumsum(gaps), np.cumsum(jumps)
    shown = shown_s(times, numbers)
    assert shown[:-1] == pytest.approx(np.diff(times) / np.diff(numbers))
    assert shown[-1] == pytest.approx(np.median(shown[:-1]))


def test_files_without_times_give_each_frame_the_same():
    assert shown_s(np.zeros(5), np.arange(5)).tolist() == [1.0] * 5
    assert shown_s(np.zeros(0), np.zeros(0, np.int64)).tolist() == []


@pytest.mark.parametrize(
    ("given_wrong", "said"),
    [
        ({"count": 0}, "from 1 to"),
        ({"seed": -1}, "seed -1"),
        ({"period_s": -1.0}, "period of -1 s"),
        ({"period_s": 1e12}, "at most ten years"),
        ({"period_s": 5.0, "epoch_s": 5.0}, "do not fit"),
        ({"epoch_fps": 3.0}, "of epochs only"),
        ({"epoch_s": 1.0, "epoch_fps": 0.0}, "0 frames a second"),
    ],
)
def test_what_makes_no_sense_is_refused(given_wrong, said):
    with pytest.raises(InputError, match=said):
        Draw(**{"count": 5, "seed": 0, **given_wrong})


def test_nothing_to_draw_from():
    with pytest.raises(InputError, match="no frames"):
        Draw(3, seed=0).moments(["a"], [0.0])
    with pytest.raises(InputError, match="none as long as 4 s"):
        Draw(3, seed=0, epoch_s=4.0).moments(["a"], [3.0])
