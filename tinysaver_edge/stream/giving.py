"""Gives decisions out: in the order of the frames, counted, and each frame let go of afterwards."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from tinysaver_edge.deciding.verdict import Judge
from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import EngineError
from tinysaver_edge.stream.drift.watch import NO_WATCH, Watch
from tinysaver_edge.stream.item import Item
from tinysaver_edge.stream.lane import Lane
from tinysaver_edge.stream.sources.source import Context
from tinysaver_edge.stream.telemetry.events import Undecided
from tinysaver_edge.stream.telemetry.metrics import Counter, Measure, Reason


class Giver:
    """Gives decisions to the lanes' takers, one at a time where a lane has an order.

    Any thread may call it, without the dispatcher's lock.

    Args:
        judge: knows why an answer is degraded.
        context: events, metrics, clock.
        lock: the dispatcher's, which guards the lanes.
        watch: knows whether the certificate may still be claimed.
    """

    def __init__(
        self, judge: Judge, *, context: Context, lock: threading.Lock, watch: Watch = NO_WATCH
    ) -> None:
        self._judge, self._context, self._lock, self._watch = judge, context, lock, watch
        self._first_model = judge.policy.stages[judge.asked[0]].model
        self._turn = threading.Lock()
        self._muted = False

    def settle(self, item: Item, decision: Decision, reason: Reason | None) -> None:
        """Give a frame its final decision.

        Args:
            item: the frame, which has none yet.
            decision: it.
            reason: why it is degraded, where the decision itself does not tell.
        """
        self._count(item, decision, reason)
        item.decision = decision
        if item.lane.rules.ordered:
            self.flush(item.lane, closing=item)
            return
        with self._lock:
            item.lane.order.remove(item)
        self._hand_out(item, decision)
        self.close_item(item)

    def revise(self, item: Item, decision: Decision, reason: Reason | None) -> None:
        """Give a frame that has a provisional decision its final one."""
        revision = replace(decision, revision=1)
        self._count(item, revision, reason)
        with self._turn:
            self._hand_out(item, revision)
            self.close_item(item)

    def flush(self, lane: Lane, *, closing: Item | None = None) -> None:
        """Give out what is decided and has nothing undecided ahead of it."""
        with self._turn:
            while True:
                with self._lock:
                    if not lane.order or lane.order[0].decision is None:
                        break
                    item = lane.order.popleft()
                assert item.decision is not None
                self._hand_out(item, item.decision)
            if closing is not None:
                self.close_item(closing)

    def leave_undecided(self, item: Item, failure: EngineError) -> None:
        """No model has answered a frame: a live stream goes on, anything else ends."""
        source_id, sequence = item.lane.rules.source_id, item.case.frame_id.sequence
        self._context.metrics.count(Counter.UNDECIDED, source_id)
        with self._turn_of(item.lane):
            with self._lock:
                if item in item.lane.order:
                    item.lane.order.remove(item)
            item.lane.taker.give_up(item, failure)
            self.forget(item)
            self.close_item(item)
        now = self._context.clock()
        self._context.listener(Undecided(source_id, now, sequence, str(failure)))
        self.flush(item.lane)

    def abandon(self, item: Item, failure: EngineError) -> None:
        """Say at the end that a frame gets no decision."""
        with self._turn_of(item.lane):
            item.lane.taker.give_up(item, failure)

    def forget(self, item: Item) -> None:
        """Let go of what a frame holds that nobody needs any more."""
        with self._lock:
            if item.frame is not None:
                item.frame = None
                item.lane.pictures -= 1
                item.lane.room.notify()
        item.prepared.clear()

    def close_item(self, item: Item) -> None:
        """A frame has its final decision, or its audit is over."""
        with self._lock:
            item.lane.open -= 1
            item.lane.room.notify()
            finished = item.lane.finished
        if finished:
            item.lane.taker.drained()

    def mute(self) -> None:
        """Give out nothing from now on, whatever threads that are inside a model come back with."""
        with self._turn:
            self._muted = True

    def _turn_of(self, lane: Lane) -> AbstractContextManager[object]:
        """Return what keeps a lane's decisions in their order; nothing where there is none."""
        return self._turn if lane.rules.ordered else nullcontext()

    def _hand_out(self, item: Item, decision: Decision) -> None:
        if self._muted:
            return
        if decision.certified and not self._watch.vouches:
            decision = replace(decision, certified=False)
        name, source = item.lane.rules.source_id, decision.source.value
        if decision.certified:
            self._context.metrics.count(Counter.CERTIFIED, name)
        age_ms = (self._context.clock() - item.arrived_s) * 1e3
        self._context.metrics.measure(Measure.AGE_MS, name, age_ms, detail=source)
        with self._lock:
            item.lane.untaken += 1
        item.lane.taker.deliver(item, decision)
        if not item.awaiting and item.audited is None:
            self.forget(item)

    def _count(self, item: Item, decision: Decision, reason: Reason | None) -> None:
        """Publish the figures of a final decision."""
        metrics, name = self._context.metrics, item.lane.rules.source_id
        source = decision.source.value
        metrics.count(Counter.DECISIONS, name, detail=source)
        if reason is None and decision.degraded is not None:
            elsewhere = decision.degraded == self._judge.elsewhere
            reason = Reason.FALLBACK_DEVICE if elsewhere else Reason.FAILED
        if reason is not None:
            metrics.count(Counter.DEGRADED, name, detail=reason.value)
        saver_ms = decision.timings_ms.get(self._first_model, 0.0)
        metrics.measure(Measure.SAVER_MS, name, saver_ms, detail=source)
