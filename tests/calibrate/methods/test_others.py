import math

import numpy as np
import pytest
from scipy import stats

from tinysaver_edge.calibrate.methods.counts import SortedScores, Verdicts, WalkCounts
from tinysaver_edge.calibrate.methods.sweep import (
    Sweep,
    crc,
    hoeffding_bentkus,
    ltt_hoeffding_bentkus,
)


def cascade(n, seed=0):
    """A saver whose mistakes grow as its score falls, and a large model that is nearly right."""
    rng = np.random.default_rng(seed)
    score = rng.random(n)
    saver = rng.random(n) < 0.5 + 0.5 * np.minimum(1, 2 * score)
    large = rng.random(n) < 0.97
    return score, saver, large


def sweep_of(score, saver, large):
    return Sweep.of(SortedScores.of(score), saver_correct=saver, large_correct=large)


def test_crc_keeps_the_mean_drop_within_the_bound_over_calibrations():
    score, saver, large = cascade(200_000)
    population = sweep_of(score, saver, large)
    rng, drops = np.random.default_rng(1), []
    for _ in range(300):
        index = rng.integers(0, len(score), size=400)
        chosen = crc(sweep_of(score[index], saver[index], large[index]), 2.0)
        drops.append(0.0 if chosen is None else population.at(chosen.threshold).drop_points)
    error = np.std(drops) / math.sqrt(len(drops))
    assert np.mean(drops) <= 2.0 + 3 * error
    assert np.mean(drops) > 0.5


def test_crc_is_stricter_than_empirical_and_may_abstain():
    sweep = sweep_of(*cascade(3000))
    assert crc(sweep, 2.0).accepted <= sweep.loosest_within(2.0).accepted
    assert crc(sweep_of(*cascade(20)), 1.0) is None


def test_hoeffding_bentkus_is_the_smaller_of_its_two_bounds():
    for mean, n, bound in ((0.1, 100, 0.2), (0.5, 1000, 0.55), (0.0, 50, 0.05), (0.3, 10, 0.2)):
        low = min(mean, bound)
        entropy = stats.entropy([low, 1 - low], [bound, 1 - bound])
        bentkus = math.e * stats.binom.cdf(math.ceil(n * mean - 1e-9), n, bound)
        expected = min(math.exp(-n * entropy), bentkus, 1.0)
        assert hoeffding_bentkus([mean], n, bound=bound)[0] == pytest.approx(expected)


def test_learn_then_test_stops_at_the_first_failure():
    score, saver, large = cascade(20_000)
    thresholds = np.linspace(0.99, 0.0, 60)
    answers = Verdicts.of((saver, large), large)
    counts = WalkCounts.of(SortedScores.of(score), answers, thresholds)
    chosen = ltt_hoeffding_bentkus(counts, 3.0, risk=0.1)
    d = (counts.lost - counts.gained) / 20_000
    p = hoeffding_bentkus((d + 1) / 2, 20_000, bound=0.515)
    index = int(np.flatnonzero(thresholds == chosen.threshold)[0])
    assert (p[: index + 1] <= 0.1).all()
    assert p[index + 1] > 0.1
    assert (chosen.lost, chosen.accepted) == (
        counts.lost[index] - counts.gained[index],
        counts.accepted[index],
    )
    assert ltt_hoeffding_bentkus(counts, 0.01, risk=0.1) is None
