import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinysaver_edge.calibrate.chosen.choose import choose
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.calibrate.targets import Budgets, Method, Objective, Targets
from tinysaver_edge.errors import InfeasibleError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.score import Margin

LARGE_MACS = 1000.0
CLASSES = 3


def outputs_of(rng, labels, *, accuracy):
    """Top-2 records with few distinct margins, right about as often as asked."""
    n = len(labels)
    wrong = (labels + rng.integers(1, CLASSES, n)) % CLASSES
    first = np.where(rng.random(n) < accuracy, labels, wrong)
    best = rng.integers(6, 13, n) / 12
    rest = np.minimum(best, 1 - best)
    return Outputs.from_topk(
        np.stack([first, (first + 1) % CLASSES], axis=1), np.stack([best, rest], axis=1)
    )


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    n = draw(st.integers(4, 50))
    labels = rng.integers(0, CLASSES, n)
    macs = draw(st.lists(st.sampled_from([10.0, 100.0, 300.0, 700.0]), min_size=1, max_size=3))
    savers = tuple(
        ModelAnswers(f"saver {i}", outputs_of(rng, labels, accuracy=0.7), cost)
        for i, cost in enumerate(macs)
    )
    return Problem(
        ModelAnswers("large", outputs_of(rng, labels, accuracy=0.85), LARGE_MACS), savers, labels
    )


@st.composite
def targets(draw):
    return Targets(
        method=Method.EMPIRICAL,
        max_drop_points=draw(st.sampled_from([None, 0.0, 0.5, 3.0, 10.0, 40.0])),
        budgets=Budgets(
            mean_macs=draw(st.sampled_from([None, 5.0, 120.0, 450.0, 900.0, 1200.0])),
            escalation_rate=draw(st.sampled_from([None, 0.001, 0.1, 0.4, 0.9, 1.0])),
        ),
        objective=draw(st.sampled_from([None, Objective.MACS, Objective.ACCURACY])),
    )


def everything(problem):
    """Every saver at every threshold, and at none: name, threshold, lost samples, cost, rate."""
    n = len(problem.labels)
    large_correct = problem.large.outputs.predictions == problem.labels
    for saver in problem.savers:
        yield saver.name, None, 0, LARGE_MACS, 1.0
        margins = Margin()(saver.outputs)
        saver_correct = saver.outputs.predictions == problem.labels
        for threshold in sorted(set(margins.tolist()), reverse=True):
            accept = margins >= threshold
            cascade = np.where(accept, saver_correct, large_correct)
            escalated = n - int(accept.sum())
            cost = saver.macs + LARGE_MACS * escalated / n
            yield (
                saver.name,
                threshold,
                int(large_correct.sum()) - int(cascade.sum()),
                cost,
                escalated / n,
            )


def keeping_all(problem, asked):
    """Those that keep every limit, as the limits are defined."""
    n = len(problem.labels)
    drop, budgets = asked.allowed_drop_points, asked.budgets
    for row in everything(problem):
        _, _, lost, cost, rate = row
        if drop is not None and 100 * lost / n > drop + 1e-9:
            continue
        if budgets.mean_macs is not None and cost > budgets.mean_macs + 1e-6:
            continue
        if budgets.escalation_rate is not None and rate > budgets.escalation_rate + 1e-9:
            continue
        yield row


def chosen(problem, asked):
    proposals = propose_all(problem, asked, seed=0, candidates=len(problem.savers))
    return choose(problem, proposals, asked)


def row_of(choice):
    (row,) = [candidate for candidate in choice.candidates if candidate.chosen]
    return row


