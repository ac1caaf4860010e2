"""The certificate from answers to questions is the one from labels, count for count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.real_data import needs_records, read_records
from tinysaver_edge.calibrate.methods.certify import CertifiedChoice, certify
from tinysaver_edge.calibrate.methods.chains import LEAST_UNITS
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.calibrate.targets import Budgets, Reference, Targets
from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion import ConditionalLogit, LinearFusion, NoFusion
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.questions.known import Known

CLASSES = 6


def models(samples: int, *, seed: int, early: int = 1):
    """Outputs of some models, each better than the one before it, and the true classes."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, samples)
    made = []
    for skill in np.linspace(1.6, 3.2, early + 1):
        logits = rng.normal(size=(samples, CLASSES)).astype(np.float32)
        logits[np.arange(samples), truth] += skill
        made.append(Outputs.from_logits(2 * logits))
    return made, truth


def told(choice: CertifiedChoice, truth: np.ndarray, asked: np.ndarray, samples: int) -> Known:
    """What people tell who are right, of the pairs that are asked about."""
    pairs, known = choice.trial.pairs(), Known.nothing(samples)
    place = choice.certify_index[pairs.sample]
    for row in np.flatnonzero(asked):
        sample = place[row]
        if truth[sample] in (pairs.answer[row], pairs.large[row]):
            known.truth[sample] = truth[sample]
        else:
            known.large_wrong[sample] = True
    return known


FUSIONS = {"none": NoFusion(), "linear": LinearFusion(), "logit": ConditionalLogit()}


@pytest.mark.arithmetic
@pytest.mark.parametrize("early", [1, 2, 3])
@pytest.mark.parametrize("fusion", FUSIONS.values(), ids=FUSIONS)
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10_000), grouped=st.booleans(), points=st.sampled_from([1.0, 4.0, 15.0]))
def test_all_answers_give_what_labels_give_and_some_never_more(
    early, fusion, seed, grouped, points
) -> None:
    outputs, truth = models(700, seed=seed, early=early)
    rng = np.random.default_rng(seed)
    groups = np.arange(700) // 2 if grouped else None
    common = {"max_drop_points": points, "fusion": fusion, "groups": groups, "seed": seed}
    labelled = certify(outputs, truth, **common)
    nothing = certify(outputs, Known.nothing(700), **common)
    pairs = nothing.trial.pairs()
    everything = told(nothing, truth, np.ones(len(pairs), bool), 700)
    asked = certify(outputs, everything, **common)
    assert asked.certificate == labelled.certificate
    assert asked.threshold == labelled.threshold
    counts, same = (one.trial.counted(one.trial.thresholds) for one in (asked, labelled))
    assert (counts.lost.tolist(), counts.gained.tolist()) == (
        same.lost.tolist(),
        same.gained.tolist(),
    )
    loosest = np.inf if labelled.threshold is None else labelled.threshold
    reach, order = [], rng.permutation(len(pairs))
    for count in np.linspace(0, len(pairs), 5).astype(int):
        some = np.zeros(len(pairs), bool)
        some[order[:count]] = True
        found = certify(outputs, told(nothing, truth, some, 700), **common).threshold
        reach.append(np.inf if found is None else found)
        assert reach[-1] >= loosest
    assert reach == sorted(reach, reverse=True)


def test_without_an_answer_it_is_no_more_than_consistency() -> None:
    outputs, _ = models(3000, seed=1)
    nothing = certify(outputs, Known.nothing(3000), max_drop_points=10.0)
    consistency = certify(outputs, None, max_drop_points=10.0)
    assert nothing.certificate is not None
    assert nothing.threshold >= consistency.threshold
    assert nothing.certificate.gained == 0


def test_what_learns_from_labels_is_refused() -> None:
    outputs, _ = models(600, seed=1)
    for more in ({"score": "head"}, {"fusion": "linear"}):
        with pytest.raises(InputError, match="answers to questions are none"):
            certify(outputs, Known.nothing(600), max_drop_points=5.0, **more)


