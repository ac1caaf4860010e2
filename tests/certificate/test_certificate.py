import base64
import dataclasses
import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tinysaver_edge.certificate.certificate import (
    Certificate,
    WalkStep,
    least_certifiable_points,
    samples_needed,
    step_p_values,
)
from tinysaver_edge.certificate.p_values import Bets, EvidenceKind, group_p_value, p_value, walk
from tinysaver_edge.errors import InputError, VerificationError


def certificate(**changes):
    values = {
        "evidence": EvidenceKind.LABELS,
        "max_drop_points": 0.5,
        "risk": 0.1,
        "candidates": 1,
        "samples": 10_000,
        "grid_size": 100,
        "steps": (WalkStep(0.9, 4000, 90, 100), WalkStep(0.8, 5000, 130, 120)),
        "failed": WalkStep(0.7, 6000, 300, 150),
    }
    return Certificate(**(values | changes))


GROUPED = Certificate(
    evidence=EvidenceKind.GROUPS,
    max_drop_points=2.0,
    risk=0.1,
    candidates=2,
    samples=9000,
    grid_size=3,
    steps=(WalkStep(0.5, 4000, 30, 60, ((0.0, 400), (-0.1, 60), (0.0, 420), (0.1, 20))),),
)
CONSISTENT = certificate(evidence=EvidenceKind.CONSISTENCY, steps=(WalkStep(0.9, 4000, 20, 0),))


@pytest.mark.parametrize(
    "made", [certificate(), GROUPED, CONSISTENT], ids=["labels", "groups", "c"]
)
def test_survives_json_and_recomputes(made):
    again = Certificate.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    again.recompute()
    assert made.p_value <= made.risk_share


def test_figures_are_those_of_the_last_step():
    c = certificate(candidates=4)
    assert (c.threshold, c.lost, c.gained, c.same) == (0.8, 130, 120, 9750)
    assert (c.confidence, c.risk_share, c.groups) == (0.9, 0.025, 0)
    assert c.p_value == p_value(130, 120, 9750, epsilon=0.005, risk=0.025)[0]
    assert GROUPED.groups == 900


def test_statement_is_one_line_for_people():
    assert certificate().statement == "drop ≤ 0.5 points with probability ≥ 90 %"
    assert CONSISTENT.statement.endswith(", from consistency")


def test_only_thresholds_that_passed_may_be_used():
    c = certificate()
    assert c.covers(0.9)
    assert c.covers(0.8)
    assert not c.covers(0.7)
    assert not c.covers(0.85)
    stricter = c.stopping_at(0.9)
    assert stricter.threshold == 0.9
    stricter.recompute()
    with pytest.raises(InputError, match="not among the 2"):
        c.stopping_at(0.7)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": (WalkStep(0.9, 4000, 90, 100), WalkStep(0.8, 5000, 200, 120))},
        {"steps": (WalkStep(0.9, 4000, 300, 100), WalkStep(0.8, 5000, 130, 120))},
        {"risk": 1e-4},
        {"max_drop_points": 0.1},
        {"candidates": 5000},
    ],
    ids=["last-step", "a-step-before", "risk", "bound", "candidates"],
)
def test_a_certificate_that_its_counts_do_not_prove_is_refused(changes):
    with pytest.raises(VerificationError, match="do not prove it"):
        certificate(**changes).recompute()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"risk": 0.0}, "risk"),
        ({"candidates": 0}, "candidate"),
        ({"steps": ()}, "states nothing"),
        ({"grid_size": 1}, "states nothing"),
        ({"max_drop_points": float("nan")}, "states nothing"),
        ({"steps": (WalkStep(0.8, 1, 0, 0), WalkStep(0.9, 2, 0, 0))}, "strict to loose"),
        ({"steps": (WalkStep(0.8, 1, 6000, 6000),)}, "cannot have lost"),
        ({"steps": (WalkStep(0.8, 20_000, 0, 0),)}, "accepted 20000"),
        ({"steps": (WalkStep(0.8, 1, 0, 0, ((0.1, 3),)),)}, "no other"),
        ({"evidence": EvidenceKind.GROUPS}, "no other"),
    ],
    ids=str,
)
def test_impossible_certificates_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        certificate(**changes)


def damaged(**changes):
    return certificate().to_json() | changes


@pytest.mark.parametrize(
    "values",
    [
        damaged(evidence="hearsay"),
        damaged(steps=[{"threshold": 0.9}]),
        damaged(steps=[{"threshold": 0.9, "accepted": 4.5, "lost": 0, "gained": 0}]),
        damaged(samples="many"),
        damaged(extra=1),
        {},
    ],
    ids=["evidence", "step", "half-a-sample", "type", "unknown", "empty"],
)
def test_damaged_certificates_are_one_clear_error(values):
    with pytest.raises(InputError, match="certificate") as caught:
        Certificate.from_json(values)
    assert "\n" not in str(caught.value)


