import numpy as np
import pytest
from scipy import stats
from scipy.special import betaincinv

from tinysaver_edge.certificate.p_values import (
    consistency_p_value,
    group_p_value,
    group_p_values,
    lower_tail,
    p_value,
)


def double_loop(difference, n, s, epsilon):
    """P(N10 - N01 <= difference) by summing over the number of discordant samples."""
    m = np.arange(n + 1)
    inner = stats.binom.cdf(np.floor((m + difference) / 2), m, (1 + epsilon / s) / 2)
    return float((stats.binom.pmf(m, n, s) * inner).sum())


@pytest.mark.parametrize(
    ("n", "s", "epsilon"),
    [
        (1, 0.5, 0.1),
        (7, 0.6, 0.2),
        (50, 0.3, 0.05),
        (50, 0.3, -0.05),
        (321, 0.0142, 0.01),
        (2000, 0.005, 0.005),
        (10_000, 0.2, 0.005),
        (50_000, 0.15, 0.005),
        (50_000, 0.0051, 0.005),
        (50_000, 0.6, 0.001),
        (50_000, 0.1, -0.01),
    ],
)
def test_tail_equals_the_double_loop(n, s, epsilon):
    deviation = np.sqrt(n * (s - epsilon**2))
    steps = np.array([-6, -4, -3, -2, -1, -0.3, 0, 1, 3, 6])
    d = np.unique(np.clip(np.round(n * epsilon + deviation * steps), -n, n))
    ours = lower_tail(d, n, np.full(len(d), s), epsilon=epsilon)
    assert np.allclose(ours, [double_loop(x, n, s, epsilon) for x in d], atol=2e-9)


