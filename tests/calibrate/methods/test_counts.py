import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinysaver_edge.calibrate.methods.counts import SortedScores, Verdicts, WalkCounts, group_losses


@st.composite
def trials(draw):
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    levels = draw(st.sampled_from([2, 7, 1000]))
    score = rng.integers(0, levels + 1, size=n) / levels
    answers = Verdicts(*(rng.random((3, n)) < rng.random((3, 1))))
    groups = np.unique(rng.integers(0, draw(st.integers(1, 8)), size=n), return_inverse=True)[1]
    thresholds = np.sort(np.unique(rng.random(5)))[::-1]
    return score, answers, groups, thresholds


def losses(score, answers, threshold):
    """D of each sample at a threshold, as the definition says."""
    cascade = np.where(score >= threshold, answers.saver, answers.final)
    return answers.large.astype(int) - cascade


@given(trials())
def test_counts_are_those_of_each_sample(trial):
    score, answers, _, thresholds = trial
    counts = WalkCounts.of(SortedScores.of(score), answers, thresholds)
    for i, threshold in enumerate(thresholds):
        d = losses(score, answers, threshold)
        step = counts.step(i)
        assert step.threshold == threshold
        assert (step.accepted, step.lost, step.gained) == (
            (score >= threshold).sum(),
            (d == 1).sum(),
            (d == -1).sum(),
        )


@given(trials())
def test_group_losses_are_the_means_of_each_group(trial):
    score, answers, groups, thresholds = trial
    found = list(group_losses(score[None], answers, groups, thresholds[None]))
    assert len(found) == len(thresholds)
    for histogram, threshold in zip(found, thresholds, strict=True):
        d = losses(score, answers, threshold)
        means = sorted(d[groups == g].mean() for g in range(groups.max() + 1))
        listed = [loss for loss, count in histogram for _ in range(count)]
        assert np.allclose(listed, means)
