"""Budgets of time, memory and escalation: every choice against trying all there is to choose from.

The yardsticks here are written anew from their definitions: what is pooled is sorted by hand, the
bound on the escalation rate is scipy's beta quantile.
"""

import re
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.calibrate.chosen.test_choose import CLASSES, LARGE_MACS, chosen, outputs_of, row_of
from tinysaver_edge.calibrate.measured.latencies import energy_of_profile
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.problem import ModelAnswers, PairTiming, Problem
from tinysaver_edge.calibrate.targets import Budgets, Method, Objective, Targets
from tinysaver_edge.errors import InfeasibleError, InputError
from tinysaver_edge.hardware.profile import load_profile
from tinysaver_edge.latency import CascadeLatency, LatencySamples, LatencySource
from tinysaver_edge.score import Margin

QUANTILES = {"p95_latency_ms": 0.95, "p99_latency_ms": 0.99}
LARGE_MJ = 20.0
SENT_BYTES = 5_000.0  # 40 kilobits
NAMES = [one.name for one in fields(Budgets)]


def samples(*values_ms):
    return LatencySamples(np.array(values_ms, np.float64))


def timed(name, outputs, macs, *, saver, after, escalated, memory_mb=10.0):
    latency = CascadeLatency(samples(*saver), samples(*escalated), samples(*after))
    energy = {"energy_mj": 3.0 + macs / 100}
    return ModelAnswers(name, outputs, macs, with_large=PairTiming(latency, memory_mb), **energy)


@st.composite
def problems(draw, least=4, most=50):
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    n = draw(st.integers(least, most))
    labels = rng.integers(0, CLASSES, n)
    savers = []
    for i in range(draw(st.integers(1, 3))):
        base = 1 + 3 * rng.random()
        savers.append(
            timed(
                f"saver {i}",
                outputs_of(rng, labels, accuracy=0.6 + 0.1 * i),
                float(rng.choice([10.0, 100.0, 300.0])),
                saver=base + rng.gamma(1, 0.2, rng.integers(1, 6)),
                after=base + 1 + rng.gamma(1, 0.2, rng.integers(1, 6)),
                escalated=base + 8 + rng.gamma(2, 1, rng.integers(1, 9)),
                memory_mb=float(rng.integers(20, 60)),
            )
        )
    large = ModelAnswers("large", outputs_of(rng, labels, accuracy=0.85), LARGE_MACS)
    return Problem(
        replace(
            large,
            latency=samples(*(8 + rng.gamma(2, 1, 5))),
            energy_mj=LARGE_MJ,
            sent_bytes=SENT_BYTES,
        ),
        tuple(savers),
        labels,
    )


LIMITS = {
    "mean_macs": [None, None, 120.0, 450.0, 1200.0],
    "mean_latency_ms": [None, None, 3.0, 5.0, 9.0],
    "p95_latency_ms": [None, None, 5.0, 10.0, 14.0],
    "p99_latency_ms": [None, None, 6.0, 12.0, 20.0],
    "escalation_rate": [None, None, 0.1, 0.4],
    "memory_mb": [None, None, 30.0, 45.0, 70.0],
    "mean_energy_mj": [None, None, 5.0, 9.0, 25.0],
    "uplink_kbit": [None, None, 4.0, 16.0],
}


@st.composite
def budgets(draw):
    values = {name: draw(st.sampled_from(choices)) for name, choices in LIMITS.items()}
    return Budgets(**values)


@st.composite
def targets(draw, method=Method.EMPIRICAL, drops=(None, None, 0.0, 5.0, 20.0, 60.0)):
    return Targets(
        method=method,
        max_drop_points=draw(st.sampled_from(drops)),
        budgets=draw(budgets()),
        objective=draw(st.sampled_from([None, *Objective])),
    )


@dataclass(frozen=True)
class Cascade:
    """One saver at one threshold, with all that budgets limit."""

    saver: str
    threshold: float | None
    lost: int
    macs: float
    latency_ms: float
    limited: dict

    def key(self, aim):
        if aim is Objective.ACCURACY:
            return (self.lost, self.macs)
        return (self.latency_ms if aim is Objective.LATENCY else self.macs, self.lost)