def test_tail_of_a_small_sample_is_exact_over_its_whole_range():
    d = np.arange(-9, 10)
    ours = lower_tail(d, 9, np.full(len(d), 0.4), epsilon=0.1)
    assert np.allclose(ours, [double_loop(x, 9, 0.4, 0.1) for x in d], atol=1e-12)
    assert ours[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("counts", [(3, 1, 496), (40, 25, 1935), (0, 12, 988), (700, 650, 8650)])
def test_p_value_is_berger_and_boos(counts):
    lost, gained, same = counts
    n, epsilon, risk = sum(counts), 0.02, 0.1
    bound = betaincinv(lost + gained + 1, same, 1 - risk / 10)
    expected = risk / 10 + (
        double_loop(lost - gained, n, bound, epsilon) if bound >= epsilon else 0.0
    )
    assert p_value(*counts, epsilon=epsilon, risk=risk)[0] == pytest.approx(expected, abs=1e-9)


def test_p_value_is_beta_where_even_the_discordance_is_below_epsilon():
    assert p_value(0, 0, 5000, epsilon=0.005, risk=0.1) == pytest.approx([0.01])


@pytest.mark.parametrize(
    "counts", [(0, 0, 0), (5, 0, 0), (30, 0, 70), (1, 0, 40)], ids=["none", "all", "many", "near"]
)
def test_p_value_is_one_where_nothing_can_be_said(counts):
    assert p_value(*counts, epsilon=0.02, risk=0.1).tolist() == [1.0]


@pytest.mark.parametrize("epsilon", [0.001, 0.005, 0.02, 0.1, -0.003, -0.02])
@pytest.mark.parametrize("n", [40, 300, 2000, 20_000])
def test_the_greatest_tail_over_all_discordances_is_at_the_bound(n, epsilon):
    """The claim that spares the maximum over s: checked on a grid of s, wherever it is used."""
    rng = np.random.default_rng(n)
    checked = 0
    for rate in (0.0, 0.001, 0.01, 0.05, 0.2, 0.45):
        gained, lost = rng.binomial(n, rate, size=2) // 2
        bound = float(betaincinv(lost + gained + 1, n - lost - gained, 0.99))
        if not abs(epsilon) <= bound <= 2 / 3 or not lost - gained < n * epsilon - 2:
            continue
        grid = np.linspace(max(abs(epsilon), 1e-9), bound, 400)
        tails = lower_tail(lost - gained, n, grid, epsilon=epsilon)
        assert tails.max() <= tails[-1] + 1e-9
        checked += 1
    if n * epsilon > 10:
        assert checked


def all_counts(n):
    lost, gained = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    possible = lost + gained <= n
    return lost[possible], gained[possible]


@pytest.mark.parametrize("risk", [0.05, 0.1, 0.3])
@pytest.mark.parametrize(
    ("n", "epsilon"), [(12, 0.5), (30, 0.2), (60, 0.12), (60, -0.1), (90, 0.06)]
)
def test_true_size_by_enumeration_never_exceeds_the_risk(n, epsilon, risk):
    """Every outcome of n samples, weighed by its exact chance, at many points of the hypothesis."""
    lost, gained = all_counts(n)
    rejected = p_value(lost, gained, n - lost - gained, epsilon=epsilon, risk=risk) <= risk
    assert rejected.any()
    worst = 0.0
    for mean in (epsilon, epsilon + 0.02, epsilon + 0.1):
        for s in np.linspace(abs(mean), 1.0, 60):
            chances = [(s + mean) / 2, (s - mean) / 2, 1 - s]
            if min(chances) < -1e-12:
                continue
            pmf = stats.multinomial.pmf(
                np.column_stack((lost, gained, n - lost - gained)), n, np.clip(chances, 0, 1)
            )
            worst = max(worst, float(np.nansum(pmf[rejected])))
    assert worst <= risk + 1e-9
    assert worst > risk / 20  # and the test is not so timid that it could not fail


@pytest.mark.parametrize(
    ("n", "s", "least"), [(2000, 0.02, 0.04), (10_000, 0.15, 0.07), (50_000, 0.1, 0.08)]
)
def test_size_at_the_boundary_by_simulation(n, s, least):
    epsilon, risk, runs = 0.005, 0.1, 20_000
    rng = np.random.default_rng(7)
    counts = rng.multinomial(n, [(s + epsilon) / 2, (s - epsilon) / 2, 1 - s], size=runs)
    rejected = p_value(*counts.T, epsilon=epsilon, risk=risk) <= risk
    # Four standard errors above the risk would be a wrong test; far below it, a wasteful one.
    assert rejected.mean() <= risk + 4 * np.sqrt(risk * (1 - risk) / runs)
    assert rejected.mean() >= least


def test_consistency_inverts_clopper_and_pearson():
    for differing, n in ((0, 300), (7, 1000), (900, 1000)):
        upper = stats.beta.ppf(0.9, differing + 1, n - differing)
        p = consistency_p_value([differing], n, epsilon=float(upper))
        assert p[0] == pytest.approx(0.1)
    assert consistency_p_value([0], 300, epsilon=-0.1).tolist() == [1.0]


def clip_losses(rng, mean, kind, size):
    if kind == "sure":
        return np.full(size, mean)
    if kind == "rare":
        return (rng.random(size) < mean).astype(float)
    return np.where(rng.random(size) < (1 + mean) / 2, 1.0, -1.0)


@pytest.mark.parametrize("kind", ["sure", "rare", "wild"])
@pytest.mark.parametrize("groups", [50, 400])
def test_group_bound_keeps_its_risk_at_the_boundary(kind, groups):
    rng, epsilon, risk = np.random.default_rng(3), 0.02, 0.1
    rejected = 0
    for _ in range(2000):
        losses, counts = np.unique(clip_losses(rng, epsilon, kind, groups), return_counts=True)
        rejected += group_p_value(losses, counts, epsilon=epsilon, risk=risk) <= risk
    assert rejected / 2000 <= risk + 3 * np.sqrt(risk * (1 - risk) / 2000)


def test_group_bound_signs_what_enough_groups_show():
    assert group_p_value([0.0], [1200], epsilon=0.005, risk=0.1) <= 0.1
    assert group_p_value([0.0], [100], epsilon=0.005, risk=0.1) > 0.1
    assert group_p_value([-0.1, 0.0, 0.1], [60, 880, 60], epsilon=0.02, risk=0.1) <= 0.1
    assert group_p_value([1.0], [500], epsilon=0.02, risk=0.1) == 1.0
    assert group_p_value([], [], epsilon=0.02, risk=0.1) == 1.0


def test_group_bound_does_not_depend_on_the_order():
    forward = group_p_value([-0.2, 0.0, 0.3], [5, 90, 5], epsilon=0.05, risk=0.1)
    backward = group_p_value([0.3, 0.0, -0.2], [5, 90, 5], epsilon=0.05, risk=0.1)
    assert forward == pytest.approx(backward, rel=1e-12)


def test_target_bets_sign_what_enough_groups_show():
    assert group_p_values(np.zeros((1, 243)), epsilon=0.01, risk=0.1)[0] <= 0.1
    assert group_p_values(np.zeros((1, 242)), epsilon=0.01, risk=0.1)[0] > 0.1
    assert group_p_values(np.ones((1, 500)), epsilon=0.02, risk=0.1)[0] == 1.0
    both = group_p_values(np.zeros((1, 300)), epsilon=np.array([0.001, 0.01]), risk=0.1)
    assert both[0] > 0.1 >= both[1]
    assert group_p_values(np.empty((2, 0)), epsilon=0.02, risk=0.1).tolist() == [1.0, 1.0]


SPREAD = (np.linspace(-1, 1, 41), np.exp(-(np.linspace(-5, 5, 41) ** 2) / 2))
BOUNDARY = {
    "sure": ([1.0], [1.0]),
    "rare and whole": ([0.0, 1.0], [0.98, 0.02]),
    "rare against many small gains": ([-0.02, 1.0], [0.96, 0.04]),
    "small": ([0.0, 0.1], [0.8, 0.2]),
    "wild": ([-1.0, 1.0], [0.49, 0.51]),
    "epochs": ([-1.0, -0.4, 0.0, 0.025, 0.2, 1.0], [0.003, 0.01, 0.91, 0.05, 0.02, 0.007]),
    "bell": SPREAD,
}
"""Losses and their chances, tilted below to a mean that is exactly the bound."""


@pytest.mark.parametrize("groups", [60, 400])
@pytest.mark.parametrize("name", BOUNDARY)
def test_target_bets_keep_their_risk_at_the_boundary(name, groups):
    """True mean = epsilon, the hardest: a false pass in at most one of ten draws."""
    losses, chances = (np.array(one, float) for one in BOUNDARY[name])
    rng, draws, risk = np.random.default_rng(5), 4000, 0.1
    chances = chances / chances.sum()
    epsilon = min(float(losses @ chances), 0.99)
    drawn = rng.choice(losses, p=chances, size=(draws, groups))
    passed = float((group_p_values(drawn, epsilon=epsilon, risk=risk) <= risk).mean())
    assert passed <= risk + 3 * np.sqrt(risk * (1 - risk) / draws)


def test_target_bets_reach_further_than_fixed_ones():
    """Losses as epochs have them: spread 0.1, mean 0, most of them exactly 0."""
    rng, losses = np.random.default_rng(6), np.array([-0.5, 0.0, 0.1, 0.5])
    drawn = rng.choice(losses, p=[0.02, 0.91, 0.05, 0.02], size=(300, 1000))
    fixed = [
        group_p_value(*np.unique(row, return_counts=True), epsilon=0.01, risk=0.1) <= 0.1
        for row in drawn
    ]
    target = group_p_values(drawn, epsilon=0.01, risk=0.1) <= 0.1
    assert target.mean() > np.mean(fixed) + 0.15
