"""A fleet at work: against queueing theory, by hand, and by what must hold whatever is drawn."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest

from tinysaver_edge.plan.escalating import Bursts, Escalating
from tinysaver_edge.plan.exchange import End, Exchange
from tinysaver_edge.plan.fleet import Fleet, Times
from tinysaver_edge.plan.simulation import (
    Stretch,
    bin_of,
    formula_of,
    of_bin,
    simulate_stretch,
)

FREE = {"max_in_flight": 10_000, "max_requests": 10_000, "deadline_ms": 60_000.0}


def times(large_ms=(20.0,), *, saver_ms=0.0, sent_bytes=0.0, **others):
    saver = np.array([saver_ms])
    batches = {1: np.array(large_ms, np.float64)}
    return Times(saver, saver, batches | others.pop("more", {}), sent_bytes, **others)


def stretch(fleet, measured, flow, *, seed=0, seconds=120.0):
    return simulate_stretch(
        fleet, measured, flow, seed=np.random.SeedSequence(seed), seconds=seconds
    )


class Told(Escalating):
    """Escalates the frames that the test says, the same for all cameras."""

    asked, said, assumed = 1.0, (), ()

    def __init__(self, *frames):
        self.frames, self.rate = frames, 0.5

    def draw(self, chance, *, cameras, frames, fps):
        flags = np.zeros((cameras, frames), bool)
        flags[:, [one for one in self.frames if one < frames]] = True
        return flags

    def dispersion(self, fps):
        return 1.0


@pytest.mark.arithmetic
@pytest.mark.parametrize(
    ("draw", "hosts"),
    [
        (lambda chance: np.array([20.0]), 1),
        (lambda chance: chance.exponential(20, 20_000), 1),
        (lambda chance: chance.exponential(20, 20_000), 3),
    ],
    ids=["M/D/1", "M/M/1", "M/M/3"],
)
def test_many_independent_cameras_wait_as_queueing_theory_says(draw, hosts):
    """Many cameras that escalate one frame now and then make a Poisson stream."""
    measured = times(draw(np.random.default_rng(1)))
    cameras, load = 300, 0.7
    fps = load * hosts / 0.020 / cameras / 0.05
    fleet = Fleet(cameras, fps, 1, hosts=hosts, **FREE)
    flow = Bursts(0.05, 0.0)
    found = [stretch(fleet, measured, flow, seed=seed, seconds=400) for seed in range(3)]
    wait_ms = sum(one.answer_ms for one in found) / sum(one.ends[End.ANSWERED] for one in found)
    formula = formula_of(fleet, measured, share=0.05, dispersion=1.0)
    # Of several hosts a device asks the one where it has the least under way, and does not know
    # which is idle, as one queue for all would: it cannot wait less.
    assert wait_ms > 0.93 * formula.answer_ms
    assert wait_ms < (1.07 if hosts == 1 else 1.8) * formula.answer_ms
    busy = sum(one.busy_s for one in found) / 1200 / hosts
    assert busy == pytest.approx(formula.host_load, rel=0.05)


def test_a_frame_takes_saver_sending_network_and_model():
    fleet = Fleet(1, 1.0, 1, uplink_bps=1e6, rtt_ms=10.0)
    found = stretch(fleet, times(saver_ms=5.0, sent_bytes=12_500.0), Told(*range(200)))
    assert found.ends.tolist() == [120, 0, 0, 0]
    assert found.answer_ms / 120 == pytest.approx(100 + 10 + 20)
    assert found.sum_ms / found.frames == pytest.approx(5 + 130)
    assert found.sent_bytes == pytest.approx(120 * 12_500)
    assert found.sent_s == pytest.approx(120 * 0.1)
    assert found.busy_s == pytest.approx(120 * 0.02)


def test_what_is_under_way_shares_the_uplink_evenly():
    """M/D/1 with its server shared takes s / (1 - load) on average (Kleinrock, 1967)."""
    fleet = Fleet(300, 0.5, 1, uplink_bps=1e6, **FREE)
    measured = times([0.001], sent_bytes=10_000.0)
    found = [
        stretch(fleet, measured, Bursts(0.05, 0.0), seed=seed, seconds=1500) for seed in (0, 1)
    ]
    mean_ms = sum(one.answer_ms for one in found) / sum(one.escalated for one in found)
    load = sum(one.sent_s for one in found) / 3000
    assert load == pytest.approx(0.6, rel=0.03)
    assert mean_ms == pytest.approx(80 / (1 - load), rel=0.06)


def test_frames_that_come_together_run_in_batches():
    """Four devices escalate at once: the first alone, those that waited meanwhile together."""
    more = {2: np.array([25.0]), 4: np.array([30.0])}
    measured = times(more=more)
    assert measured.at_once == 4
    fleet = Fleet(40, 1.0, 40, **(FREE | {"rtt_ms": 0.0}))
    found = stretch(fleet, measured, Told(*range(400)), seconds=60)
    assert found.run > found.runs
    alone = stretch(fleet, times(), Told(*range(400)), seconds=60)
    assert alone.run == alone.runs
    assert found.answer_ms < alone.answer_ms


def test_a_deadline_degrades_what_comes_later_and_nothing_else():
    late = Fleet(1, 1.0, 1, deadline_ms=15.0)
    found = stretch(late, times(saver_ms=1.0), Told(*range(0, 200, 2)))
    assert found.ends[End.ANSWERED] == 0
    # Three time-outs in a row open the breaker: then nobody is asked until a probe is answered.
    assert found.ends[End.DEADLINE] + found.ends[End.FAILED] == found.escalated == 60
    on_time = stretch(replace(late, deadline_ms=25.0), times(saver_ms=1.0), Told(*range(0, 200, 2)))
    assert on_time.ends.tolist() == [60, 0, 0, 0]


def test_a_breaker_that_opened_closes_once_a_probe_is_answered():
    """Of 30 % that are too slow, three in a row come once in some fifty: never for good."""
    chance = np.random.default_rng(0)
    measured = times(np.where(chance.random(4096) < 0.3, 80.0, 10.0))
    found = stretch(Fleet(1, 10.0, 1, deadline_ms=50.0), measured, Told(*range(9000)), seconds=800)
    share = found.ends / found.escalated
    assert share[End.ANSWERED] > 0.5
    assert 0 < share[End.FAILED] < 0.25  # half a second of ten frames each time


def test_no_more_than_may_wait_for_the_large_model():
    """At 100 frames/s a model of 95 ms has ten under way, but for the limit."""
    fleet = Fleet(1, 100.0, 1, max_in_flight=1)
    found = stretch(fleet, times([95.0]), Told(*range(13_000)), seconds=100)
    assert found.ends[End.ANSWERED] == pytest.approx(1000, abs=5)  # every tenth
    assert found.ends[End.IN_FLIGHT] == pytest.approx(9000, abs=5)
    assert found.busy_s == pytest.approx(95, abs=1)


def test_hosts_refuse_what_is_more_than_they_take_and_are_asked_again():
    fleet = Fleet(20, 5.0, 20, max_requests=2, deadline_ms=200.0)
    tight = stretch(fleet, times([15.0]), Bursts(0.4, 0.2), seed=1)
    roomy = stretch(replace(fleet, max_requests=16), times([15.0]), Bursts(0.4, 0.2), seed=1)
    assert tight.escalated == roomy.escalated  # the same frames whatever the hosts are
    assert tight.ends[End.FAILED] > 10 * max(1, roomy.ends[End.FAILED])


def test_frames_of_a_camera_leave_in_order():
    """A frame that the saver settles waits for one before it that the large model has."""
    fleet = Fleet(1, 20.0, 1)
    found = stretch(fleet, times([200.0]), Told(*range(0, 4000, 20)), seconds=60)
    ages = np.repeat(np.arange(len(found.latency_ms)), found.latency_ms)
    taken = np.bincount(np.round(of_bin(ages)).astype(int))
    # Of each second's twenty frames: 200 ms, then 150, 100, 50 for those behind it.
    for late in (200, 150, 100, 50):
        assert taken[late - 1 : late + 2].sum() == 60


def test_where_another_host_could_answer_one_has_half_of_the_time():
    """One of two hosts is too slow: what it has not answered in half the time goes to the other."""
    fleet = Fleet(1, 1.0, 1, hosts=2, deadline_ms=100.0)
    chance = np.random.default_rng(0)
    measured = times(np.where(chance.random(4096) < 0.3, 80.0, 10.0))
    both = stretch(fleet, measured, Told(*range(130)), seed=3)
    one = stretch(replace(fleet, hosts=1), measured, Told(*range(130)), seed=3)
    assert both.ends[End.ANSWERED] + both.ends[End.DEADLINE] == both.escalated
    assert one.ends[End.ANSWERED] == one.escalated  # 80 ms is within the whole of it
    assert both.answer_ms < one.answer_ms


@pytest.mark.parametrize("seed", range(6))
def test_every_frame_ends_once_and_none_after_its_deadline(seed):
    chance = np.random.default_rng(seed)
    fleet = Fleet(
        cameras=int(chance.integers(1, 30)),
        fps=float(chance.uniform(1, 30)),
        devices=1,
        hosts=int(chance.integers(1, 4)),
        uplink_bps=float(chance.choice([math.inf, 2e6, 2e7])),
        rtt_ms=float(chance.uniform(0, 40)),
        deadline_ms=float(chance.uniform(40, 600)),
        max_in_flight=int(chance.integers(1, 6)),
        max_requests=int(chance.integers(1, 20)),
    )
    fleet = replace(fleet, devices=int(chance.integers(1, fleet.cameras + 1)))
    measured = times(
        chance.gamma(3, 8, 200),
        saver_ms=0.5,
        sent_bytes=20_000.0,
        more={2: chance.gamma(3, 12, 200), 4: chance.gamma(3, 18, 200)},
    )
    able, _ = fleet.with_saver(measured, 1.0)
    found = stretch(able, measured, Bursts(0.4, 0.5), seed=seed, seconds=60)
    assert found.ends.sum() == found.escalated
    assert found.latency_ms.sum() == found.frames
    assert found.busy_s <= 60 * fleet.hosts + 1
    assert found.sent_s <= 60 + 1
    longest = np.flatnonzero(found.latency_ms).max()
    assert of_bin(longest) <= 1.01 * (fleet.deadline_ms + 20 * 0.5)
    again = stretch(able, measured, Bursts(0.4, 0.5), seed=seed, seconds=60)
    assert again.sum_ms == found.sum_ms


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"rtt_ms": 0.0},
        {"uplink_bps": 40e6},
        {"devices": 10},
    ],
    ids=["free", "no round trip", "an uplink", "devices of four cameras"],
)
def test_what_meets_no_limit_ends_the_same_followed_event_by_event_or_not(others, monkeypatch):
    fleet = Fleet(40, 10.0, **({"devices": 40, "rtt_ms": 5.0, "max_in_flight": 16} | others))
    drawn = np.random.default_rng(0).gamma(50, 0.02, 100)
    more = {2: 10.0 * drawn, 4: 17.0 * drawn}
    measured = times(7.7 * drawn, saver_ms=3.0, sent_bytes=20_000.0, more=more)
    calm = stretch(fleet, measured, Bursts(0.3, 0.5))
    monkeypatch.setattr(Exchange, "run_calmly", lambda *_: None)
    followed = stretch(fleet, measured, Bursts(0.3, 0.5))
    assert calm.followed == 0 < followed.followed
    assert calm.waiting > 300
    for one in fields(Stretch):
        if one.name != "followed":
            assert getattr(calm, one.name) == pytest.approx(getattr(followed, one.name))


@pytest.mark.parametrize(
    "others",
    [{"deadline_ms": 40.0}, {"max_in_flight": 1}, {"max_requests": 4}, {"hosts": 2}],
    ids=["deadline", "in flight", "refusals", "two hosts"],
)
def test_what_meets_a_limit_is_followed(others):
    fleet = Fleet(**({"cameras": 40, "fps": 10.0, "devices": 20, "max_in_flight": 16} | others))
    assert stretch(fleet, times([6.0]), Bursts(0.3, 0.5), seconds=30).followed > 0


@pytest.mark.parametrize(
    "others",
    [
        {"deadline_ms": 60.0},
        {"max_in_flight": 2, "devices": 10},
        {"max_requests": 4},
        {"uplink_bps": 2e7, "deadline_ms": 70.0},
    ],
    ids=["deadline", "in flight", "refusals", "an uplink"],
)
def test_parts_that_meet_no_limit_need_no_following_and_end_the_same(others, monkeypatch):
    """Nothing is drawn but the frames, and pauses after refusals."""
    rules = {"devices": 40, "max_in_flight": 3, "rtt_ms": 2.0, "deadline_ms": 150.0} | others
    measured = times([6.0], sent_bytes=10_000.0, more={2: np.array([10.0])})
    found = stretch(Fleet(40, 10.0, **rules), measured, Bursts(0.3, 0.5))
    monkeypatch.setattr(Exchange, "run_calmly", lambda *_: None)
    whole = stretch(Fleet(40, 10.0, **rules), measured, Bursts(0.3, 0.5))
    assert 0 < found.followed < 0.6 * whole.followed
    assert found.escalated > found.ends[End.ANSWERED]
    for one in fields(Stretch):
        if one.name != "followed":
            assert getattr(found, one.name) == pytest.approx(getattr(whole, one.name))


def test_hosts_that_have_all_refused_are_asked_again_after_a_rest():
    """Of two hosts that take one request each, both refuse now and then: that is not the end."""
    fleet = Fleet(20, 1.0, 20, hosts=2, max_requests=1, deadline_ms=400.0)
    flow = Bursts(0.5, 0.5)
    found = [stretch(fleet, times([10.0]), flow, seed=seed, seconds=10) for seed in range(10)]
    assert sum(one.ends[End.ANSWERED] for one in found) == sum(one.escalated for one in found)
    assert sum(one.followed for one in found) > 900


def test_bins_are_half_a_percent_wide():
    values = np.geomspace(0.02, 80_000, 500)
    upper = of_bin(bin_of(values))
    assert (upper >= values * (1 - 1e-9)).all()
    assert (upper <= values * 1.00502).all()