def pooled_by_hand(latency, rate):
    """Mean, and a function of q, from every way a frame may take with its share of the frames."""
    shares = ((latency.saver, (1 - rate) ** 2), (latency.saver_after, (1 - rate) * rate),
              (latency.escalated, rate))  # fmt: skip
    weighted = sorted(
        (value, share / len(one)) for one, share in shares for value in one.samples_ms.tolist()
    )

    def quantile(q):
        reached = 0.0
        for value, weight in weighted:
            reached += weight
            if reached >= q - 1e-9 and weight > 0:
                return value
        return weighted[-1][0]

    return sum(value * weight for value, weight in weighted), quantile


def upper_rate(accepted, n, risk):
    """Clopper and Pearson's upper bound on the escalation rate; the rate itself without a risk."""
    if risk is None:
        return 1 - accepted / n
    return float(stats.beta.ppf(1 - risk, n - accepted + 1, accepted)) if accepted else 1.0


def cascade_at(problem, saver, threshold, *, risk=None, final_correct=None):
    """What one saver does at one threshold, limits held against the rate's upper bound."""
    n = len(problem.labels)
    large_correct = problem.large.outputs.predictions == problem.labels
    accept = Margin()(saver.outputs) >= threshold
    saver_correct = saver.outputs.predictions == problem.labels
    right = np.where(
        accept, saver_correct, large_correct if final_correct is None else final_correct
    )
    rate = 1 - accept.mean()
    upper = upper_rate(int(accept.sum()), n, risk)
    mean, quantile = pooled_by_hand(saver.with_large.latency, upper)
    return Cascade(
        saver=saver.name,
        threshold=float(threshold),
        lost=int(large_correct.sum()) - int(right.sum()),
        macs=saver.macs + rate * LARGE_MACS,
        latency_ms=pooled_by_hand(saver.with_large.latency, rate)[0],
        limited={
            "mean_macs": saver.macs + upper * LARGE_MACS,
            "mean_latency_ms": mean,
            "escalation_rate": upper,
            "memory_mb": saver.with_large.memory_mb,
            "mean_energy_mj": saver.energy_mj + upper * LARGE_MJ,
            "uplink_kbit": 40.0 * upper,
            **{name: quantile(q) for name, q in QUANTILES.items()},
        },
    )


def nobody_asked(problem, saver):
    large = problem.large.latency
    return Cascade(
        saver=saver.name,
        threshold=None,
        lost=0,
        macs=LARGE_MACS,
        latency_ms=large.mean_ms,
        limited={
            "mean_macs": LARGE_MACS,
            "mean_latency_ms": large.mean_ms,
            "escalation_rate": 1.0,
            "memory_mb": saver.with_large.memory_mb,
            "mean_energy_mj": LARGE_MJ,
            "uplink_kbit": 40.0,
            **{name: large.quantile_ms(q) for name, q in QUANTILES.items()},
        },
    )


def keeps(cascade, asked):
    return all(
        getattr(asked.budgets, name) is None or value <= getattr(asked.budgets, name) * (1 + 1e-9)
        for name, value in cascade.limited.items()
    )


def everything(problem):
    for saver in problem.savers:
        yield nobody_asked(problem, saver)
        for threshold in np.unique(Margin()(saver.outputs)):
            yield cascade_at(problem, saver, threshold)


def possible(problem, asked):
    drop, n = asked.allowed_drop_points, len(problem.labels)
    return [
        one
        for one in everything(problem)
        if keeps(one, asked) and (drop is None or 100 * one.lost / n <= drop + 1e-9)
    ]


@given(problems(), targets())
@settings(max_examples=80)
def test_the_choice_is_the_best_that_keeps_every_budget(problem, asked):
    kept = possible(problem, asked)
    if not kept:
        with pytest.raises(InfeasibleError):
            chosen(problem, asked)
        return
    row = row_of(chosen(problem, asked))
    (mine,) = [one for one in kept if (one.saver, one.threshold) == (row.saver, row.threshold)]
    assert mine.key(asked.aim) == pytest.approx(min(one.key(asked.aim) for one in kept))
    assert row.mean_latency_ms == pytest.approx(mine.latency_ms)


HINT = re.compile(r"(max drop|[a-z0-9_]+) (\S+) would have to be ([\d.e+-]+)(?: points)?"
                  r"(?: \(over by ([\d.e-]+) %\))?")  # fmt: skip


def relaxed(asked, name, value):
    if name == "max drop":
        return replace(asked, max_drop_points=value)
    return replace(asked, budgets=replace(asked.budgets, **{name: value}))


