"""Which cascades are looked at, and what three stages cost."""

from dataclasses import replace

import numpy as np
import pytest

from tests.calibrate.methods.test_search import problem_of
from tests.calibrate.report.world import problem as world
from tinysaver_edge.calibrate.chosen.choose import choose
from tinysaver_edge.calibrate.costs import CascadeCosts
from tinysaver_edge.calibrate.measured.latencies import for_device
from tinysaver_edge.calibrate.methods.certify import certify
from tinysaver_edge.calibrate.methods.chains import (
    LEAST_UNITS,
    best_chains,
    chains_of,
    why_no_pool,
)
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.methods.search import search
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.calibrate.targets import Budgets, Method, Objective, Reference, Targets
from tinysaver_edge.errors import InputError
from tinysaver_edge.hardware.profile import load_profile
from tinysaver_edge.latency import LatencySamples
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.score import Entropy


def names(chains):
    return [" ".join(model.name for model in chain) for chain in chains]


def test_every_chain_of_rising_cost_is_looked_at():
    problem = world(LEAST_UNITS)
    assert names(chains_of(problem, Targets())) == ["tiny small", "tiny poor", "small poor"]
    assert names(chains_of(problem, Targets(max_stages=4)))[3:] == ["tiny small poor"]


@pytest.mark.parametrize(
    "asked",
    [
        Targets(max_stages=2),
        Targets(method=Method.EMPIRICAL),
        Targets(score="head"),
        Targets(fusion="none"),
        Targets(score="all", fusion="linear"),
    ],
)
def test_there_are_none_where_a_pool_has_no_place(asked):
    assert chains_of(world(LEAST_UNITS), asked) == []
    assert chains_of(world(LEAST_UNITS - 1), Targets()) == []


@pytest.mark.parametrize("number", [1, 5])
def test_more_stages_than_are_allowed_are_refused(number):
    with pytest.raises(InputError, match=r"--max-stages .: a number from 2 to 4"):
        Targets(max_stages=number)


def test_what_is_certified_was_chosen_on_other_samples():
    problem = world(4000)
    found = best_chains(problem, Targets(max_drop_points=2.0), seed=1)
    assert len(found.tune) == 400
    assert not set(found.tune) & set(found.certify)
    kept = [chain for chain in found.chains if not chain.left_out]
    assert [len(chain.early) for chain in kept] == [1, 2, 2, 2]
    proposals = propose_all(problem, Targets(max_drop_points=2.0), seed=1, candidates=3)
    for chain, proposal in zip(found.chains, proposals, strict=True):
        assert proposal.name == " → ".join(model.name for model in chain.early)
        assert proposal.evidence.tolist() == found.certify.tolist()
        if not chain.left_out and proposal.certify is not None:
            assert proposal.certify(0).candidates == 4


@pytest.mark.parametrize(
    "asked",
    [Targets(score="all", fusion="all"), Targets(score="all"), Targets(score="msp", fusion="all")],
    ids=["both", "scores", "fusions"],
)
def test_a_search_has_longer_cascades_beside_it(asked):
    problem, asked = world(4000), replace(asked, max_drop_points=2.0)
    found = search(problem, asked, seed=1)
    proposals = propose_all(problem, asked, seed=1, candidates=3)
    longer = [one for one in proposals if one.costs.between]
    assert [one.name for one in proposals[:3]] == ["tiny", "small", "poor"]
    assert len(longer) == 3
    for one in proposals:
        if one.certify is not None:
            assert one.certify(0).candidates == found.kept + 3
            assert not set(one.evidence) & set(found.tune)
    for one in longer:
        assert one.path.pool is not None
        assert one.score.name in ({"msp"} if asked.score == "msp" else {"margin", "msp"})
        assert "of 3 cascades with more than two stages 3 were estimated on" in one.told
    choice = choose(problem, proposals, asked)
    assert choice.certify().max_drop_points == 2.0
    two = choose(problem, proposals[:3], asked)
    cost = {one is choice: one.proposal.mean_macs()[one.index] for one in (choice, two)}
    assert cost[True] <= cost[False]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"score": "head"}, "score head is one model's own: of a pool there are margin and msp"),
        ({"score": "all", "fusion": "linear"}, "fusion linear joins the answers of two models"),
        ({"score": "all", "fusion": "all"}, None),
        ({}, None),
    ],
)
def test_what_a_pool_has_not_is_said(asked, says):
    why = why_no_pool(Targets(**asked))
    assert why is None if says is None else why.startswith(says)


def test_what_costs_more_than_the_best_two_stages_is_left_out_and_said():
    problem = world(4000)
    savers = (*problem.savers, replace(problem.savers[0], name="dear", macs=990e6))
    savers = (*savers, replace(problem.savers[1], name="dearer", macs=995e6))
    found = best_chains(replace(problem, savers=savers), Targets(max_drop_points=3.0), seed=1)
    assert "in the other 3 the first model alone costs at least what" in found.told
    assert found.told.startswith(
        "of 10 cascades with more than two stages 7 were estimated on 400 "
    )


