"""One source's way through a stream: its frames in order, bounded, each given out and counted."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

from tinysaver_edge.deciding.policy import Case, Judge
from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import EngineError
from tinysaver_edge.preprocess import Batch
from tinysaver_edge.stream.drift.watch import NO_WATCH, Watch
from tinysaver_edge.stream.options import Escalation
from tinysaver_edge.stream.sources.source import Context, Frame
from tinysaver_edge.stream.telemetry.events import Undecided
from tinysaver_edge.stream.telemetry.metrics import Counter, Measure, Reason


@dataclass(slots=True, eq=False)
class Item:
    """One frame on its way.

    Attributes:
        lane: where it belongs.
        case: what is known of it.
        arrived_s: when it was taken, or read from a file, on the stream's clock.
        due_s: when its decision must be out; infinity for never.
        batch: input of the first stage asked; None once that has answered.
        prepared: input of later stages, by position, where it is made already.
        frame: the frame with its picture, where a sink or a later stage wants it.
        shown: whether sinks get the frame.
        saved_s: when the first stage had answered.
        stand_in: the saver's answer, to go out if the large model's does not come.
        decision: what is given out in the lane's order; None while it is open.
        awaiting: whether the large model's answer may still become the final decision.
        audited: the accepted decision that an audit compares with, or None.
    """

    lane: Lane
    case: Case
    arrived_s: float
    due_s: float
    batch: Batch | None
    prepared: dict[int, Batch] = field(default_factory=dict)
    frame: Frame | None = None
    shown: bool = False
    saved_s: float = 0.0
    stand_in: Decision | None = None
    decision: Decision | None = None
    awaiting: bool = False
    audited: Decision | None = None

    def left_s(self, now_s: float) -> float | None:
        """How long somebody waits for the large model's answer; None for as long as it takes."""
        forever = self.audited is not None or self.due_s == float("inf")
        return None if forever else max(0.0, self.due_s - now_s)

    @property
    def picture(self) -> Frame | None:
        """What sinks get."""
        return self.frame if self.shown else None


PICTURES = 16
"""Frames of one source that are kept at their full size at once, for sinks or later stages."""


class Taker(Protocol):
    """Takes what becomes of a lane's frames, and returns at once.

    Called by one thread at a time, unless the lane has no order.
    """

    def deliver(self, item: Item, decision: Decision) -> None:
        """Take a decision on a frame; it may not be the last one."""

    def give_up(self, item: Item, error: EngineError) -> None:
        """Hear that a frame gets no decision."""

    def drained(self) -> None:
        """Hear that every frame of the lane, which has ended, is decided."""


@dataclass(frozen=True, slots=True)
class LaneRules:
    """What holds for every frame of a lane.

    Attributes:
        source_id: the source's name in metrics and events.
        escalation: wait, revise or local.
        window: frames that may be taken in and not given out yet.
        patient: frames wait for room at the large model, rather than be degraded.
        ordered: decisions are given out in the order of the frames.
        fresh: frames are taken in only when whoever asks for decisions has taken the last one, so
            that none grows old waiting for him.
    """

    source_id: str
    escalation: Escalation
    window: int
    patient: bool = False
    ordered: bool = True
    fresh: bool = False


class Lane:
    """One source's frames on their way. Guarded by the dispatcher's lock throughout.

    Attributes:
        rules: what holds for all its frames.
        free: buffers for the first stage's input that nobody uses.
        ready: frames that wait for the first stage.
        order: frames taken in and not given out, oldest first.
        open: frames without their final decision.
        pictures: frames that are kept at their full size.
        untaken: decisions that nobody has taken yet.
        ended: whether no more frames come.
        room: told whenever a frame may be taken in again.
    """

    def __init__(
        self, rules: LaneRules, taker: Taker, *, buffers: list[Batch], lock: threading.Lock
    ) -> None:
        self.rules = rules
        self.taker = taker
        self.free = deque(buffers)
        self.ready: deque[Item] = deque()
        self.order: deque[Item] = deque()
        self.open = self.pictures = 0
        self.untaken = 0
        self.ended = False
        self.room = threading.Condition(lock)

    @property
    def has_room(self) -> bool:
        """Whether one more frame may be taken in."""
        if not self.free or len(self.order) + self.untaken >= self.rules.window:
            return False
        if self.pictures >= PICTURES:
            return False
        return not (self.rules.fresh and self.untaken)

    @property
    def finished(self) -> bool:
        """Whether every frame that came has its final decision."""
        return self.ended and not self.open


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
