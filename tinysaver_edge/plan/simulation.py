"""A fleet at work for a stretch of time, what is counted of it, and a formula as a check.

What a frame meets: its device's saver, one frame after the other; where that is unsure, all that
queues (`exchange.py`), event by event; and the frames before it, since decisions of a camera leave
in order. All that needs no queue is done on whole arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
        a_second: how many escalations each second had.
        a_minute: each whole minute likewise.
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
    ended_s, ends, followed = exchange.run_all(begun_s, due_s, device, counts=counted_s)
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
        a_second=second,
        a_minute=minute,
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


# Figures of many stretches


BATCHES = 96
"""Groups of stretches that intervals are made of at most."""

RESAMPLES = 400
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure and its interval.

    Attributes:
        value: over all that was simulated.
        low: lower end of its 95 % interval, by resampling the stretches; None of one stretch.
        high: upper end; None as well where too few were counted for one.
    """

    value: float
    low: float | None
    high: float | None

    @property
    def most(self) -> float:
        """The figure as a limit is held against it: the upper end where there is one."""
        return self.value if self.high is None else self.high

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


class Resampled:
    """Stretches, and what they would have been drawn again: row 0 has each once.

    Args:
        stretches: independent of each other; many are taken together in groups.
    """

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        self._groups = [
            [stretches[place] for place in part]
            for part in np.array_split(np.arange(len(stretches)), min(BATCHES, len(stretches)))
        ]
        count = len(self._groups)
        chance = np.random.default_rng(0)
        again = chance.multinomial(count, np.full(count, 1 / count), RESAMPLES)
        self._weights = np.concatenate([np.ones((1, count)), again])
        self._wider = 1.0
        if count > 1:
            from scipy.special import ndtri, stdtrit  # 50 ms, which only plans should pay

            # Of few, the bootstrap's interval is too narrow (Hesterberg, 2015).
            tail = (1 - CONFIDENCE) / 2
            self._wider = float(stdtrit(count - 1, tail) / ndtri(tail))
            self._wider *= math.sqrt(count / (count - 1))

    def summed(self, read: Callable[[Stretch], float]) -> FloatArray:
        """Return sums of a figure, one for each drawing."""
        sums = np.array([sum(read(one) for one in group) for group in self._groups], np.float64)
        total: FloatArray = self._weights @ sums
        return total

    def quantile(self, read: Callable[[Stretch], NDArray[np.int64]], q: float) -> FloatArray:
        """Return a quantile of what is counted by its place, one for each drawing."""
        width = max(len(read(one)) for group in self._groups for one in group)
        counts = np.zeros((len(self._groups), max(width, 1)))
        for row, group in zip(counts, self._groups, strict=True):
            for one in group:
                row[: len(read(one))] += read(one)
        return self._reached(counts, q).astype(np.float64)

    def quantile_of(self, read: Callable[[Stretch], NDArray[np.int64]], q: float) -> FloatArray:
        """Return a quantile of values, one for each drawing; 0 where there are none."""
        told = [np.concatenate([read(one) for one in group]) for group in self._groups]
        values = np.unique(np.concatenate(told))
        if not len(values):
            return np.zeros(len(self._weights))
        counts = np.array([np.bincount(np.searchsorted(values, one), minlength=len(values))
                           for one in told], np.float64)  # fmt: skip
        return values[self._reached(counts, q)].astype(np.float64)

    def _reached(self, counts: FloatArray, q: float) -> NDArray[np.int64]:
        summed = np.cumsum(self._weights @ counts, axis=1)
        places: NDArray[np.int64] = (summed < q * summed[:, -1:] - 1e-9).sum(axis=1)
        return places

    def figure(self, values: FloatArray, *, most: float = math.inf) -> Figure:
        """Return the first value, and the interval that the others make, from 0 to `most`."""
        if len(self._groups) < 2:
            return Figure(float(values[0]), None, None)
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(values[1:], [tail, 1 - tail])
        value = float(values[0])
        below, above = max(value - float(low), 0.0), max(float(high) - value, 0.0)
        return Figure(
            value,
            max(value - self._wider * below, 0.0),
            max(value, min(value + self._wider * above, most)),
        )


# A formula beside it


@dataclass(frozen=True, slots=True)
class Formula:
    """What queueing theory says of uplink and hosts, beside the simulation.

    No deadline, no limit of frames in flight and no batches are in it.

    Attributes:
        escalations_per_s: mean: cameras × frames × share.
        host_load: were every frame run by itself; 1 or more cannot last.
        host_load_batched: in batches as large as pay, all of them full.
        uplink_bps: bits a second there are to send.
        uplink_load: the same of the uplink; 1 or more cannot last.
        answer_ms: mean time of an escalation, were each to come independently of the others
            (M/G/c by Allen and Cunneen); None where hosts or uplink would be busy all the time.
        answer_bursts_ms: likewise with the dispersion of the bursts in the long run.
    """

    escalations_per_s: float
    host_load: float
    host_load_batched: float
    uplink_bps: float
    uplink_load: float
    answer_ms: float | None
    answer_bursts_ms: float | None


def formula_of(fleet: Fleet, times: Times, *, share: float, dispersion: float) -> Formula:
    """Return what queueing theory says, without deadlines, limits and batches.

    Allen and Cunneen's approximation of the mean wait in G/G/c: that of M/M/c by Erlang, times
    half the sum of the squared variations of arrivals and service.

    Args:
        fleet: the fleet.
        times: what was measured.
        share: of the frames that are escalated.
        dispersion: variance of a camera's escalations in a long time over their mean.
    """
    rate = fleet.cameras * fleet.fps * share
    alone_s = float(times.batch_ms[1].mean()) / 1e3
    varies = float(times.batch_ms[1].var() / times.batch_ms[1].mean() ** 2)
    fastest = max(
        size / (float(ms.mean()) / 1e3)
        for size, ms in times.batch_ms.items()
        if size <= times.at_once
    )
    load = rate * alone_s / fleet.hosts
    send_s = 8 * times.sent_bytes / fleet.uplink_bps
    base_ms = 1e3 * (send_s + alone_s) + fleet.rtt_ms

    def answer_ms(arrivals: float) -> float | None:
        """Return the mean at a squared variation of arrivals, on the uplink and at the hosts."""
        if load >= 1 or rate * send_s >= 1:
            return None
        sent_s = rate * send_s * send_s / (1 - rate * send_s) * arrivals  # shared, not in a row
        waits_s = _erlang_c(rate * alone_s, fleet.hosts) / (fleet.hosts / alone_s - rate)
        return base_ms + 1e3 * (sent_s + waits_s * (arrivals + varies) / 2)

    return Formula(
        escalations_per_s=rate,
        host_load=load,
        host_load_batched=rate / fastest / fleet.hosts,
        uplink_bps=8 * rate * times.sent_bytes,
        uplink_load=rate * send_s,
        answer_ms=answer_ms(1.0),
        answer_bursts_ms=answer_ms(dispersion),
    )


def _erlang_c(erlangs: float, servers: int) -> float:
    """Return the chance that all servers are busy in M/M/c."""
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = erlangs * blocked / (count + erlangs * blocked)
    return blocked / (1 - erlangs / servers * (1 - blocked))
