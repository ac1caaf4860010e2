"""A fleet at work for a stretch of time, and what is counted of it.

What a frame meets: its device's saver, one frame after the other; where that is unsure, all that
queues (`exchange.py`), event by event; and the frames before it, since decisions of a camera leave
in order. All that needs no queue is done on whole arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.outputs import FloatArray
from tinysaver_edge.plan.escalating import Escalating
from tinysaver_edge.plan.exchange import End, Exchange
from tinysaver_edge.plan.fleet import Fleet, Times

STRETCH_S = 120.0
"""A stretch of time that is simulated by itself; stretches are independent of each other."""

WARM_UP_DEADLINES = 3.0
"""So many deadlines, and a second, run before a stretch counts: no frame lives for longer."""

BINS_FROM_MS, BIN_STEP, BINS = 0.01, 0.005, 3200
"""Latencies are counted in bins that are half a percent wide, from 0.01 ms to 88 s."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one stretch counted.

    Attributes:
        seconds: how long it was.
        frames: of all cameras.
        escalated: of them, how many the savers were unsure about.
        ends: how many escalations ended in each way, by `End`.
        latency_ms: frames by how long they took to their final decision, in bins.
        sum_ms: of these times.
        answer_ms: sum of the times that answered escalations took after the saver.
        a_second: seconds by how many escalations they had.
        a_minute: minutes likewise.
        sent_s: seconds in which the uplink was sending.
        sent_bytes: how much was sent.
        busy_s: seconds in which hosts ran the model, all hosts together.
        run: frames that hosts ran.
        waiting: sum over the hosts' runs of how many frames were left waiting.
        runs: batches that hosts ran.
        followed: escalations that had to be followed event by event.
    """

    seconds: float
    frames: int
    escalated: int
    ends: NDArray[np.int64]
    latency_ms: NDArray[np.int64]
    sum_ms: float
    answer_ms: float
    a_second: NDArray[np.int64]
    a_minute: NDArray[np.int64]
    sent_s: float
    sent_bytes: float
    busy_s: float
    run: int
    waiting: int
    runs: int
    followed: int


def simulate_stretch(
    fleet: Fleet,
    times: Times,
    escalating: Escalating,
    *,
    seed: np.random.SeedSequence,
    seconds: float = STRETCH_S,
) -> Stretch:
    """Run a fleet for a while, from rest.

    Args:
        fleet: the fleet, at a rate that its savers keep up with.
        times: what was measured.
        escalating: which frames are escalated.
        seed: of everything that is drawn; the same draws the same frames whatever the hosts are.
        seconds: how long it counts.
    """
    frames_seed, hosts_seed = seed.spawn(2)
    chance = np.random.default_rng(frames_seed)
    from_s = 1.0 + WARM_UP_DEADLINES * fleet.deadline_ms / 1e3
    count = math.ceil((from_s + seconds) * fleet.fps)
    unsure = escalating.draw(chance, cameras=fleet.cameras, frames=count, fps=fleet.fps)
    spent_s = np.where(
        unsure,
        chance.choice(times.escalated_ms, unsure.shape),
        chance.choice(times.accepted_ms, unsure.shape),
    )
    if escalating.asked < 1:  # still frames ask nobody
        spent_s[~unsure & (chance.random(unsure.shape) >= _others(escalating))] = 0.0
    taken_s = chance.random((fleet.cameras, 1)) / fleet.fps + np.arange(count) / fleet.fps
    saved_s = _through_savers(taken_s, spent_s / 1e3, fleet.devices)
    whose = np.arange(fleet.cameras) % fleet.devices
    places = np.flatnonzero(unsure)
    places = places[np.argsort(saved_s.ravel()[places], kind="stable")]
    begun_s = saved_s.ravel()[places]
    due_s = taken_s.ravel()[places] + fleet.deadline_ms / 1e3
    device, counted_s = whose[places // count], (from_s, from_s + seconds)
    exchange = Exchange(fleet, times, np.random.default_rng(hosts_seed))
    ended_s = exchange.run_calmly(begun_s, due_s, device, counts=counted_s)
    ends, followed = np.zeros(len(places), np.int64), 0
    if ended_s is None:
        followed = len(places)
        exchange = Exchange(fleet, times, np.random.default_rng(hosts_seed))
        ended_s, ends = exchange.run_all(begun_s, due_s, device, counts=counted_s)
    done_s = saved_s
    done_s.ravel()[places] = ended_s
    np.maximum.accumulate(done_s, axis=1, out=done_s)  # they leave in order
    counts = (taken_s >= from_s) & (taken_s < from_s + seconds)
    ages_ms = (done_s - taken_s)[counts] * 1e3
    here = counts.ravel()[places]
    answered = ends[here] == End.ANSWERED
    second = (begun_s[here] - from_s).astype(int)
    second = np.bincount(second[second < seconds], minlength=int(seconds))[: int(seconds)]
    minute = second[: len(second) // 60 * 60].reshape(-1, 60).sum(axis=1)
    return Stretch(
        seconds=seconds,
        frames=int(counts.sum()),
        escalated=int(here.sum()),
        ends=np.bincount(ends[here], minlength=len(End)),
        latency_ms=np.bincount(bin_of(ages_ms), minlength=BINS),
        sum_ms=float(ages_ms.sum()),
        answer_ms=1e3 * float((ended_s[here] - begun_s[here])[answered].sum()),
        a_second=np.bincount(second),
        a_minute=np.bincount(minute),
        sent_s=exchange.sent_s,
        sent_bytes=exchange.sent_bytes,
        busy_s=exchange.busy_s,
        run=exchange.run,
        waiting=exchange.waiting,
        runs=exchange.runs,
        followed=followed,
    )


def _others(escalating: Escalating) -> float:
    """Return the chance that a frame which is not escalated asks the saver."""
    return max(0.0, (escalating.asked - escalating.rate) / max(1 - escalating.rate, 1e-12))


def _through_savers(taken_s: FloatArray, spent_s: FloatArray, devices: int) -> FloatArray:
    """Return when each frame's saver has answered; each device asks it about one at a time."""
    cameras, frames = taken_s.shape
    saved_s = np.empty_like(taken_s)
    for device in range(devices):
        mine = slice(device, cameras, devices)
        arrive, spend = taken_s[mine].ravel(), spent_s[mine].ravel()
        order = np.argsort(arrive, kind="stable") if cameras > devices else slice(None)
        total = np.cumsum(spend[order])
        free = np.maximum.accumulate(arrive[order] - (total - spend[order]))
        ends = np.empty(len(arrive))
        ends[order] = free + total
        saved_s[mine] = ends.reshape(-1, frames)
    return saved_s


def bin_of(latency_ms: FloatArray) -> NDArray[np.int64]:
    """Return the bin of each latency."""
    steps = np.log(np.maximum(latency_ms, BINS_FROM_MS) / BINS_FROM_MS) / BIN_STEP
    return np.minimum(steps.astype(np.int64), BINS - 1)


def of_bin(number: FloatArray | float) -> FloatArray:
    """Return the upper end of a bin, in milliseconds."""
    return np.asarray(BINS_FROM_MS * np.exp(BIN_STEP * (np.asarray(number, np.float64) + 1)))