@pytest.mark.parametrize(
    "asked",
    [
        Targets(max_drop_points=3.0, budgets=Budgets(mean_macs=700e6)),
        Targets(max_drop_points=3.0, objective=Objective.ACCURACY),
        Targets(max_drop_points=None, budgets=Budgets(escalation_rate=0.5)),
        Targets(max_drop_points=3.0, reference=Reference.LARGE),
        Targets(max_drop_points=3.0, max_stages=4),
        Targets(max_drop_points=3.0, score="msp"),
    ],
)
def test_whatever_is_asked_its_limits_are_kept(asked):
    problem = world(4000)
    choice = choose(problem, propose_all(problem, asked, seed=0, candidates=3), asked)
    row = next(row for row in choice.candidates if row.chosen)
    certificate = choice.certify()
    if asked.max_drop_points is not None:
        assert certificate.max_drop_points == 3.0
    if asked.budgets.mean_macs:
        assert row.cost_macs_ratio * 1000e6 <= asked.budgets.mean_macs
    if asked.budgets.escalation_rate:
        assert 1 - row.accept_rate <= asked.budgets.escalation_rate
    for proposal in propose_all(problem, asked, seed=0, candidates=3):
        if asked.reference is Reference.LARGE and proposal.path.pool is not None:
            assert proposal.path.pool[-1] == 0.0  # a changed answer would only count against it


def test_groups_stay_whole_and_share_the_proof():
    problem = world(8000)
    grouped = replace(problem, groups=np.repeat(np.arange(4000), 2).astype(str))
    found = best_chains(grouped, Targets(max_drop_points=5.0), seed=0)
    assert not set(grouped.groups[found.tune]) & set(grouped.groups[found.certify])
    proposals = propose_all(grouped, Targets(max_drop_points=5.0), seed=0, candidates=3)
    longer = [one for one in proposals if one.costs.between and len(one.thresholds)]
    assert longer
    for one in longer:
        one.certify(len(one.thresholds) - 1).recompute()


def test_a_score_without_a_scale_is_refused():
    problem = problem_of(samples=300)
    outputs = [one.outputs for one in (*problem.savers[:2], problem.large)]
    with pytest.raises(InputError, match="has no scale of its own"):
        certify(outputs, problem.labels, max_drop_points=3.0, score=Entropy(), tune=np.arange(100))


def timed(name, macs, ms, memory=10.0):
    outputs = Outputs.from_logits(np.eye(3))
    return ModelAnswers(name, outputs, macs, LatencySamples.published(ms), memory)


def test_a_frame_costs_what_the_stages_cost_that_are_asked():
    first, second, last = timed("a", 1.0, 2.0), timed("b", 5.0, 3.0), timed("c", 50.0, 40.0, 100.0)
    costs = CascadeCosts.of(first, last, (second,))
    assert costs.at("mean_macs", 0.5, 0.1) == pytest.approx(1 + 0.5 * 5 + 0.1 * 50)
    assert costs.at("mean_latency_ms", 0.5, 0.1) == pytest.approx(2 + 0.5 * 3 + 0.1 * 40)
    assert costs.at("p95_latency_ms", 0.5, 0.1) == pytest.approx(45)
    assert costs.at("p95_latency_ms", 0.5, 0.01) == pytest.approx(5)
    assert costs.at("escalation_rate", 0.5, 0.1) == 0.1
    assert costs.at("memory_mb", 0.5, 0.1) == 120
    nobody = CascadeCosts.of(first, replace(last, latency=None), (second,))
    assert not nobody.timed
    with pytest.raises(InputError, match="there is no latency of a with c"):
        nobody.at("mean_latency_ms", 0.5, 0.1)


def test_limits_of_time_hold_for_three_stages():
    problem = world(4000)
    with_times = Problem(
        replace(problem.large, latency=LatencySamples.published(40.0), memory_mb=1.0),
        tuple(
            replace(one, latency=LatencySamples.published(ms), memory_mb=1.0)
            for one, ms in zip(problem.savers, (1.0, 4.0, 9.0), strict=True)
        ),
        problem.labels,
    )
    asked = Targets(
        max_drop_points=3.0,
        objective=Objective.LATENCY,
        budgets=Budgets(mean_latency_ms=30.0, memory_mb=3.0),
    )
    choice = choose(with_times, propose_all(with_times, asked, seed=0, candidates=3), asked)
    row = next(one for one in choice.candidates if one.chosen)
    assert row.mean_latency_ms <= 30.0
    longer = [one for one in choice.candidates if "→" in one.saver and one.mean_latency_ms]
    assert longer


def test_a_devices_profile_tells_what_each_stage_takes_there(tmp_path):
    published = {"tiny": 2.0, "small": 5.0, "large": 80.0}
    rows = "".join(
        f'[[latencies]]\nmodel = "{name}"\nengine = "openvino"\ndevice = "CPU"\nmean_ms = {ms}\n'
        f'source = "a note"\n\n'
        for name, ms in published.items()
    )
    head = 'name = "box"\ndescription = "A box."\nkind = "computer"\nboards = ["Box 3"]\n\n'
    engine = '[[engines]]\nengine = "openvino"\ndevice = "CPU"\nprecision = "float32"\n\n'
    (tmp_path / "box.toml").write_text(f"{head}{engine}{rows}[verified]\non_hardware = false\n")
    given = world(10)
    two = replace(given, savers=given.savers[:2])
    on_box, said = for_device(two, load_profile(str(tmp_path / "box.toml")))
    costs = CascadeCosts.of(on_box.savers[0], on_box.large, on_box.savers[1:])
    assert costs.at("mean_latency_ms", 0.5, 0.1) == pytest.approx(2 + 0.5 * 5 + 0.1 * 80)
    assert "published means" in said[0]
