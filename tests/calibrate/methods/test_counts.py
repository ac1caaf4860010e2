import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysaver_edge.calibrate.methods.counts import SortedScores, Verdicts, WalkCounts, group_losses
from tinysaver_edge.calibrate.methods.path import Path


@st.composite
def trials(draw):
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    levels = draw(st.sampled_from([2, 7, 1000]))
    score = rng.integers(0, levels + 1, size=n) / levels
    saver, large, final = rng.random((3, n)) < rng.random((3, 1))
    answers = Verdicts.of((saver, final), large)
    groups = np.unique(rng.integers(0, draw(st.integers(1, 8)), size=n), return_inverse=True)[1]
    thresholds = np.sort(np.unique(rng.random(5)))[::-1]
    return score, answers, groups, thresholds


def losses(score, answers, threshold):
    """D of each sample at a threshold, as the definition says."""
    return np.where(score >= threshold, *answers.losses)


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


@st.composite
def chains(draw):
    """Scores within 0..1 of some early stages, with many that are equal, and who is right."""
    early, n = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    path = Path.of(early)
    thresholds = np.sort(np.unique(np.append(rng.random(4), 0.0)))[::-1]
    scores = rng.integers(0, 8, (early, n)) / 7
    exact = path.thresholds(thresholds)  # scores that are a stage's threshold to the last bit
    scores[:, ::3] = exact[:, rng.integers(0, len(thresholds), n)][:, ::3]
    right = rng.random((early + 2, n)) < 0.6
    answers = Verdicts.of(tuple(right[:-1]), right[-1])
    groups = np.unique(rng.integers(0, 5, n), return_inverse=True)[1]
    return path, scores, answers, groups, thresholds


@given(chains())
def test_along_a_path_every_stage_is_held_against_its_own_threshold(chain):
    path, scores, answers, groups, thresholds = chain
    counts = WalkCounts.along(path, scores, answers, thresholds)
    histograms = list(group_losses(scores, answers, groups, path.thresholds(thresholds)))
    *early, final = answers.losses
    for i, threshold in enumerate(thresholds):
        d, reached = [], [0] * len(early)
        for sample in range(scores.shape[1]):
            loss = final[sample]
            for place, its in enumerate(path.at(threshold)):
                if scores[place, sample] >= its:
                    loss = early[place][sample]
                    break
                reached[place] += 1
            d.append(int(loss))
        assert counts.reached[:, i].tolist() == reached
        assert (counts.accepted[i], counts.lost[i], counts.gained[i]) == (
            scores.shape[1] - reached[-1],
            d.count(1),
            d.count(-1),
        )
        means = sorted(np.array(d)[groups == g].mean() for g in range(groups.max() + 1))
        listed = [loss for loss, count in histograms[i] for _ in range(count)]
        assert np.allclose(listed, means)


def test_the_thresholds_of_a_path_are_strict_together_and_loose_together():
    rows = Path.of(3).thresholds(np.array([1 - 1e-15, 0.999, 0.5, 0.0]))
    assert (np.diff(rows, axis=1) < 0).all()
    assert rows[:, 0].min() > 1 - 1e-12
    assert rows[:, -1].tolist() == [0.0, 0.0, 0.0]
    odds = rows[:, 1:3] / (1 - rows[:, 1:3])
    assert odds[1] == pytest.approx(0.2 * odds[0])
    assert odds[2] == pytest.approx(0.2 * odds[1])
