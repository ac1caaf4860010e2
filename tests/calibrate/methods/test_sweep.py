import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysaver_edge.calibrate.methods.counts import SortedScores
from tinysaver_edge.calibrate.methods.sweep import Sweep, lost_allowed
from tinysaver_edge.errors import InputError


@st.composite
def cascades(draw):
    """Scores with many ties, and which answers were right."""
    n = draw(st.integers(1, 60))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    score = rng.integers(0, levels, size=n) / levels
    saver, large, final = rng.random((3, n)) < rng.random((3, 1))
    return score, saver, large, final if draw(st.booleans()) else None


def by_masks(score, saver, large, final):
    """Every distinct threshold tried one by one, as the definition says."""
    final = large if final is None else final
    rows = []
    for threshold in sorted(set(score.tolist()), reverse=True):
        accept = score >= threshold
        cascade = np.where(accept, saver, final)
        rows.append((threshold, int(accept.sum()), int(large.sum()) - int(cascade.sum())))
    return rows


def swept(case):
    score, saver, large, final = case
    return Sweep.of(
        SortedScores.of(score), saver_correct=saver, large_correct=large, final_correct=final
    )


@given(cascades())
def test_sweep_equals_trying_every_threshold(case):
    sweep = swept(case)
    rows = list(
        zip(sweep.thresholds.tolist(), sweep.accepted.tolist(), sweep.lost.tolist(), strict=True)
    )
    assert rows == by_masks(*case)


@given(cascades(), st.sampled_from([-5.0, 0.0, 0.5, 3.0, 10.0, 50.0, 100.0]))
def test_loosest_within_is_the_loosest_that_keeps_the_bound(case, limit):
    found = swept(case).loosest_within(limit)
    n = len(case[0])
    keeping = [row for row in by_masks(*case) if 100 * row[2] <= limit * n + 1e-6]
    assert (found is None) == (not keeping)
    if found is not None:
        assert (found.threshold, found.accepted, found.lost) == keeping[-1]


@given(cascades(), st.floats(-0.5, 1.5))
def test_any_threshold_can_be_looked_up(case, threshold):
    score, saver, large, final = case
    found = swept(case).at(threshold)
    accept = score >= threshold
    count = SortedScores.of(score).accepted_at(np.array([threshold]))
    assert count.tolist() == [accept.sum()]
    if found is None:
        assert not accept.any()
    else:
        final = large if final is None else final
        assert found.accepted == accept.sum()
        assert found.lost == large.sum() - np.where(accept, saver, final).sum()


def test_figures_of_a_point():
    sweep = Sweep.of(
        SortedScores.of(np.array([0.9, 0.8, 0.8, 0.1])),
        saver_correct=np.array([True, True, False, False]),
        large_correct=np.array([True, False, True, True]),
    )
    assert sweep.accept_rates.tolist() == [0.25, 0.75, 1.0]
    assert sweep.drop_points.tolist() == [0.0, 0.0, 25.0]
    point = sweep.loosest_within(0.5)
    assert (point.threshold, point.accept_rate, point.escalation_rate) == (0.8, 0.75, 0.25)
    assert sweep.point(2).drop_points == 25.0


def test_a_fused_answer_can_gain_before_anything_is_accepted():
    sweep = Sweep.of(
        SortedScores.of(np.array([0.5, 0.4])),
        saver_correct=np.array([False, False]),
        large_correct=np.array([False, True]),
        final_correct=np.array([True, True]),
    )
    assert sweep.lost_without_accepting == -1
    assert sweep.lost.tolist() == [0, 1]


@pytest.mark.parametrize(("points", "n", "lost"), [(0.5, 600, 3), (0.5, 599, 2), (0.01, 10, 0)])
def test_a_bound_in_points_is_whole_samples(points, n, lost):
    assert lost_allowed(points, samples=n) == lost


@pytest.mark.parametrize(
    ("scores", "message"),
    [(np.array([]), "shape"), (np.zeros((2, 2)), "shape"), (np.array([0.1, np.nan]), "sample 1")],
    ids=["none", "two-dimensional", "nan"],
)
def test_bad_scores_are_refused(scores, message):
    with pytest.raises(InputError, match=message):
        SortedScores.of(scores)


def test_answers_of_other_samples_are_refused():
    with pytest.raises(InputError, match="3 answers of the large"):
        Sweep.of(
            SortedScores.of(np.zeros(2)),
            saver_correct=np.zeros(2, bool),
            large_correct=np.zeros(3, bool),
        )
