import hashlib
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from tests.calibrate.report.world import EMPIRICAL, MACS, answers, finished, margins, problem
from tinysaver_edge.calibrate.calibration import Candidate, Within
from tinysaver_edge.calibrate.problem import Problem, single_model_better
from tinysaver_edge.calibrate.report.facts import MarkKind
from tinysaver_edge.calibrate.targets import Budgets, Objective
from tinysaver_edge.fusion import ConditionalLogit


def chosen_answers(done):
    """Answers and scores of the chosen saver, and what the cascade says, by their definitions."""
    saver = next(
        one for one in done.problem.savers if one.name == done.result.policy.stages[0].model
    )
    score = margins(saver.outputs)
    accept = score >= done.result.policy.stages[0].threshold - 1e-6
    large = done.problem.large.outputs.predictions
    return (
        saver.outputs.predictions,
        score,
        accept,
        np.where(accept, saver.outputs.predictions, large),
    )


def test_each_model_alone():
    done = finished()
    singles = {one.name: one for one in done.facts().singles}
    assert list(singles) == ["large", "tiny", "small", "poor"]
    for model in (done.problem.large, *done.problem.savers):
        right = sum(
            int(a == b) for a, b in zip(model.outputs.predictions, done.problem.labels, strict=True)
        )
        assert singles[model.name].accuracy == pytest.approx(right / 600)
        assert singles[model.name].cost == MACS[model.name] / 1000e6
        assert singles[model.name].is_large == (model.name == "large")


def test_candidates_points_are_their_rows():
    done = finished()
    for one in done.facts().candidates:
        assert one.point.accept_rate == pytest.approx(one.row.accept_rate)
        assert one.point.drop_points == pytest.approx(one.row.drop_points)
        assert one.point.cost == pytest.approx(one.row.cost_macs_ratio)
        assert one.curve[-1].accept_rate == 1.0


def test_savers_that_were_not_measured_are_kept_apart():
    done = finished()
    lost = Candidate(saver="crashed", kappa=0.4, why="crashed while it was measured")
    result = replace(done.result, candidates=(*done.result.candidates, lost))
    facts = replace(done, result=result).facts()
    assert facts.unmeasured == (lost,)
    assert [one.row.saver for one in facts.candidates] == ["tiny", "small", "poor"]


def test_score_histogram_counts_every_sample_on_its_side():
    done = finished()
    facts = done.facts().histogram
    prediction, score, accept, _ = chosen_answers(done)
    right = prediction == done.problem.labels
    for counts, chosen in ((facts.right, right), (facts.wrong, ~right)):
        for count, low, high in zip(counts, facts.edges, facts.edges[1:], strict=False):
            last = high == facts.edges[-1]
            inside = (score >= low) & ((score < high) | (last & (score <= high)))
            assert count == (inside & chosen).sum()
    assert facts.right_accepted == pytest.approx((accept & right).sum() / right.sum())
    assert facts.wrong_accepted == pytest.approx((accept & ~right).sum() / (~right).sum())


def test_reliability_is_the_gap_bin_by_bin():
    done = finished()
    found = done.facts().reliability
    assert [one.model for one in found] == [done.result.policy.stages[0].model, "large"]
    outputs = done.problem.large.outputs
    confidence, right = outputs.confidences, outputs.predictions == done.problem.labels
    gap, bins = 0.0, 0
    for number in range(15):
        inside = (confidence >= number / 15) & (confidence < (number + 1) / 15)
        inside |= (number == 14) & (confidence == 1)
        if inside.any():
            one = found[1].bins[bins]
            assert one.samples == inside.sum()
            assert one.confidence == pytest.approx(confidence[inside].mean())
            assert one.accuracy == pytest.approx(right[inside].mean())
            gap += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
            bins += 1
    assert bins == len(found[1].bins)
    assert found[1].ece == pytest.approx(gap)


