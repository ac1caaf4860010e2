import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.drift.drift import LARGEST, Evidence

RATES = st.floats(0.001, 0.9)


def after(evidence, event):
    later = copy.deepcopy(evidence)
    later.add(event)
    return later.value


def watching(rate, events):
    evidence = Evidence(rate)
    for event in events:
        evidence.add(bool(event))
    return evidence


@given(RATES, st.lists(st.booleans(), max_size=60), st.floats(0, 1))
def test_nobody_gains_on_average_while_the_rate_is_kept(rate, events, part):
    evidence = watching(rate, events)
    at_most = rate * part
    expected = at_most * after(evidence, True) + (1 - at_most) * after(evidence, False)
    assert expected <= evidence.value * (1 + 1e-9)
    fair = rate * after(evidence, True) + (1 - rate) * after(evidence, False)
    assert fair == pytest.approx(evidence.value, rel=1e-9)


@given(RATES, st.lists(st.booleans(), max_size=40))
def test_a_disagreement_is_evidence_and_agreement_is_none(rate, events):
    evidence = watching(rate, events)
    assert after(evidence, False) <= evidence.value <= after(evidence, True)
    assert (evidence.observed, evidence.events) == (len(events), sum(events))


def test_it_starts_at_one():
    assert Evidence(0.1).value == 1.0


@pytest.mark.parametrize("rate", [0.003, 0.03, 0.3])
def test_looked_at_after_every_observation_false_alarms_keep_the_level(rate):
    level, runs, length = 0.1, 300, 600
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(runs):
        evidence = Evidence(rate)
        for event in rng.random(length) < rate:
            evidence.add(bool(event))
            if evidence.value >= 1 / level:
                alarms += 1
                break
    assert alarms <= level * runs


@pytest.mark.parametrize("quiet", [0, 5_000])
def test_a_change_is_found_also_after_a_long_quiet_time(quiet):
    rng = np.random.default_rng(3)
    evidence = watching(0.03, rng.random(quiet) < 0.01)
    assert evidence.value < 20
    needed = 0
    while evidence.value < 20:
        evidence.add(bool(rng.random() < 0.2))
        needed += 1
    assert needed < (60 if quiet == 0 else 140)


def test_it_does_not_overflow_where_everything_differs():
    assert watching(1e-9, [True] * 5000).value == LARGEST


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_ends_are_rates(rate):
    evidence = watching(rate, [rate == 1.0] * 100)
    assert evidence.value <= 1.0 + 1e-6


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_what_is_no_rate_is_refused(rate):
    with pytest.raises(InputError, match=r"within 0\.\.1"):
        Evidence(rate)
