"""The search pays where there is something to find, and never looks at what proves the bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.real_data import needs_records, read_records
from tinysaver_edge.calibrate.chosen.choose import choose
from tinysaver_edge.calibrate.measured.measuring import Shortlist
from tinysaver_edge.calibrate.methods.certify import split
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.methods.search import DEFAULT_RULE, search
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.calibrate.targets import ALL, Budgets, Method, Objective, Reference, Targets
from tinysaver_edge.errors import InfeasibleError, InputError
from tinysaver_edge.fusion import NoFusion
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.score import score_names

CLASSES = 6
BOTH = Targets(max_drop_points=2.0, score=ALL, fusion=ALL, max_stages=2)


def answers_of(rng, truth, *, easy: float, sure: float) -> np.ndarray:
    """Logits that are right on the easy share, and sure of themselves there."""
    n = len(truth)
    right = rng.random(n) < easy + (1 - easy) / 3
    said = np.where(right, truth, (truth + rng.integers(1, CLASSES, n)) % CLASSES)
    logits = rng.normal(0, 1, (n, CLASSES))
    logits[np.arange(n), said] += sure * (0.3 + right) + 2
    return logits


def problem_of(*, samples: int = 4000, seed: int = 0, groups: bool = False) -> Problem:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, samples)

    def model(name: str, macs: float, easy: float) -> ModelAnswers:
        return ModelAnswers(
            name, Outputs.from_logits(answers_of(rng, truth, easy=easy, sure=3.0)), macs
        )

    savers = (model("tiny", 50.0, 0.7), model("small", 200.0, 0.8), model("poor", 600.0, 0.3))
    named = None
    if groups:
        named = np.array([f"clip {i}" for i in np.sort(rng.integers(0, samples // 4, samples))])
    return Problem(model("large", 1000.0, 0.93), savers, truth, named)


def proposals_of(problem: Problem, targets: Targets, **changes):
    return propose_all(problem, targets, **{"seed": 3, "candidates": 3, **changes})


def test_without_all_every_sample_proves_the_bound():
    problem = problem_of()
    for proposal in proposals_of(problem, Targets(max_drop_points=2.0, max_stages=2)):
        assert len(proposal.evidence) == len(problem.labels)
        assert proposal.searched is None
        assert proposal.score.name == "margin"


def test_what_is_certified_took_no_part_in_the_search():
    problem = problem_of()
    found = search(problem, BOTH, seed=3)
    choice = choose(problem, proposals_of(problem, BOTH), BOTH)
    evidence, certificate = choice.proposal.evidence, choice.certify()
    assert len(found.tune) == DEFAULT_RULE.share * len(problem.labels)
    assert sorted([*found.tune, *evidence]) == list(range(len(problem.labels)))
    assert certificate.samples == len(evidence)
    assert certificate.candidates == found.kept <= 3


@pytest.mark.parametrize("groups", [False, True])
def test_labels_that_prove_the_bound_decide_nothing_else(groups):
    problem = problem_of(groups=groups)
    found = search(problem, BOTH, seed=3)
    labels = problem.labels.copy()
    rest = np.setdiff1d(np.arange(len(labels)), found.tune)
    labels[rest] = np.random.default_rng(9).integers(0, CLASSES, len(rest))
    again = search(replace(problem, labels=labels), BOTH, seed=3)
    for one, other in zip(found.savers, again.savers, strict=True):
        assert one.score.parameters == other.score.parameters
        assert one.fusion.parameters == other.fusion.parameters
        assert (one.left_out, one.tried) == (other.left_out, other.tried)
    asked = Shortlist(BOTH, holdout=0.0, seed=3, candidates=3)
    assert asked.cost(problem) == asked.cost(replace(problem, labels=labels))


def test_groups_stay_whole():
    problem = problem_of(groups=True)
    found = search(problem, BOTH, seed=3)
    rest = np.setdiff1d(np.arange(len(problem.labels)), found.tune)
    assert not set(problem.groups[found.tune]) & set(problem.groups[rest])
    # Few and small groups prove little: what matters here is that they can be certified at all.
    asked = replace(BOTH, max_drop_points=15.0)
    kept = [one for one in proposals_of(problem, asked) if not one.left_out]
    assert all(one.certify is None or one.certify(0).evidence.grouped for one in kept)


def test_every_saver_says_what_was_tried():
    problem = problem_of()
    rows = choose(problem, proposals_of(problem, BOTH), BOTH).candidates
    for row in rows:
        assert {one.score for one in row.tried} == set(score_names())
        assert len(row.tried) == len(score_names()) * 5
        chosen, *others = row.tried
        assert (chosen.score, chosen.estimate) == (row.score, pytest.approx(row.estimate))
        assert [one.estimate for one in others] == sorted(one.estimate for one in others)
    poor = next(row for row in rows if row.saver == "poor")
    assert poor.why.startswith(f"not certified: estimated at {poor.estimate:.3f} on the tune")
    assert not poor.feasible


def test_a_score_that_needs_logits_is_named_and_left_out():
    problem = problem_of()
    cut = tuple(
        replace(one, outputs=Outputs.from_topk(*one.outputs.top(5)))
        for one in (problem.large, *problem.savers)
    )
    found = search(Problem(cut[0], cut[1:], problem.labels), BOTH, seed=0)
    missing = {one.score: one.why for one in found.savers[0].tried if one.why}
    assert set(missing) == {"maxlogit_pnorm", "msp_temperature"}
    assert all("needs the logits of all classes" in why for why in missing.values())


def misleading_margin(samples: int = 6000) -> Problem:
    """The runner-up's probability is noise, so that p1 tells more than p1 - p2."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, CLASSES, samples)
    trust = rng.random(samples)
    right = rng.random(samples) < 0.35 + 0.65 * trust
    said = np.where(right, truth, (truth + 1) % CLASSES)
    rest = 0.5 - 0.06 * trust
    second = rest * rng.uniform(0.3, 0.95, samples)
    third = rest - second
    third, second = np.minimum(second, third), np.maximum(second, third)
    saver = Outputs.from_topk(
        np.stack([said, (said + 2) % CLASSES, (said + 3) % CLASSES], axis=1),
        np.stack([1 - rest, second, third], axis=1),
    )
    good = np.where(rng.random(samples) < 0.97, truth, (truth + 1) % CLASSES)
    large = Outputs.from_topk(good[:, None], np.full((samples, 1), 0.9))
    return Problem(
        ModelAnswers("large", large, 1000.0), (ModelAnswers("tiny", saver, 50.0),), truth
    )