def test_classes_are_counted_one_by_one_and_the_worst_comes_first():
    done = finished()
    facts = done.facts(label_names=["a", "b", "c", "d", "e"])
    _, _, accept, cascade = chosen_answers(done)
    large, labels = done.problem.large.outputs.predictions, done.problem.labels
    for row in facts.classes:
        of = labels == row.index
        assert (row.name, row.samples) == ("abcde"[row.index], of.sum())
        assert row.accuracy_large == pytest.approx((large[of] == row.index).mean())
        assert row.accuracy_cascade == pytest.approx((cascade[of] == row.index).mean())
        assert row.escalation_rate == pytest.approx((~accept[of]).mean())
    drops = [row.drop_points for row in facts.classes]
    assert drops == sorted(drops, reverse=True)
    total = sum(row.lost for row in facts.classes)
    assert 100 * total / 600 == pytest.approx(done.result.calibration.drop_points)


def test_classes_without_names_or_samples():
    given = problem(40, classes=5)
    kept = given.subset(np.flatnonzero(given.labels != 2))
    rows = finished(kept).facts().classes
    assert {row.name for row in rows} == {"class 0", "class 1", "class 3", "class 4"}


def test_what_was_lost_and_what_was_escalated_for_nothing():
    done = finished()
    facts = done.facts()
    prediction, _, accept, cascade = chosen_answers(done)
    large, labels = done.problem.large.outputs.predictions, done.problem.labels
    assert facts.lost == ((large == labels) & (cascade != labels)).sum() > 0
    assert facts.needless == (~accept & (prediction == labels)).sum() > 0


def test_marks_lie_where_the_thresholds_do():
    budgets = Budgets(escalation_rate=0.7)
    targets = replace(EMPIRICAL, budgets=budgets, objective=Objective.ACCURACY)
    done = finished(targets=targets)
    marks = {mark.kind: mark.point for mark in done.facts().sweep.marks}
    assert set(marks) == {MarkKind.CHOSEN, MarkKind.LIMIT, MarkKind.BUDGET}
    assert marks[MarkKind.CHOSEN].threshold == done.result.policy.stages[0].threshold
    score = np.sort(chosen_answers(done)[1])[::-1]
    assert marks[MarkKind.BUDGET].threshold == pytest.approx(score[179])
    loosest = marks[MarkKind.LIMIT]
    assert loosest.drop_points <= 1.0 < 1.0 + loosest.accept_rate
    assert loosest.accept_rate >= marks[MarkKind.BUDGET].accept_rate == 0.3


def test_other_limits_are_kept_as_loosely_as_can_be():
    done = finished()
    sweep = done.facts().sweep
    limits = [one.max_drop_points for one in sweep.alternatives]
    assert limits[:4] == [0.0, 0.1, 0.25, 0.5]
    at_one = next(one for one in sweep.alternatives if one.max_drop_points == 1.0)
    assert at_one.point.threshold == done.result.policy.stages[0].threshold
    for one in sweep.alternatives:
        assert one.point.drop_points <= one.max_drop_points + 1e-9


