import numpy as np
import pytest

from tests.calibrate.report.world import finished, problem
from tinysaver_edge.calibrate.methods.certify import certify_pair
from tinysaver_edge.calibrate.report.facts import MarkKind
from tinysaver_edge.calibrate.report.proof import proof_facts
from tinysaver_edge.calibrate.targets import Budgets, Targets


def certified(*, labelled=True, groups=None, points=3.0, candidates=1, samples=4000):
    given = problem(samples)
    choice = certify_pair(
        given.savers[0].outputs,
        given.large.outputs,
        given.labels if labelled else None,
        max_drop_points=points,
        candidates=candidates,
        groups=groups,
        fusion="none",
    )
    assert choice.certificate is not None, choice.why
    return given, choice


def test_a_certificate_is_told_with_all_its_counts():
    given, choice = certified(candidates=3)
    found = choice.certificate
    accept = choice.score(given.savers[0].outputs) >= choice.threshold
    saver, large = (
        one.outputs.predictions == given.labels for one in (given.savers[0], given.large)
    )
    cascade = np.where(accept, saver, large)
    proof = proof_facts(found)
    counts = dict(proof.counts)
    assert counts["lost, D = 1"] == str((large & ~cascade).sum())
    assert counts["gained, D = −1"] == str((~large & cascade).sum())
    assert counts["the same, D = 0"] == f"{(large == cascade).sum():,}"
    assert counts["accepted"] == f"{accept.sum():,}"
    assert counts["samples n"] == "4,000"
    assert counts["candidates J"] == "3"
    assert counts["allowed, δ ÷ J"] == "0.0333"
    told = " ".join(proof.sentences)
    assert "4,000 labelled samples" in told
    assert "shared by 3 candidates" in told
    assert f"p = {found.p_value:.3g}" in told
    assert (proof.threshold, proof.confidence) == (choice.threshold, pytest.approx(0.9))


def test_consistency_speaks_of_differing_answers_only():
    _, choice = certified(labelled=False, points=8.0)
    proof = proof_facts(choice.certificate)
    counts = dict(proof.counts)
    assert counts["differing answers"] == str(choice.certificate.lost)
    assert "gained, D = −1" not in counts
    assert "without labels" in proof.sentences[0]
    assert "differ from the large model's" in proof.sentences[1]


def test_groups_are_named_as_the_unit():
    _, choice = certified(groups=np.arange(20_000) // 2, points=3.0, samples=20_000)
    proof = proof_facts(choice.certificate)
    assert dict(proof.counts)["groups"] == "10,000"
    assert "10,000 groups" in proof.sentences[0]


def test_a_certified_run_is_told_and_marked():
    given = problem(4000)
    done = finished(given, targets=Targets(max_drop_points=3.0))
    facts = done.facts()
    certificate = done.result.certificate
    marks = {mark.kind: mark.point.threshold for mark in facts.sweep.marks}
    assert marks[MarkKind.CERTIFIED] == certificate.threshold == marks[MarkKind.CHOSEN]
    assert facts.decision.endswith(f"certified: {certificate.statement}.")
    assert dict(facts.proof.counts)["candidates J"] == "4"
    assert finished().facts().proof is None


def test_a_threshold_from_a_budget_is_told_as_fixed():
    targets = Targets(max_drop_points=None, budgets=Budgets(escalation_rate=0.6))
    proof = finished(problem(4000), targets=targets).facts().proof
    assert "fixed before the answers" in proof.sentences[2]