@given(st.lists(st.floats(0, 1), max_size=20), st.sampled_from([0.05, 0.1, 0.5]))
def test_walk_stops_at_the_first_failure(p_values, risk):
    failing = [i for i, p in enumerate(p_values) if p > risk]
    passed = (failing[0] if failing else len(p_values)) - 1
    assert walk(p_values, risk=risk) == (passed if passed >= 0 else None)


def test_walk_takes_nan_for_a_failure():
    assert walk([0.01, float("nan"), 0.01], risk=0.1) == 0


@pytest.mark.parametrize(
    ("points", "risk", "samples"),
    [(1.0, 0.1, 321), (0.5, 0.1, 644), (0.1, 0.1, 3223)],
)
def test_samples_needed_with_no_differing_answer(points, risk, samples):
    assert samples_needed(points, risk=risk) == samples
    epsilon = points / 100
    assert p_value(0, 0, samples, epsilon=epsilon, risk=risk)[0] <= risk
    assert p_value(0, 0, samples - 1, epsilon=epsilon, risk=risk)[0] > risk


def test_samples_needed_grow_with_what_differs():
    few = samples_needed(0.5, risk=0.1, lost_rate=0.01, gained_rate=0.01)
    many = samples_needed(0.5, risk=0.1, lost_rate=0.05, gained_rate=0.05)
    assert 644 < few < many
    assert samples_needed(0.5, risk=0.1, lost_rate=0.02, gained_rate=0.0) is None


def least(lost, gained, same):
    n = lost + gained + same
    step = WalkStep(0.5, n, lost, gained)
    return least_certifiable_points(step, evidence=EvidenceKind.LABELS, samples=n, risk=0.1)


@pytest.mark.parametrize("counts", [(0, 0, 644), (100, 80, 9820), (100, 200, 9700), (3, 0, 97)])
def test_least_certifiable_bound_is_signed_and_the_next_lower_is_not(counts):
    points = least(*counts)
    assert p_value(*counts, epsilon=points / 100, risk=0.1)[0] <= 0.1
    assert p_value(*counts, epsilon=points / 100 - 1e-5, risk=0.1)[0] > 0.1


def test_a_cascade_that_gains_can_be_signed_as_such():
    assert least(100, 300, 9600) < -1.0
    assert least(0, 0, 3) == pytest.approx(100 * (1 - 0.01 ** (1 / 3)), abs=2e-3)
    assert least(0, 10, 0) == 100.0


def test_least_bound_from_consistency_is_clopper_and_pearson():
    step = WalkStep(0.5, 100, 7, 0)
    points = least_certifiable_points(
        step, evidence=EvidenceKind.CONSISTENCY, samples=1000, risk=0.1
    )
    assert points == pytest.approx(100 * stats.beta.ppf(0.9, 8, 993), abs=1e-3)


def test_least_bound_over_groups_is_signed_and_so_is_each_higher_one():
    found = {"evidence": EvidenceKind.GROUPS, "samples": 9000, "risk": 0.1}
    points = least_certifiable_points(GROUPED.steps[0], **found)
    tried = [points - 0.02, *np.arange(points, 20, 0.5)]
    p = [step_p_values(GROUPED.steps, max_drop_points=one, **found)[0] for one in tried]
    assert p[0] > 0.1 >= max(p[1:])


def test_a_certificate_made_with_fixed_bets_is_proved_with_them():
    """As they stand in bundles of schema 2, which name no bets and no order."""
    old = GROUPED.to_json()
    losses = ((-0.1, 60), (0.0, 820), (0.1, 20))
    step = {"threshold": 0.5, "accepted": 4000, "lost": 30, "gained": 60, "group_losses": losses}
    old = {**old, "steps": [step]}
    del old["bets"]
    again = Certificate.from_json(json.loads(json.dumps(old)))
    assert again.bets is Bets.FIXED
    again.recompute()
    fixed = group_p_value(*zip(*losses, strict=True), epsilon=0.02, risk=0.05)
    assert again.p_value == pytest.approx(fixed)
    assert again.p_value != pytest.approx(GROUPED.p_value, rel=1e-3)


@pytest.mark.parametrize(
    "order", ["", "nonsense!", "AAAA", base64.b64encode(zlib.compress(b"\0" * 36)).decode()]
)
def test_a_damaged_order_of_groups_is_refused_in_one_line(order):
    values = json.loads(json.dumps(GROUPED.to_json()))
    values["steps"][0]["order"] = order
    with pytest.raises(InputError, match="cannot be read"):
        Certificate.from_json(values)


def test_step_p_values_of_labels_are_those_of_the_counts():
    steps = certificate().steps
    found = step_p_values(
        steps, evidence=EvidenceKind.LABELS, samples=10_000, max_drop_points=0.5, risk=0.1
    )
    lost, gained = np.array([90, 130]), np.array([100, 120])
    expected = p_value(lost, gained, 10_000 - lost - gained, epsilon=0.005, risk=0.1)
    assert found == pytest.approx(expected.tolist())


def test_a_certificate_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        certificate().risk = 0.5