@pytest.mark.parametrize("method", [Method.CERTIFIED, Method.EMPIRICAL])
def test_it_pays_where_another_score_is_better(method):
    problem = misleading_margin()
    plain = Targets(method=method, max_drop_points=3.0, fusion="none")
    searched = replace(plain, score=ALL)
    costs, names = [], []
    for targets in (plain, searched):
        choice = choose(problem, proposals_of(problem, targets, candidates=1), targets)
        row = choice.candidates[0]
        costs.append(row.cost_macs_ratio)
        names.append(row.score)
    assert names[0] == "margin"
    assert names[1] != "margin"
    assert costs[1] < 0.95 * costs[0]


def test_empirical_searches_on_the_same_samples():
    problem, targets = problem_of(samples=1500), replace(BOTH, method=Method.EMPIRICAL)
    choice = choose(problem, proposals_of(problem, targets), targets)
    for row in choice.candidates:
        assert row.drop_points <= 2.0
        if not row.tried[0].fitted:
            assert row.estimate == pytest.approx(row.cost_macs_ratio, abs=0.01)
    assert len(choice.proposal.evidence) == len(problem.labels)
    assert search(problem, targets, seed=3).tune is None


def test_empirical_takes_the_fusion_that_was_named():
    problem = problem_of()
    targets = Targets(method=Method.EMPIRICAL, max_drop_points=2.0, fusion="linear")
    fusions = {one.fusion.name for one in proposals_of(problem, targets) if one.fusion}
    assert fusions <= {"linear"}
    plain = replace(targets, fusion=None)
    assert all(one.fusion is None for one in proposals_of(problem, plain))