def problem(samples: int, *, savers: int, seed: int = 0):
    outputs, truth = models(samples, seed=seed, early=savers)
    names = [f"saver{n}" for n in range(savers)]
    large = ModelAnswers("large", outputs[-1], 100.0)
    early = [
        ModelAnswers(n, o, 5.0 + 9 * i)
        for i, (n, o) in enumerate(zip(names, outputs[:-1], strict=True))
    ]
    return Problem(large, tuple(early), outputs[-1].predictions), truth


def test_a_fusion_looked_at_beside_none_pays_for_it() -> None:
    given_problem, _ = problem(1500, savers=2)
    asked = Targets(reference=Reference.QUESTIONS, fusion="all", max_drop_points=5.0)
    both = propose_all(given_problem, asked, seed=0, candidates=2)
    assert [one.fusion is None for one in both] == [True, False, True, False]
    assert {one.trial.candidates for one in both} == {4}
    plain = Targets(reference=Reference.QUESTIONS, max_drop_points=5.0)
    alone = propose_all(given_problem, plain, seed=0, candidates=2)
    assert [(one.fusion, one.trial.candidates) for one in alone] == [(None, 2), (None, 2)]


def test_chains_are_chosen_on_a_tune_split_that_is_not_asked_about() -> None:
    given_problem, truth = problem(LEAST_UNITS + 500, savers=3)
    asked = Targets(reference=Reference.QUESTIONS, max_drop_points=6.0)
    proposals = propose_all(given_problem, asked, seed=0, candidates=3)
    longer = [one for one in proposals if one.trial is not None and one.trial.path.stages > 1]
    assert longer
    tuned = np.setdiff1d(np.arange(len(truth)), longer[0].evidence)
    assert len(tuned) >= 200
    assert not np.isin(tuned, longer[0].evidence[longer[0].trial.pairs().sample]).any()


def test_a_budget_alone_takes_the_threshold_without_a_look_at_the_answers() -> None:
    given_problem, truth = problem(2000, savers=1)
    asked = Targets(
        reference=Reference.QUESTIONS, max_drop_points=None, budgets=Budgets(escalation_rate=0.4)
    )
    found = []
    for known in (None, Known.of_labels(truth)):
        one = propose_all(
            Problem(given_problem.large, given_problem.savers, given_problem.labels, known=known),
            asked,
            seed=0,
            candidates=1,
        )[0]
        found.append((one.thresholds.tolist(), one.certify(0).max_drop_points))
    assert found[0][0] == found[1][0]
    assert found[0][1] > found[1][1]


@needs_records
@pytest.mark.parametrize("fusion", ["none", "logit"])
@pytest.mark.parametrize(
    "chain",
    [
        ("mobilenetV2", "xception"),
        ("nasnetmobile", "nasnetlarge"),
        ("mobilenetV2", "nasnetmobile", "nasnetlarge"),
    ],
    ids=" → ".join,
)
def test_on_the_real_records_it_is_the_certificate_of_labels(chain, fusion) -> None:
    records = read_records(*chain)
    index = np.random.default_rng(0).permutation(50_000)[:10_000]
    outputs = [records.outputs[name].subset(index) for name in chain]
    truth = records.labels[index]
    common = {"max_drop_points": 0.5, "fusion": FUSIONS[fusion]}
    labelled = certify(outputs, truth, **common)
    nothing = certify(outputs, Known.nothing(10_000), **common)
    pairs = nothing.trial.pairs()
    # Only what is asked before the walk stops: the rest stays at its worst.
    steps = len(labelled.certificate.steps)
    known = told(nothing, truth, pairs.first <= steps, 10_000)
    assert certify(outputs, known, **common).certificate == labelled.certificate
    assert (pairs.first <= steps).sum() < 0.1 * 10_000
