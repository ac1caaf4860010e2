"""Devices, uplink and hosts, event by event: in-flight limits, batches, deadlines, breakers.

Devices do as `stream/escalations.py` and `engines/remote` do, hosts as `host/kserve_model.py`. What
an escalated frame meets:

- a refusal when as many of its device's frames wait as may, or no host is asked at the moment;
- the uplink, which requests under way share evenly, packet by packet; what its deadline overtakes
  is not sent to the end;
- the least loaded host, which refuses what is more than it takes in at once, runs in batches what
  waits, and leaves out those whose sender has given up; where other hosts could still answer, one
  has half of the time left;
- after a refusal or a time-out, another try, as far as the device's budget of retries goes; three
  failures in a row open a host's breaker until a probe is answered;
- its deadline, when the saver's answer goes out.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np

from tinysaver_edge.engines.batching import most_at_once
from tinysaver_edge.engines.remote.endpoint import SMOOTHING
from tinysaver_edge.engines.remote.engine import LONGEST_PAUSE_S, SHORTEST_PAUSE_S
from tinysaver_edge.engines.remote.model import RemoteModel
from tinysaver_edge.engines.remote.traffic import SAVED
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray
from tinysaver_edge.plan.fleet import Draws, Fleet, Link, Times

_RULES: dict[str, Any] = {one.name: one.default for one in fields(RemoteModel)}


class End(IntEnum):
    """How an escalation ended."""

    ANSWERED = 0
    DEADLINE = 1
    IN_FLIGHT = 2
    FAILED = 3


_Request = tuple[int, int, float]
"""Its number, which attempt it is, and until when its device waits."""


@dataclass(frozen=True, slots=True)
class _Calm:
    """What would be if nothing had a limit.

    Attributes:
        ended_s: when each request is answered.
        sent_s: when each has left.
        starts: the first of each part, before which nothing is under way; and behind the last.
        limited: whether something in that part meets a limit.
        rounds: the host's runs: when, how long, of how many, who else waits, the first of them.
    """

    ended_s: FloatArray
    sent_s: FloatArray
    starts: list[int]
    limited: list[bool]
    rounds: FloatArray

    def ran(self, size: int, request: int) -> int:
        """Return how many runs of a size there were before a request's, which begins one."""
        before = int(np.searchsorted(self.rounds[:, 4], request))
        return int((self.rounds[:before, 2] == size).sum())