def hints_of(problem, asked):
    """Limits with what they would have to be, and whether all must give or any one of them."""
    with pytest.raises(InfeasibleError) as caught:
        chosen(problem, asked)
    assert caught.value.exit_code == 3
    found = HINT.findall(str(caught.value))
    for name, limit, needed, over in found:
        assert float(needed) > float(limit)
        if over:  # of what is rounded to four digits
            exact = 100 * (float(needed) / float(limit) - 1)
            assert float(over) == pytest.approx(exact, abs=0.51 if exact >= 1 else exact / 2)
        else:
            assert (name, float(limit)) == ("max drop", 0)
    return {name: float(needed) for name, _, needed, _ in found}, "; and " in str(caught.value)


@given(problems(), targets())
@settings(max_examples=80)
def test_what_an_infeasible_request_says_is_enough_and_no_more_than_needed(problem, asked):
    assume(not possible(problem, asked))
    hints, together = hints_of(problem, asked)
    assert hints
    if together or len(hints) == 1:
        everything_given = asked
        for name, value in hints.items():
            everything_given = relaxed(everything_given, name, value)
        assert chosen(problem, everything_given)
    if not together:
        for name, value in hints.items():
            assert chosen(problem, relaxed(asked, name, value))
            assert not possible(problem, relaxed(asked, name, 0.999 * value)), f"{name}: too much"
    loosest = dict.fromkeys(NAMES, 1e9) | {"max drop": 100.0}
    single = {
        name for name in limits_set(asked) if possible(problem, relaxed(asked, name, loosest[name]))
    }
    assert set(hints) == single if single else together or len(hints) == 1


def limits_set(asked):
    names = [name for name in NAMES if getattr(asked.budgets, name) is not None]
    return names if asked.allowed_drop_points is None else [*names, "max drop"]


# Certified: the rates enter at their upper bounds, and only what was signed may be used.


@st.composite
def certifiable(draw):
    """Savers that are wrong only where their margin is small, on enough samples to sign that."""
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    problem = draw(problems(least=700, most=900))
    labels = problem.labels
    large_correct = rng.random(len(labels)) < 0.97

    def answers(right, best):
        first = np.where(right, labels, (labels + 1) % CLASSES)
        classes = np.stack([first, (first + 2) % CLASSES], axis=1)
        return type(problem.large.outputs).from_topk(classes, np.stack([best, 1 - best], axis=1))

    savers = []
    for saver in problem.savers:
        best = 0.5 + rng.integers(1, 12, len(labels)) / 24
        hard = best < 0.5 + draw(st.sampled_from([3, 6])) / 24
        right = np.where(hard, rng.random(len(labels)) < 0.6, large_correct)
        savers.append(replace(saver, outputs=answers(right, best)))
    large = replace(problem.large, outputs=answers(large_correct, np.full(len(labels), 0.9)))
    return replace(problem, large=large, savers=tuple(savers))


def signed(problem, asked):
    """Every cascade whose threshold the certificate's walk reaches, with the budgets' rates."""
    share = asked.risk / len(problem.savers)
    for proposal in propose_all(
        problem, replace(asked, budgets=Budgets(), max_drop_points=asked.allowed_drop_points),
        seed=0, candidates=len(problem.savers),
    ):  # fmt: skip
        assert proposal.fusion is None
        for threshold in proposal.thresholds:
            yield cascade_at(problem, proposal.saver, threshold, risk=share)


@given(certifiable(), targets(method=Method.CERTIFIED, drops=(1.0, 2.0, 5.0)))
@settings(max_examples=20)
def test_certified_choices_hold_the_rates_upper_bound_against_budgets(problem, asked):
    asked = replace(asked, fusion="none")
    every = list(signed(problem, asked))
    kept = [one for one in every if keeps(one, asked)]
    if not kept:
        with pytest.raises(InfeasibleError):
            chosen(problem, asked)
        return
    choice = chosen(problem, asked)
    row = row_of(choice)
    (mine,) = [one for one in kept if (one.saver, one.threshold) == (row.saver, row.threshold)]
    assert mine.key(asked.aim) == pytest.approx(min(one.key(asked.aim) for one in kept))
    assert choice.certify().threshold == row.threshold
    certified, budget = choice.interval
    own = [one.threshold for one in every if one.saver == row.saver]
    assert certified == min(own)
    mine_kept = [one.threshold for one in kept if one.saver == row.saver]
    assert budget == (max(mine_kept) if asked.budgets.any else None)


