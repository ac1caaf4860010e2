"""The heart of a stream: the savers hear every frame, the large model some, and neither waits."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge._support.calls import Calls
from tinysaver_edge.decision import Decision, Likeness, Reason
from tinysaver_edge.engines.batching import most_at_once
from tinysaver_edge.errors import EngineError
from tinysaver_edge.preprocess import Batch, Preprocess, Preprocessor
from tinysaver_edge.stream.escalations import Escalations
from tinysaver_edge.stream.lane import Giver, Item, Lane, LaneRules, Regime, Taker
from tinysaver_edge.stream.options import Escalation
from tinysaver_edge.stream.sources.source import Context
from tinysaver_edge.stream.telemetry.metrics import Gauge

if TYPE_CHECKING:
    from tinysaver_edge.deciding.memory import Remembered


BUFFERS = 4
"""Prepared frames of one source that wait for the saver or are with it."""

CLOSED = "closed before any model answered"
"""What is said of frames that were taken in, but not decided, at the end."""

JOIN_S = 1.0
"""How long `Dispatcher.close` waits for threads; one that is inside a model ends by itself."""


class Dispatcher:
    """Asks the first stage about every frame, in turn over the lanes, and later stages about some.

    Threads: one asks the first stage, and at once those between it and the last where it is unsure:
    they are here and small beside the large model, so a frame that one of them settles waits for no
    room at the last stage, needs no host, and is answered in a stream that is local as well. As
    many as the last stage's engine takes ask that one; one sends the savers' answer out where a
    deadline has passed. Frames come from the lanes' feeders, decisions go to their takers, in the
    order of the frames.

    Args:
        regime: what decides at first. The cascade's own `decide` may be called at the same time.
        max_in_flight: frames that wait for later stages at once.
        context: events, metrics, clock.
        failed: called once, from any thread, when something raises that no frame is to blame for.
        calls: entered for as long as each thread runs: a sink, a listener or a future's callback
            that ends all this must not do so in a thread that is waited for.
    """

    def __init__(
        self,
        regime: Regime,
        *,
        max_in_flight: int,
        context: Context,
        failed: Callable[[BaseException], None],
        calls: Calls,
    ) -> None:
        self._regime = regime
        self._context, self._failed, self._calls = context, failed, calls
        self._preprocessors: dict[Preprocess, Preprocessor] = {}
        self.lock = threading.Lock()
        self._work = threading.Condition(self.lock)
        self._lanes: deque[Lane] = deque()
        self._giver = Giver(context=context)
        self._escalations = Escalations(
            max_in_flight=max_in_flight,
            context=context,
            giver=self._giver,
            lock=self.lock,
            freed=self._work.notify,
        )
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._start(self._ask_first_stage, *self._escalations.works(regime))

    def _start(self, *works: Callable[[], None]) -> None:
        for work in works:
            thread = threading.Thread(
                target=self._guarded, args=(work,), name=work.__name__, daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def switch(self, regime: Regime) -> None:
        """Have another regime decide every frame that comes from now on."""
        with self.lock:
            if self._stopping:
                return
            former, self._regime = self._regime, regime
            works = self._escalations.works(regime)
            former.retire()
        self._start(*works)

    # Lanes and their feeders

    def add_lane(
        self,
        rules: LaneRules,
        taker: Taker,
        *,
        buffers: int = BUFFERS,
    ) -> Lane:
        """Add a source."""
        lane = Lane(rules, taker, buffers=buffers, regime=self._regime, lock=self.lock)
        with self.lock:
            self._lanes.append(lane)
        return lane

    def reserve(self, lane: Lane, *, wait: bool = True) -> Batch | None:
        """Return a buffer for a frame, or None.

        Args:
            lane: where the frame belongs.
            wait: until the lane may take in one more; else None where it may not.

        Returns:
            None as well when closed.
        """
        with self.lock:
            while not self._stopping:
                batch = lane.lend()
                if batch is not None or not wait:
                    return batch
                lane.room.wait()
            return None

    def begin(self, lane: Lane, batch: Batch) -> tuple[Regime, Batch]:
        """Say what decides a frame that has just come, and which buffer to prepare it in.

        Whoever calls it offers or repeats the frame next, or says `leave`.
        """
        with self.lock:
            self._regime.enter()
            return self._regime, lane.fit(batch, self._regime)

    def leave(self, regime: Regime) -> None:
        """A frame that was begun with is not taken in."""
        with self.lock:
            regime.leave()

    def offer(self, item: Item) -> bool:
        """Take in a prepared frame; False when closed."""
        with self.lock:
            if self._stopping:
                return False
            item.lane.take_in(item)
            self._work.notify()
            return True

    def repeat(self, item: Item) -> bool:
        """Take in a frame that is still; False when closed."""
        assert item.repeats is not None
        with self.lock:
            if self._stopping:
                return False
            known = item.repeats.decision
            item.lane.take_in(item, ready=known is None)
            if known is None:  # it is being asked about: this one waits behind it
                self._work.notify()
        if known is not None:
            self._escalations.repeat(item, known)
        return True

    def audits_next(self, item: Item, answer: Remembered) -> bool:
        """Draw whether a frame that is still is to be audited."""
        return answer.decision is not None and self._escalations.may_audit(item, answer.decision)

    # The first stage

    def _ask_first_stage(self) -> None:
        while items := self._next():
            if not items[0].asks:
                self._escalations.join(items[0])
                continue
            regime = items[0].regime
            regime.decider.ask(
                regime.judge.asked[0],
                _joined(items),
                [item.case for item in items],
                since_s=self._context.clock(),
                in_force=regime.watch.in_force,
            )
            now_s = self._context.clock()
            for item in items:
                item.saved_s = now_s
                self._go_on(item)

    def _settled_between(self, item: Item) -> bool:
        """Ask the stages before the last one; tell whether one has settled the matter."""
        decider, watch = item.regime.decider, item.regime.watch
        made = decider.first.preprocess
        for position in decider.judge.asked[1:-1]:
            same = decider.stages[position].preprocess == made
            batch = (
                _input(item)
                if same
                else self._escalations.input_of(item, position, self._preprocessors)
            )
            if batch is None:
                return False
            since_s = self._context.clock()
            item.saved_s = decider.ask(
                position, batch, (item.case,), since_s=since_s, in_force=watch.in_force
            )
            if item.case.accepted:
                return True
        return False

    def _next(self) -> list[Item]:
        """Wait for frames, and take some, from each lane in turn; none when closed."""
        with self.lock:
            while not self._stopping:
                if items := self._waiting():
                    return items
                self._work.wait()
            return []

    def _waiting(self) -> list[Item]:
        """Take the frames to ask about at once; each of them may need room at the large model."""
        room = self._escalations.room
        for lane in self._lanes:
            if lane.joins:
                return [lane.next_ready()]
        able = [lane for lane in self._lanes if room > 0 or not lane.rules.patient]
        regime = next((lane.serves for lane in able if lane.serves is not None), None)
        if regime is None:
            return []
        left = {lane: count for lane in able if (count := lane.waiting(regime))}
        waiting = sum(left.values())
        if any(lane.rules.patient for lane in left):
            waiting = min(waiting, room)
        count = most_at_once(waiting, regime.together)
        items: list[Item] = []
        while len(items) < count:
            lane = self._lanes[0]
            self._lanes.rotate(-1)
            if left.get(lane):
                left[lane] -= 1
                items.append(lane.next_ready())
        return items

    def _go_on(self, item: Item) -> None:
        """Give out the first stage's answer, or have the later ones asked."""
        case = item.case
        if item.repeats is not None and item.repeats.decision is not None:  # drawn for an audit
            self._settle_audited(item, self._escalations.repeated(item, item.repeats.decision))
        elif case.outputs is None and len(item.regime.judge.asked) == 1:
            self._giver.leave_undecided(item)
            self._escalations.end(item, None)
        elif case.accepted:
            self._accept(item)
        elif not self._keep(item):
            # What an earlier frame was answered by later stages stands for those between as well.
            if self._settled_between(item):
                self._accept(item)
            else:
                self._escalate(item)

    def _accept(self, item: Item) -> None:
        item.case.spent("total", (item.saved_s - item.arrived_s) * 1e3)
        decision = item.regime.judge.decision(item.case)
        if self._escalations.may_audit(item, decision):
            self._settle_audited(item, decision)
            return
        self._release(item, keep=False)
        if not item.shown:
            item.lane.forget(item)
        self._giver.settle(item, decision)
        self._escalations.end(item, decision)

    def _settle_audited(self, item: Item, decision: Decision) -> None:
        """Give out a frame's answer, and have the later stages asked all the same."""
        self._release(item, keep=True)
        item.audited = decision
        item.lane.audit(item)
        self._giver.settle(item, decision)
        self._escalations.end(item, decision)
        self._escalations.audit(item)

    def _keep(self, item: Item) -> bool:
        """Answer an unsure saver's frame as the last escalation was, if it looks the same to it."""
        memory, case = item.memory, item.case
        local = item.lane.rules.escalation is Escalation.LOCAL
        if memory is None or item.look is None or case.outputs is None or local:
            return False
        item.repeats = memory.keeps(item.look, case.outputs)
        if item.repeats is None:
            return False
        item.alike, known = Likeness.SAME, item.repeats.decision
        if known is not None and self._escalations.may_audit(item, known):
            self._settle_audited(item, self._escalations.repeated(item, known))
            return True
        self._release(item, keep=False)
        self._stand_in(item)
        self._escalations.join(item)
        return True

    def _escalate(self, item: Item) -> None:
        """Have the later stages asked, or give out the saver's answer and why they are not."""
        case, reason = item.case, self._escalations.refusal(item)
        self._release(item, keep=reason is None)
        if case.outputs is not None:
            self._stand_in(item)
        if reason is None and self._escalations.begin(item):
            return
        degraded = self._escalations.degraded(item, reason or Reason.STOPPED)
        if degraded is not None:
            self._giver.settle(item, degraded)
        else:
            self._giver.leave_undecided(item)
        self._escalations.end(item, degraded)

    def _stand_in(self, item: Item) -> None:
        """Note the saver's answer, to go out if the large model's does not come."""
        case = item.case
        case.spent("total", (item.saved_s - item.arrived_s) * 1e3)
        item.stand_in = item.regime.judge.decision(replace(case, timings_ms=dict(case.timings_ms)))
        del case.timings_ms["total"]

    def _release(self, item: Item, *, keep: bool) -> None:
        """Let the lane have its buffer back; keep a copy of what later stages take as well."""
        batch, item.batch = _input(item), None
        if keep:
            kept: Batch | None = None
            decider = item.regime.decider
            made = decider.first.preprocess
            for position in decider.judge.asked[1:]:
                same = decider.stages[position].preprocess == made
                if position not in item.prepared and same:
                    kept = batch.copy() if kept is None else kept
                    item.prepared[position] = kept
        item.lane.give_back(batch)

    # The end

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        with self.lock:
            return self._stopping

    def close(self) -> None:
        """Send out the saver's answer to whatever waits for the large model, and stop.

        Legal in every state, any number of times.
        """
        with self.lock:
            first = not self._stopping
            self._stopping = True
            self._work.notify_all()
            awaiting = self._escalations.stop()
            unread = [item for lane in self._lanes for item in lane.clear_ready()]
        with ExitStack() as ends:  # from the last to the first, whatever one of them raises
            ends.callback(self._context.metrics.gauge, Gauge.IN_FLIGHT, "", 0)
            ends.callback(self._giver.mute)
            ends.callback(self._join)
            if first:
                unread += [item for item in awaiting if not self._escalations.give_in(item)]
                for item in unread:
                    self._giver.abandon(item, EngineError(CLOSED))

    def _join(self) -> None:
        deadline_s = time.monotonic() + JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a thread; what it raises ends the stream instead of being lost."""
        with self._calls:
            try:
                work()
            except BaseException as error:
                self._failed(error)


def _joined(items: Sequence[Item]) -> Batch:
    """Return frames of one regime as one batch, in memory that the next call fills anew."""
    if len(items) == 1:
        return _input(items[0])
    batch = items[0].regime.joined[len(items)]
    np.concatenate([_input(item) for item in items], out=batch)
    return batch


def _input(item: Item) -> Batch:
    assert item.batch is not None
    return item.batch