@given(problems(), targets())
@settings(max_examples=150)
def test_the_choice_is_the_best_of_all_savers_and_thresholds(problem, asked):
    rows = list(keeping_all(problem, asked))
    if not rows:
        with pytest.raises(InfeasibleError):
            chosen(problem, asked)
        return
    choice = chosen(problem, asked)
    row = row_of(choice)
    keys = (3, 2) if asked.aim is Objective.MACS else (2, 3)
    best = min(tuple(one[key] for key in keys) for one in rows)
    n = len(problem.labels)
    (mine,) = [one for one in everything(problem) if (one[0], one[1]) == (row.saver, row.threshold)]
    assert tuple(mine[key] for key in keys) == pytest.approx(best)
    assert mine in rows
    assert choice.threshold == row.threshold
    assert row.drop_points == pytest.approx(100 * mine[2] / n)
    assert row.cost_macs_ratio == pytest.approx(mine[3] / LARGE_MACS)
    assert row.accept_rate == pytest.approx(1 - mine[4])


@given(problems(), targets())
@settings(max_examples=50)
def test_every_row_tells_of_a_cascade_that_exists_and_whether_it_keeps_the_limits(problem, asked):
    assume(list(keeping_all(problem, asked)))
    kept = {(one[0], one[1]) for one in keeping_all(problem, asked)}
    choice = chosen(problem, asked)
    assert [row.saver for row in choice.candidates] == [saver.name for saver in problem.savers]
    for row, saver in zip(choice.candidates, problem.savers, strict=True):
        assert row.feasible == any(name == row.saver for name, _ in kept)
        if row.feasible:
            assert (row.saver, row.threshold) in kept
        assert row.kappa == saver.macs / LARGE_MACS
        right = saver.outputs.predictions == problem.labels
        assert row.accuracy_saver == pytest.approx(right.mean())
        assert row.why


HINTS = re.compile(r"(max drop|mean_macs|escalation_rate) \S+ would have to be ([\d.e+-]+)")


def relaxed(asked, name, value):
    if name == "max drop":
        return replace(asked, max_drop_points=value)
    return replace(asked, budgets=replace(asked.budgets, **{name: value}))


@given(problems(), targets())
@settings(max_examples=200)
def test_what_an_infeasible_request_says_of_its_limits_is_true(problem, asked):
    assume(not list(keeping_all(problem, asked)))
    with pytest.raises(InfeasibleError) as caught:
        chosen(problem, asked)
    assert caught.value.exit_code == 3
    hints = HINTS.findall(str(caught.value))
    alone_enough = {
        name: value
        for name, value in hints
        if list(keeping_all(problem, relaxed(asked, name, float(value))))
    }
    limits = ("max drop", "mean_macs", "escalation_rate")
    possible = {
        name
        for name in limits
        if has(asked, name) and list(keeping_all(problem, relaxed(asked, name, LOOSEST[name])))
    }
    assert set(alone_enough) == possible, str(caught.value)
    for name, value in alone_enough.items():
        tighter = relaxed(asked, name, 0.999 * float(value))
        assert not list(keeping_all(problem, tighter)), f"{name} need not give so much"
    if not possible:
        assert hints or "but not all at once" in str(caught.value)


LOOSEST = {"max drop": 100.0, "mean_macs": 1e9, "escalation_rate": 1.0}


def has(asked, name):
    if name == "max drop":
        return asked.allowed_drop_points is not None
    return getattr(asked.budgets, name) is not None


def simple(*, saver_correct, margins, large_correct, macs=100.0):
    """A problem where each sample is right or wrong as told."""
    n = len(margins)
    best = (1 + np.asarray(margins, np.float64)) / 2
    probabilities = np.stack([best, 1 - best], axis=1)
    labels = np.zeros(n, np.int64)

    def answers(right, table):
        first = np.where(right, 0, 1)
        return Outputs.from_topk(np.stack([first, 1 - first], axis=1), table)

    large = answers(np.asarray(large_correct), np.tile([0.9, 0.1], (n, 1)))
    saver = answers(np.asarray(saver_correct), probabilities)
    return Problem(
        ModelAnswers("big", large, LARGE_MACS), (ModelAnswers("tiny", saver, macs),), labels
    )


