import math

import pytest

from tinysaver_edge.calibrate.targets import Budgets, Method, Objective, Targets
from tinysaver_edge.errors import InputError


def test_budgets_are_read_as_the_command_line_gives_them():
    budgets = Budgets.parse(("mean_macs=60e6", " escalation_rate = 0.25"))
    assert (budgets.mean_macs, budgets.escalation_rate) == (60e6, 0.25)
    assert budgets.any
    assert not Budgets.parse(()).any


def test_flops_are_twice_the_macs():
    assert Budgets.parse(("mean_flops=60e6",)).mean_macs == 30e6


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("mean_macs",), "a plain number of MACs, as mean_macs=60e6"),
        (("mean_macs=",), "expected NAME=NUMBER"),
        (("mean_macs=60 M",), "expected NAME=NUMBER"),
        (("mean_macs=1e6=2",), "expected NAME=NUMBER"),
        (("=5",), "budget '' is unknown"),
        (("macs=5",), "budget 'macs' is unknown: did you mean mean_macs.*There are .*mean_flops"),
        (("p95_latency=5",), "did you mean p95_latency_ms"),
        (("p95_latency_ms=5ms",), "a plain number of milliseconds, as p95_latency_ms=5"),
        (("escalation_rate=30",), "from 0 to 1, as 0.3 for 30 %"),
        (("mean_macs=5", "mean_macs=6"), "mean_macs is given twice"),
        (("mean_macs=5", "mean_flops=6"), "mean_macs is given twice"),
        (("mean_macs=0",), "must be a number above 0"),
        (("mean_macs=-5",), "must be a number above 0"),
        (("mean_macs=nan",), "must be a number above 0"),
        (("escalation_rate=inf",), "must be a number above 0"),
    ],
)
def test_budgets_that_make_no_sense(texts, message):
    with pytest.raises(InputError, match=message):
        Budgets.parse(texts)


@pytest.mark.parametrize("drop", [-0.1, 100.5, math.nan, math.inf])
def test_drops_that_make_no_sense(drop):
    with pytest.raises(InputError, match="--max-drop"):
        Targets(max_drop_points=drop)


@pytest.mark.parametrize(
    ("drop", "budgets", "allowed", "aim"),
    [
        (None, Budgets(), 0.5, Objective.MACS),
        (0.0, Budgets(), 0.0, Objective.MACS),
        (2.0, Budgets(), 2.0, Objective.MACS),
        (None, Budgets(mean_macs=1e6), None, Objective.ACCURACY),
        (2.0, Budgets(escalation_rate=0.5), 2.0, Objective.MACS),
    ],
)
def test_what_is_not_said_follows_from_what_is(drop, budgets, allowed, aim):
    targets = Targets(max_drop_points=drop, budgets=budgets)
    assert targets.allowed_drop_points == allowed
    assert targets.aim is aim
    assert Targets(budgets=budgets, objective=Objective.ACCURACY).aim is Objective.ACCURACY


def test_no_budget_takes_the_limit_on_the_drop_away():
    """Nor does it turn the aim: only who says so gets the most accurate one for any price."""
    targets = Targets(budgets=Budgets(mean_macs=1e6))
    assert (targets.allowed_drop_points, targets.aim) == (0.5, Objective.MACS)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, 95.0, math.nan])
def test_confidences_that_make_no_sense(confidence):
    with pytest.raises(InputError, match="--confidence"):
        Targets(confidence=confidence)


def test_the_risk_is_what_is_left_of_the_confidence():
    assert Targets(confidence=0.95, method=Method.CERTIFIED).risk == 0.05