@given(certifiable(), targets(method=Method.CERTIFIED, drops=(None,)))
@settings(max_examples=20)
def test_without_a_drop_the_budget_alone_gives_the_threshold(problem, asked):
    asked = replace(asked, fusion="none", objective=None)
    assume(asked.budgets.any)
    share = asked.risk / len(problem.savers)
    strictest = []
    for saver in problem.savers:
        fits = [
            one
            for threshold in np.unique(Margin()(saver.outputs))
            if keeps(one := cascade_at(problem, saver, threshold, risk=share), asked)
        ]
        strictest += [max(fits, key=lambda one: one.threshold)] if fits else []
    if not strictest:
        hints, together = hints_of(problem, asked)
        assert hints
        if together:
            for name, value in hints.items():
                asked = relaxed(asked, name, value)
            assert chosen(problem, asked)
        else:
            assert all(chosen(problem, relaxed(asked, *hint)) for hint in hints.items())
        return
    choice = chosen(problem, asked)
    best = min(strictest, key=lambda one: one.key(Objective.ACCURACY))
    assert (choice.proposal.saver.name, choice.threshold) == (best.saver, best.threshold)
    assert choice.interval == (None, best.threshold)
    certificate = choice.certify()
    assert certificate.threshold == best.threshold
    # Not a point more can be signed, and the counts are those at that threshold.
    assert certificate.steps[-1].lost - certificate.steps[-1].gained == best.lost
    assert 100 * best.lost / len(problem.labels) < certificate.max_drop_points


@given(certifiable(), targets(method=Method.CERTIFIED, drops=(1.0, 2.0)))
@settings(max_examples=25)
def test_a_certified_request_that_fails_says_what_would_do(problem, asked):
    asked = replace(asked, objective=None)
    try:
        chosen(problem, asked)
    except InfeasibleError:
        pass
    else:
        assume(False)
    hints, together = hints_of(problem, asked)
    assert hints
    if together:
        for name, value in hints.items():
            asked = relaxed(asked, name, value)
        assert chosen(problem, asked)
    else:
        for name, value in hints.items():
            assert chosen(problem, relaxed(asked, name, value)), name


def test_a_larger_drop_that_brings_a_fusion_with_it_is_still_enough():
    """Fusing begins where 15 samples may be lost; the hint must hold with the fused answers too."""
    rng = np.random.default_rng(3)
    n = 1000
    labels = rng.integers(0, CLASSES, n)
    saver = timed("saver", outputs_of(rng, labels, accuracy=0.93), 10.0,
                  saver=[1.0], after=[1.0], escalated=[10.0])  # fmt: skip
    large = replace(
        ModelAnswers("large", outputs_of(rng, labels, accuracy=0.95), LARGE_MACS),
        latency=samples(9.0),
    )
    problem = Problem(large, (saver,), labels)
    asked = Targets(max_drop_points=1.2, budgets=Budgets(escalation_rate=0.3))
    hints, together = hints_of(problem, asked)
    assert not together
    choice = chosen(problem, relaxed(asked, "max drop", hints["max drop"]))
    assert hints["max drop"] >= 1.5
    assert choice.proposal.fusion is not None


def test_limits_that_fail_together_are_named_together():
    """Neither is enough alone: the message asks for both, and both are enough."""
    labels = np.zeros(10, np.int64)
    rng = np.random.default_rng(0)
    outputs = outputs_of(rng, labels, accuracy=1.0)
    saver = timed("saver", outputs, 10.0, saver=[4.0], after=[4.0], escalated=[20.0], memory_mb=50)
    large = replace(ModelAnswers("large", outputs, LARGE_MACS), latency=samples(16.0))
    problem = Problem(large, (saver,), labels)
    asked = Targets(method=Method.EMPIRICAL, budgets=Budgets(mean_latency_ms=2, memory_mb=40))
    with pytest.raises(InfeasibleError) as caught:
        chosen(problem, asked)
    assert str(caught.value) == (
        "no cascade keeps every limit: mean_latency_ms 2 would have to be 4 (over by 100 %); "
        "and memory_mb 40 would have to be 50 (over by 25 %)"
    )
    enough = replace(asked, budgets=Budgets(mean_latency_ms=4, memory_mb=50))
    assert row_of(chosen(problem, enough)).accept_rate == 1.0


# Where figures come from.


@pytest.mark.parametrize(
    "name",
    ["mean_latency_ms", "p95_latency_ms", "memory_mb", "mean_energy_mj", "uplink_kbit"],
)
def test_a_budget_on_what_was_not_measured_is_refused(name):
    labels = np.zeros(10, np.int64)
    outputs = outputs_of(np.random.default_rng(0), labels, accuracy=0.9)
    problem = Problem(
        ModelAnswers("large", outputs, 100.0), (ModelAnswers("tiny", outputs, 1.0),), labels
    )
    asked = Targets(method=Method.EMPIRICAL, budgets=Budgets(**{name: 5.0}))
    with pytest.raises(InputError, match=f"{name}.*(tiny|large)"):
        chosen(problem, asked)