def test_a_bound_met_exactly_is_met():
    right = [True] * 199 + [False]
    problem = simple(saver_correct=right, margins=[0.5] * 200, large_correct=[True] * 200)
    asked = Targets(method=Method.EMPIRICAL, max_drop_points=0.5)
    assert row_of(chosen(problem, asked)).accept_rate == 1.0
    tighter = replace(asked, max_drop_points=0.49)
    assert row_of(chosen(problem, tighter)).threshold is None


def test_where_nothing_may_be_accepted_it_is_no_error():
    problem = simple(saver_correct=[False] * 10, margins=[0.5] * 10, large_correct=[True] * 10)
    choice = chosen(problem, Targets(method=Method.EMPIRICAL, max_drop_points=0))
    row = row_of(choice)
    assert choice.threshold is None
    assert (row.accept_rate, row.drop_points, row.cost_macs_ratio) == (0.0, 0.0, 1.0)
    assert row.feasible
    assert row.why == "not worth it: may accept nothing"


def test_a_cascade_dearer_than_the_large_model_is_said_to_be_so():
    # The paper's rule stops at its first noise: one accepted sample in a hundred, κ = 0.5.
    margins = [0.99] + [0.98] + [0.2] * 98
    right = [True, False] + [True] * 98
    problem = simple(saver_correct=right, margins=margins, large_correct=[True] * 100, macs=500.0)
    choice = chosen(problem, Targets(method=Method.TINYSAVER))
    row = row_of(choice)
    assert row.cost_macs_ratio is not None
    assert row.cost_macs_ratio > 1
    assert row.why.startswith("not worth it: costs 1.")


def test_among_equals_the_loosest_threshold_wins():
    problem = simple(
        saver_correct=[True] * 4, margins=[0.9, 0.7, 0.5, 0.3], large_correct=[True] * 4
    )
    asked = Targets(method=Method.EMPIRICAL, budgets=Budgets(mean_macs=LARGE_MACS))
    assert row_of(chosen(problem, asked)).accept_rate == 1.0


def test_budgets_alone_decide_where_the_drop_has_no_limit():
    problem = simple(saver_correct=[False] * 10, margins=[0.5] * 10, large_correct=[True] * 10)
    asked = Targets(method=Method.EMPIRICAL, max_drop_points=None, budgets=Budgets(mean_macs=150))
    row = row_of(chosen(problem, asked))
    assert (row.accept_rate, row.drop_points) == (1.0, 100.0)
    with pytest.raises(InfeasibleError, match=r"max drop 0\.5 would have to be 100 points"):
        chosen(problem, replace(asked, max_drop_points=0.5))


def test_the_cheaper_of_two_that_keep_a_budget_wins():
    """The more accurate one escalates everything and costs more than the large model alone."""
    margins = np.linspace(0.95, 0.05, 10)
    problem = simple(saver_correct=[True] * 10, margins=margins, large_correct=[True] * 10)
    asked = Targets(method=Method.EMPIRICAL, budgets=Budgets(mean_macs=5000))
    row = row_of(chosen(problem, asked))
    assert (row.accept_rate, row.cost_macs_ratio) == (1.0, pytest.approx(0.1))


def test_both_a_drop_and_a_budget_hold_or_both_are_named():
    margins = np.linspace(0.95, 0.05, 10)
    right = [True] * 6 + [False] * 4
    problem = simple(saver_correct=right, margins=margins, large_correct=[True] * 10)
    both = Targets(method=Method.EMPIRICAL, max_drop_points=10, budgets=Budgets(mean_macs=400))
    row = row_of(chosen(problem, both))
    assert (row.accept_rate, row.drop_points) == (pytest.approx(0.7), pytest.approx(10))
    with pytest.raises(InfeasibleError) as caught:
        chosen(problem, replace(both, budgets=Budgets(mean_macs=250)))
    assert str(caught.value) == (
        "no cascade keeps every limit: max drop 10 would have to be 30 points (over by 200 %); "
        "or mean_macs 250 would have to be 400 (over by 60 %)"
    )