def test_what_marks_and_other_limits_do_elsewhere_is_told_around_what_they_do_here():
    targets = replace(EMPIRICAL, budgets=Budgets(escalation_rate=0.7))
    facts = finished(targets=targets).facts()
    chosen = next(one.row for one in facts.candidates if one.row.chosen)
    found = (*facts.sweep.marks, *facts.sweep.alternatives)
    assert len(found) > 5
    for one in found:
        for name, (low, high) in (
            ("drop_points", one.within.drop_points),
            ("accept_rate", one.within.accept_rate),
            ("cost", one.within.cost),
        ):
            assert low < getattr(one.point, name) < high or one.point.accept_rate in (0, 1)
    mark = next(one for one in facts.sweep.marks if one.kind is MarkKind.CHOSEN)
    assert mark.within.drop_points == chosen.drop_interval_points
    assert mark.within.accept_rate == chosen.accept_interval
    assert mark.within.cost == chosen.cost_interval
    held = replace(problem(), groups=np.arange(600) // 2)
    grouped = finished(held).facts().sweep
    assert all(one.within == Within() for one in (*grouped.marks, *grouped.alternatives))


def test_the_holdout_has_its_own_curve():
    held = problem(300, seed=5)
    facts = finished(holdout=held).facts()
    assert facts.sweep.holdout[-1].drop_points != facts.sweep.calibration[-1].drop_points
    assert finished().facts().sweep.holdout == ()


def test_the_holdouts_margin_is_that_of_its_losses():
    held = problem(300, seed=5)
    done = finished(holdout=held)
    saver = next(s for s in held.savers if s.name == done.result.policy.stages[0].model)
    accept = margins(saver.outputs) >= done.result.policy.stages[0].threshold - 1e-6
    large = held.large.outputs.predictions
    cascade = np.where(accept, saver.outputs.predictions, large)
    lost = (large == held.labels).astype(int) - (cascade == held.labels)
    rng = np.random.default_rng(0)
    drops = 100 * rng.choice(lost, size=(4000, 300)).mean(axis=1)
    facts = done.facts()
    assert facts.holdout_margin_points == pytest.approx(1.96 * drops.std(), rel=0.05)
    assert finished().facts().holdout_margin_points is None


def test_a_single_model_that_serves_better_is_named():
    # With ten points to lose the large model is not needed: the small one alone is as good.
    given = problem()
    done = finished(
        given,
        targets=replace(EMPIRICAL, max_drop_points=None, budgets=Budgets(escalation_rate=0.5)),
    )
    assert single_model_better(given, done.result) is None
    alone = answers("small", given.labels, classes=5, seed=0)
    perfect = replace(alone, name="perfect", outputs=given.large.outputs, macs=60e6)
    more = Problem(given.large, (*given.savers, perfect), given.labels)
    words = single_model_better(more, done.result)
    accuracy = 100 * (given.large.outputs.predictions == given.labels).mean()
    assert words.startswith("perfect alone serves as well")
    assert f"{accuracy:.2f} %" in words
    assert "at 0.060 ×" in words


def test_a_saver_that_costs_as_much_as_the_cascade_does_as_well_and_a_dearer_one_is_no_better():
    given = problem()
    done = finished(given)
    cost = done.result.calibration.cost_macs_ratio
    same = replace(given.savers[0], name="same", outputs=given.large.outputs, macs=cost * 1000e6)
    assert single_model_better(replace(given, savers=(same,)), done.result) is not None
    dearer = replace(same, macs=1.001 * same.macs)
    assert single_model_better(replace(given, savers=(dearer,)), done.result) is None


def test_decision_says_what_happens():
    done = finished()
    facts, found = done.facts(), done.result.calibration
    saver = done.result.policy.stages[0]
    assert facts.decision.startswith(f"Let {saver.model} answer where its margin is at least")
    assert ", else large:" in facts.decision
    assert f"{100 * found.accept_rate:.1f}\u00a0%" in facts.decision
    fused = replace(done.result, policy=replace(done.result.policy, fusion=ConditionalLogit()))
    assert "fused with it" in replace(done, result=fused).facts().decision


def test_nothing_accepted_is_told_and_not_drawn():
    given = problem()
    poor = replace(given, savers=given.savers[-1:])
    facts = finished(poor, targets=replace(EMPIRICAL, max_drop_points=0.0)).facts()
    assert facts.decision.startswith("Every frame goes to large")
    assert facts.sweep.marks == ()
    assert facts.chosen[1].cost == 1.0
    assert (facts.lost, facts.needless > 0) == (0, True)
    assert facts.histogram.right_accepted == 0.0


def test_agreement_is_noticed():
    given = problem()
    large = given.large.outputs.predictions
    assert finished(replace(given, labels=large.copy())).facts().agreement
    assert not finished(given).facts().agreement


def test_origin_holds_what_a_second_run_needs(tmp_path):
    done = finished()
    given = replace(done.plan.input, records=tmp_path, labels=tmp_path / "labels.npy")
    (tmp_path / "labels.npy").write_bytes(b"labels")
    (tmp_path / "tiny.npz").write_bytes(b"tiny")
    done = replace(done, plan=replace(done.plan, input=given))
    origin = done.facts(created=datetime(2026, 1, 2, 3, 4), command="calibrate --seed 7").origin
    asked = dict(origin.asked)
    assert (asked["seed"], asked["max drop points"], asked["method"]) == ("7", "1", "empirical")
    assert (asked["large"], asked["savers"]) == ("large", "all")
    assert (origin.created, origin.command) == ("2026-01-02 03:04", "calibrate --seed 7")
    hashes = {one.name: one.sha256 for one in origin.models}
    assert hashes["tiny"] == hashlib.sha256(b"tiny").hexdigest()
    assert hashes["small"] == "no longer there"
    assert dict(origin.data)["labels, sha256"] != dict(origin.data)["MACs table, sha256"]
    assert dict(origin.versions)["numpy"] == np.__version__