def test_without_labels_nothing_is_fused():
    problem = problem_of()
    problem = replace(problem, labels=problem.large.outputs.predictions)
    found = search(problem, replace(BOTH, reference=Reference.LARGE), seed=0)
    assert all(isinstance(one.fusion, NoFusion) for one in found.savers)
    assert {tried.fusion for one in found.savers for tried in one.tried} == {"none"}


def test_only_what_was_asked_for_is_searched():
    problem = problem_of()
    scores = search(problem, replace(BOTH, fusion="none"), seed=0).savers[0]
    assert {one.fusion for one in scores.tried} == {"none"}
    assert len(scores.tried) == len(score_names())
    fusions = search(problem, replace(BOTH, score="entropy"), seed=0).savers[0]
    assert {one.score for one in fusions.tried} == {"entropy"}
    assert len(fusions.tried) == 5


@pytest.mark.parametrize(
    "asked",
    [
        Targets(score=ALL, fusion=ALL, max_drop_points=None, budgets=Budgets(mean_macs=400.0)),
        Targets(score=ALL, fusion=ALL, max_drop_points=None, budgets=Budgets(escalation_rate=0.3)),
        Targets(
            score=ALL,
            fusion=ALL,
            max_drop_points=6.0,
            budgets=Budgets(mean_macs=900.0),
            objective=Objective.MACS,
        ),
    ],
    ids=["macs", "rate", "drop and macs"],
)
def test_budgets_are_kept(asked):
    problem = problem_of()
    choice = choose(problem, proposals_of(problem, asked), asked)
    row = next(one for one in choice.candidates if one.chosen)
    macs = 1000 * row.cost_macs_ratio
    assert macs <= (asked.budgets.mean_macs or 1e9)
    assert 1 - row.accept_rate <= (asked.budgets.escalation_rate or 1)
    assert choice.certify().max_drop_points >= row.drop_points


def test_an_impossible_limit_says_what_is_missing():
    problem = problem_of(samples=600)
    asked = replace(BOTH, max_drop_points=0.1)
    with pytest.raises(InfeasibleError) as error:
        choose(problem, proposals_of(problem, asked), asked)
    assert "max drop 0.1 would have to be" in str(error.value)
    assert "not certified: estimated" not in str(error.value)


@pytest.mark.parametrize("method", [Method.CRC, Method.LTT_HB, Method.TINYSAVER])
def test_other_methods_have_one_score(method):
    with pytest.raises(InputError, match=f"--method {method.value} goes with one score"):
        proposals_of(problem_of(samples=300), replace(BOTH, method=method))


@pytest.mark.parametrize("method", [Method.CERTIFIED, Method.EMPIRICAL])
def test_too_few_samples_to_search_on(method):
    problem = problem_of(samples=300)
    problem = problem.subset(np.arange(4 if method is Method.EMPIRICAL else 8))
    with pytest.raises(InputError, match=r"4 samples \(or groups\) are too few to search on"):
        search(problem, replace(BOTH, method=method), seed=0)


def test_the_split_is_decided_by_the_number_of_samples():
    tune, rest = split(20_000, share=DEFAULT_RULE.share, seed=1)
    assert (len(tune), len(rest)) == (2000, 18_000)
    tune, rest = split(300, share=DEFAULT_RULE.share, seed=1)
    assert (len(tune), len(rest)) == (150, 150)


@needs_records
def test_on_real_records_it_costs_about_what_the_default_does():
    records = read_records("mobilenetV2", "nasnetmobile", "densenet121", "xception")
    models = [
        ModelAnswers(name, outputs, records.macs[name]) for name, outputs in records.outputs.items()
    ]
    whole = Problem(models[-1], tuple(models[:-1]), records.labels)
    problem = whole.subset(np.sort(np.random.default_rng(0).permutation(50_000)[:10_000]))
    costs = []
    for asked in (Targets(max_stages=2), Targets(score=ALL, fusion=ALL)):
        choice = choose(problem, proposals_of(problem, asked), asked)
        costs.append(next(one.cost_macs_ratio for one in choice.candidates if one.chosen))
    assert costs[1] < 1.1 * costs[0]