def test_energy_without_a_counter_is_the_profiles_power_for_as_long_as_a_frame_takes():
    labels = np.zeros(10, np.int64)
    outputs = outputs_of(np.random.default_rng(0), labels, accuracy=0.9)
    saver = timed("tiny", outputs, 1.0, saver=[2.0], after=[4.0], escalated=[20.0])
    large = ModelAnswers("large", outputs, 100.0, latency=samples(10.0))
    problem = Problem(large, (replace(saver, energy_mj=None),), labels)
    profile = load_profile("jetson-orin-nano")
    told, (warning,) = energy_of_profile(problem, profile)
    assert profile.power_w == 25
    assert (told.savers[0].energy_mj, told.large.energy_mj) == (25 * 2.0, 25 * 10.0)
    assert "no counter was read" in warning
    assert "25 W" in warning
    measured = Problem(replace(large, energy_mj=1.0), (replace(saver, energy_mj=1.0),), labels)
    assert energy_of_profile(measured, profile) == (measured, ())
    assert energy_of_profile(problem, replace(profile, power_w=None)) == (problem, ())


def test_two_models_timed_apart_are_added_up():
    labels = np.zeros(10, np.int64)
    outputs = outputs_of(np.random.default_rng(0), labels, accuracy=0.9)
    tiny = ModelAnswers("tiny", outputs, 1.0, latency=LatencySamples.published(2.0), memory_mb=3)
    large = ModelAnswers(
        "large", outputs, 100.0, latency=LatencySamples.published(10.0), memory_mb=30
    )
    (proposal,) = propose_all(
        Problem(large, (tiny,), labels), Targets(method=Method.EMPIRICAL), seed=0, candidates=1
    )
    costs = proposal.costs
    assert costs.at("mean_latency_ms", 0.5) == pytest.approx(2 + 0.5 * 10)
    assert costs.at("p99_latency_ms", 0.5) == 12
    assert costs.at("memory_mb", 0.5) == 33
    assert costs.latency.at(0.5).source is LatencySource.PUBLISHED


# What timing cannot tell.


def spread(name, macs, *means):
    """A saver that is always right, timed in rounds of these means."""
    rounds = tuple(CascadeLatency.of(samples(one), samples(9.0)) for one in means)
    outputs = outputs_of(np.random.default_rng(0), np.zeros(10, np.int64), accuracy=1.0)
    timing = PairTiming(CascadeLatency.joined(rounds), None, rounds)
    return ModelAnswers(name, outputs, macs, with_large=timing)


def asked_of(*savers, **targets):
    labels = np.zeros(10, np.int64)
    outputs = outputs_of(np.random.default_rng(0), labels, accuracy=1.0)
    large = replace(ModelAnswers("large", outputs, LARGE_MACS), latency=samples(16.0))
    return chosen(Problem(large, savers, labels), Targets(method=Method.EMPIRICAL, **targets))


def test_a_time_within_the_spread_rules_nobody_out():
    """The dearer is quicker only as far as the rounds disagree; where it is for sure, it wins."""
    cheap = spread("cheap", 10.0, 4.0, 6.0)
    choice = asked_of(cheap, spread("dear", 20.0, 4.5, 4.6), objective=Objective.LATENCY)
    assert choice.proposal.saver.name == "cheap"
    rows = {row.saver: row for row in choice.candidates}
    assert rows["cheap"].latency_spread_ms == (4.0, 6.0)
    assert "within the spread" in rows["dear"].why
    choice = asked_of(cheap, spread("dear", 20.0, 2.0, 2.1), objective=Objective.LATENCY)
    assert choice.proposal.saver.name == "dear"


def test_a_budget_of_time_is_kept_where_a_round_keeps_it():
    budgets = Budgets(mean_latency_ms=4.5)
    choice = asked_of(spread("one", 10.0, 4.0, 6.0), budgets=budgets)
    assert row_of(choice).mean_latency_ms == pytest.approx(5.0)
    with pytest.raises(InfeasibleError, match=r"mean_latency_ms 4\.5 would have to be"):
        asked_of(spread("one", 10.0, 5.0, 6.0), budgets=budgets)
