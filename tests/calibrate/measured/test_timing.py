"""Timing in turns: what disturbs the machine for a while decides for nobody."""

import pytest

from tinysaver_edge.calibrate.measured.timing import (
    LEAST_ROUNDS,
    MOST_ROUNDS,
    LargeTiming,
    time_in_turns,
)
from tinysaver_edge.errors import EngineError
from tinysaver_edge.latency import LatencySamples, joined_samples


class Thing:
    """Takes what it is told to, a round each; keeps nothing on disk."""

    def __init__(self, *medians_ms):
        self.medians_ms = list(medians_ms)
        self.rounds = 0

    def __call__(self, progress):
        self.rounds += 1
        value = self.medians_ms[min(self.rounds, len(self.medians_ms)) - 1]
        if value is None:
            raise EngineError("it broke")
        return LatencySamples([value] * 9)

    def known(self):
        return None

    settled = staticmethod(LargeTiming.settled)

    def keep(self, rounds):
        return joined_samples(rounds)


def timed(**things):
    order = []

    def run(thing, name):
        order.append(name)
        return thing(None)

    return dict(time_in_turns(things, run)), order


def test_all_are_timed_in_each_round_and_none_longer_than_it_tells_anything():
    quiet, restless = Thing(10.0, 10.5), Thing(10.0, 20.0, 10.0, 20.0, 10.0)
    found, order = timed(quiet=quiet, restless=restless)
    assert order == ["quiet", "restless"] * LEAST_ROUNDS + ["restless"] * (
        MOST_ROUNDS - LEAST_ROUNDS
    )
    assert found["quiet"].mean_ms == pytest.approx(10.25)
    assert found["restless"].mean_ms == pytest.approx(15)


def test_what_breaks_is_told_and_the_others_go_on():
    found, order = timed(good=Thing(1.0), bad=Thing(1.0, None))
    assert isinstance(found["bad"], EngineError)
    assert found["good"].mean_ms == 1
    assert order == ["good", "bad", "good", "bad"]