class Exchange:
    """Devices and hosts while a stretch lasts: all that queues.

    Requests are numbered as they are escalated; probes have numbers below 0.

    Args:
        fleet: the fleet.
        times: what was measured.
        chance: draws durations.
    """

    def __init__(self, fleet: Fleet, times: Times, chance: np.random.Generator) -> None:
        hosts, self._hosts = fleet.hosts, range(fleet.hosts)
        self._most, self._limit = fleet.max_in_flight, times.at_once
        self._room, self._chance = fleet.max_requests, chance
        self._sizes = [most_at_once(count, self._limit) for count in range(self._limit + 1)]
        self._timeout_s, self._half_s = fleet.deadline_ms / 1e3, fleet.rtt_ms / 2e3
        self._bytes, self._rate = times.sent_bytes, fleet.uplink_bps / 8
        self._send_s = times.sent_bytes / self._rate
        self._draws = {
            size: Draws(ms / 1e3, own)
            for (size, ms), own in zip(
                times.batch_ms.items(), chance.spawn(len(times.batch_ms)), strict=True
            )
        }
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._ticket = 0
        self._in_flight = [0] * fleet.devices
        self._retries = [SAVED] * fleet.devices
        self._failures = [0] * (fleet.devices * hosts)
        self._open = bytearray(fleet.devices * hosts)
        self._latency_s = [0.0] * (fleet.devices * hosts)
        self._asking = [0] * (fleet.devices * hosts)
        self._queues: list[deque[_Request]] = [deque() for _ in self._hosts]
        self._idle = [True] * hosts
        self._taken: list[set[tuple[int, int]]] = [set() for _ in self._hosts]
        self._pause_s: dict[int, float] = {}
        self._link, self._link_ticket = Link(self._send_s), 0
        self._pending: dict[int, tuple[int, float, float, int]] = {}  # host, sent, limit, attempt
        self._tried: dict[int, list[int]] = {}
        self._from_s, self._until_s = 0.0, math.inf
        self.sent_s = self.busy_s = self.sent_bytes = 0.0
        self.run = self.waiting = self.runs = 0

    def run_all(
        self,
        saved_s: FloatArray,
        due_s: FloatArray,
        device: IntArray,
        *,
        counts: tuple[float, float],
    ) -> tuple[FloatArray, IntArray, int]:
        """Let escalations run their course; what meets no limit is not followed event by event.

        Args:
            saved_s: when each frame's saver had answered, rising.
            due_s: its deadline.
            device: whose it is.
            counts: from when until when loads count.

        Returns:
            When each ended, how (`End`), and how many were followed.
        """
        self._due_s, self._device = due_s.tolist(), device.tolist()
        self._from_s, self._until_s = counts
        frames, saved = len(saved_s), saved_s.tolist()
        self._ended_s, self._how = [math.inf] * frames, [0] * frames
        calm = self.run_calmly(saved_s, due_s, device)
        if calm is None:
            self._follow(0, saved)
            self._end_all()
            return np.array(self._ended_s), np.array(self._how, np.int64), frames
        followed, through = np.zeros(frames, bool), 0
        for part in np.flatnonzero(calm.limited).tolist():
            first = calm.starts[part]
            if first < through:
                continue
            self._pass_over(device[through:first], (calm.ended_s - saved_s)[through:first])
            while True:
                for size, draws in self._draws.items():
                    draws.begin(calm.ran(size, calm.starts[part]))
                part, through = part + 1, calm.starts[part + 1]
                self._follow(calm.starts[part - 1], saved[calm.starts[part - 1] : through])
                if through == frames:
                    self._end_all()
                    break
                while self._events and self._events[0][0] <= saved[through]:
                    self._happen()
                if not calm.limited[part] and self._rests:
                    break
            followed[first:through] = True
        self._count(calm, saved_s, ~followed)
        ended_s = np.where(followed, self._ended_s, calm.ended_s)
        return ended_s, np.array(self._how, np.int64), int(followed.sum())

    def _follow(self, first: int, saved: list[float]) -> None:
        """Follow requests from the first on, event by event, until the last is under way."""
        events, in_flight, due, whose = self._events, self._in_flight, self._due_s, self._device
        for number, now_s in enumerate(saved, first):
            while events and events[0][0] <= now_s:
                self._happen()
            if now_s >= due[number]:
                self._end(number, now_s, End.DEADLINE, flown=False)
            elif in_flight[whose[number]] >= self._most:
                self._end(number, now_s, End.IN_FLIGHT, flown=False)
            else:
                in_flight[whose[number]] += 1
                retries = self._retries[whose[number]] + _RULES["retry_share"]
                self._retries[whose[number]] = min(SAVED, retries)
                self._ask(now_s, number, due[number])

    def _end_all(self) -> None:
        while any(self._in_flight):
            self._happen()

    @property
    def _rests(self) -> bool:
        """Whether nothing is under way, and no host is left alone."""
        busy = self._pending or any(self._in_flight) or any(self._open)
        return not busy and all(self._idle)

    def _pass_over(self, device: IntArray, took_s: FloatArray) -> None:
        """Take it that these were answered: what devices remember of their one host."""
        asked = np.bincount(device, minlength=len(self._retries))
        spent_s = np.bincount(device, took_s, minlength=len(asked)) / np.maximum(asked, 1)
        saved = np.minimum(SAVED, self._retries + _RULES["retry_share"] * asked)
        self._retries = saved.tolist()
        self._failures = np.where(asked, 0, self._failures).tolist()
        self._latency_s = np.where(asked, spent_s, self._latency_s).tolist()

    def run_calmly(self, saved_s: FloatArray, due_s: FloatArray, device: IntArray) -> _Calm | None:
        """Return what would be if nothing had a limit; None where several hosts are asked.

        Answers then come in the order of the questions. Whenever nothing is under way, a part
        ends; what has met no limit within its part is what `_follow` would find, sooner.
        """
        frames, sent_s = len(saved_s), saved_s
        if len(self._hosts) > 1 or not frames:
            return None
        if self._send_s:
            sent_s = np.array(Link(self._send_s).all_through(saved_s.tolist()))
        here_s = sent_s + self._half_s
        arrive_s = [*here_s.tolist(), math.inf]
        first = behind = 0
        now_s, ran_s, rounds = 0.0, list[float](), list[tuple[float, float, int, int, int]]()
        while first < frames:
            now_s = max(now_s, arrive_s[first])
            while arrive_s[behind] <= now_s:
                behind += 1
            count = self._sizes[min(behind - first, self._limit)]
            spent_s = next(self._draws[count])
            rounds.append((now_s, spent_s, count, behind - first - count, first))
            first += count
            now_s += spent_s
            ran_s += [now_s] * count
        done_s = np.array(ran_s)
        ended_s: FloatArray = done_s + self._half_s
        at_host = np.arange(frames) - np.searchsorted(done_s, here_s, side="right")
        order, most = np.argsort(device, kind="stable"), self._most
        waits = ended_s[order][:-most] > saved_s[order][most:]
        met = (ended_s >= due_s) | (at_host >= self._room)
        met[order[most:]] |= (device[order][most:] == device[order][:-most]) & waits
        starts = np.flatnonzero(saved_s[1:] > np.maximum.accumulate(ended_s)[:-1]) + 1
        starts = np.concatenate([[0], starts])
        limited = np.logical_or.reduceat(met, starts)
        return _Calm(
            ended_s, sent_s, [*starts.tolist(), frames], limited.tolist(), np.array(rounds)
        )

    def _count(self, calm: _Calm, saved_s: FloatArray, calmly: BoolArray) -> None:
        """Add up the loads of what was not followed."""
        told = calm.rounds[calmly[calm.rounds[:, 4].astype(int)]]
        told = told[(told[:, 0] >= self._from_s) & (told[:, 0] < self._until_s)]
        _, busy_s, run, waiting, _ = told.sum(axis=0).tolist()
        self.busy_s, self.run = self.busy_s + busy_s, self.run + int(run)
        self.waiting, self.runs = self.waiting + int(waiting), self.runs + len(told)
        counts = (saved_s >= self._from_s) & (saved_s < self._until_s) & calmly
        self.sent_bytes += self._bytes * int(counts.sum())
        before_s = np.concatenate([[-math.inf], calm.sent_s[:-1]])  # they leave in order
        span = (self._from_s, self._until_s)
        used = np.clip(calm.sent_s, *span) - np.clip(np.maximum(saved_s, before_s), *span)
        self.sent_s += float(used[calmly].sum())

    def _later(self, at_s: float, do: Callable[..., None], *what: Any) -> None:  # noqa: ANN401
        self._ticket += 1
        heapq.heappush(self._events, (at_s, self._ticket, do, what))

    def _happen(self) -> None:
        now_s, _, do, what = heapq.heappop(self._events)
        do(now_s, *what)

    # Devices

    def _ask(self, now_s: float, number: int, due_s: float) -> None:
        """Ask the least loaded host that is not left alone; see `RemoteEngine._run`."""
        base = self._device[number] * len(self._hosts)
        fresh = [host for host in self._hosts if not self._open[base + host]]
        if self._tried:
            tried = self._tried.get(number, ())
            fresh = [host for host in fresh if host not in tried]
        if not fresh or due_s <= now_s:
            how = End.DEADLINE if now_s >= self._due_s[number] else End.FAILED
            self._end(number, now_s, how)
            return
        host = fresh[0]
        if len(fresh) > 1:
            host = min(
                fresh,
                key=lambda one: (self._asking[base + one] + 1) * self._latency_s[base + one],
            )
        limit_s = now_s + (due_s - now_s) / (2 if len(fresh) > 1 else 1)
        self._send(number, now_s, limit_s, host, base + host)

    def _send(self, number: int, now_s: float, limit_s: float, host: int, pair: int) -> None:
        self._asking[pair] += 1
        attempt = self._ticket
        self._pending[number] = (host, now_s, limit_s, attempt)
        self._later(limit_s, self._give_up, number, attempt)
        self._use_link(now_s)
        if self._send_s:
            self._link.enter((number, limit_s, attempt, host, now_s))
            self._watch_link()
        else:
            self._through(now_s, number, limit_s, attempt, host, now_s)

    def _use_link(self, now_s: float) -> None:
        """Count how long the uplink was in use."""
        spent_s = self._link.until(now_s)
        if spent_s:
            begun_s = max(now_s - spent_s, self._from_s)
            self.sent_s += max(0.0, min(now_s, self._until_s) - begun_s)

    def _watch_link(self) -> None:
        """Wait for the next request to be through; what was waited for before is forgotten."""
        self._link_ticket = self._ticket
        if self._link.under_way:
            self._later(self._link.next_s(), self._sent_one, self._link_ticket)

    def _sent_one(self, now_s: float, ticket: int) -> None:
        if ticket != self._link_ticket:
            return
        self._use_link(now_s)
        _, sent = self._link.under_way.popleft()
        self._through(now_s, *sent)
        self._watch_link()

    def _through(
        self, now_s: float, number: int, limit_s: float, attempt: int, host: int, begun_s: float
    ) -> None:
        """A request has left the device for good."""
        if self._from_s <= begun_s < self._until_s:
            self.sent_bytes += self._bytes
        self._later(now_s + self._half_s, self._arrive, host, number, limit_s, attempt)

    def _told(self, now_s: float, number: int, attempt: int) -> None:
        """An answer reaches its device."""
        pending = self._pending.get(number)
        if pending is None or pending[3] != attempt:
            return
        host, sent_s, _, _ = self._pending.pop(number)
        pair = self._pair(number, host)
        self._asking[pair] -= 1
        self._failures[pair] = 0
        if number < 0:
            self._open[pair] = 0
            return
        spent_s = now_s - sent_s
        before_s = self._latency_s[pair] or spent_s
        self._latency_s[pair] = before_s + SMOOTHING * (spent_s - before_s)
        self._end(number, now_s, End.ANSWERED)

    def _give_up(self, now_s: float, number: int, attempt: int) -> None:
        """A request's time is up: another host is asked, if there is time left for one."""
        pending = self._pending.get(number)
        if pending is None or pending[3] != attempt:
            return
        host, sent_s, limit_s, _ = self._pending.pop(number)
        self._taken[host].discard((number, attempt))
        kept = [one for one in self._link.under_way if one[1][2] != attempt]
        if len(kept) < len(self._link.under_way):
            self._use_link(now_s)
            self._link.under_way = deque(kept)
            self._watch_link()
        hurried = limit_s - sent_s < self._latency_s[self._pair(number, host)]
        if not self._fail(number, now_s, host, hurried=hurried):
            return
        due_s = self._due_s[number]
        if due_s - now_s > 1e-9 and self._spends(number):
            self._tried.setdefault(number, []).append(host)
            self._ask(now_s, number, due_s)
        else:
            self._end(number, now_s, End.DEADLINE)

    def _refused(self, now_s: float, number: int, attempt: int) -> None:
        """A host has as many requests as it takes: another is asked, or this one after a rest."""
        pending = self._pending.get(number)
        if pending is None or pending[3] != attempt:
            return
        host, *_ = self._pending.pop(number)
        if not self._fail(number, now_s, host):
            return
        due_s = self._due_s[number]
        base = self._device[number] * len(self._hosts)
        tried = (host, *self._tried.get(number, ()))
        others = any(not self._open[base + one] for one in self._hosts if one not in tried)
        if not self._spends(number):
            self._end(number, now_s, End.FAILED)
        elif others:
            self._tried.setdefault(number, []).append(host)
            self._ask(now_s, number, due_s)
        else:
            self._tried.pop(number, None)
            pause_s = self._pause_s.get(number, SHORTEST_PAUSE_S)
            self._pause_s[number] = min(2 * pause_s, LONGEST_PAUSE_S)
            rested_s = now_s + pause_s * (0.5 + 0.5 * self._chance.random())
            if rested_s < due_s:
                self._later(rested_s, self._ask, number, due_s)
            else:
                self._end(number, now_s, End.FAILED)

    def _spends(self, number: int) -> bool:
        """Take a retry off its device's budget; False where none is left."""
        device = self._device[number]
        if self._retries[device] < 1:
            return False
        self._retries[device] -= 1
        return True

    def _fail(self, number: int, now_s: float, host: int, *, hurried: bool = False) -> bool:
        """Note a failure of a host for a device; False for a probe's, which is then repeated."""
        pair = self._pair(number, host)
        self._asking[pair] -= 1
        if number < 0:
            self._later(now_s + _RULES["probe_s"], self._probe, pair)
            return False
        self._failures[pair] += not hurried  # it had less time than usual
        if self._failures[pair] >= _RULES["failures_to_open"] and not self._open[pair]:
            self._open[pair] = 1
            self._later(now_s + _RULES["probe_s"], self._probe, pair)
        return True

    def _probe(self, now_s: float, pair: int) -> None:
        """A device asks a host that it has left alone about one frame."""
        limit_s = now_s + min(_RULES["timeout_s"], self._timeout_s)
        self._send(-1 - pair, now_s, limit_s, pair % len(self._hosts), pair)

    def _pair(self, number: int, host: int) -> int:
        return -1 - number if number < 0 else self._device[number] * len(self._hosts) + host

    def _end(self, number: int, now_s: float, how: End, *, flown: bool = True) -> None:
        self._ended_s[number], self._how[number] = now_s, how
        if flown:
            self._in_flight[self._device[number]] -= 1
            if self._tried:
                self._tried.pop(number, None)
            if self._pause_s:
                self._pause_s.pop(number, None)

    # Hosts

    def _arrive(self, now_s: float, host: int, number: int, limit_s: float, attempt: int) -> None:
        taken = self._taken[host]
        if len(taken) >= self._room:
            self._later(now_s + self._half_s, self._refused, number, attempt)
            return
        if now_s < limit_s:
            taken.add((number, attempt))
        self._queues[host].append((number, attempt, limit_s))
        if self._idle[host]:
            self._begin(now_s, host)

    def _begin(self, now_s: float, host: int) -> None:
        """Run those that wait, but for whom nobody waits any more; see `Batches._next`."""
        queue = self._queues[host]
        for one in queue:
            if one[2] <= now_s:
                self._queues[host] = queue = deque(one for one in queue if one[2] > now_s)
                break
        if not queue:
            self._idle[host] = True
            return
        self._idle[host] = False
        count = self._sizes[min(len(queue), self._limit)]
        taken = [queue.popleft() for _ in range(count)]
        spent_s = next(self._draws[count])
        if self._from_s <= now_s < self._until_s:
            self.busy_s += spent_s
            self.run += count
            self.runs += 1
            self.waiting += len(queue)
        self._later(now_s + spent_s, self._ran, host, taken)

    def _ran(self, now_s: float, host: int, answered: list[_Request]) -> None:
        self._taken[host].difference_update((one[0], one[1]) for one in answered)
        if self._half_s:
            self._later(now_s + self._half_s, self._tell, answered)
        else:
            self._tell(now_s, answered)
        self._begin(now_s, host)

    def _tell(self, now_s: float, answered: list[_Request]) -> None:
        for number, attempt, _ in answered:
            self._told(now_s, number, attempt)
