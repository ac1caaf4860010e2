"""The heart of a stream: the saver hears every frame, the large model some, and neither waits."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import EngineError
from tinysaver_edge.preprocess import Batch, Preprocessor
from tinysaver_edge.stream.events import Undecided
from tinysaver_edge.stream.item import Item
from tinysaver_edge.stream.lane import Lane, LaneRules, Taker
from tinysaver_edge.stream.metrics import Counter, Gauge, Measure, Reason
from tinysaver_edge.stream.options import PROVISIONAL, Escalation
from tinysaver_edge.stream.source import Context
from tinysaver_edge.stream.watch import NO_WATCH, Watch

if TYPE_CHECKING:
    from tinysaver_edge.cascade import Cascade

BUFFERS = 4
"""Prepared frames of one source that wait for the saver or are with it."""

CLOSED = "closed before any model answered"
"""What is said of frames that were taken in, but not decided, at the end."""

JOIN_S = 1.0
"""How long `Dispatcher.close` waits for threads; one that is inside a model ends by itself."""


class Dispatcher:
    """Asks the first stage about every frame, in turn over the lanes, and later stages about some.

    Threads: one asks the first stage; as many as the last stage's engine takes ask the later ones;
    one sends the saver's answer out where a deadline has passed. Frames come from the lanes'
    feeders, decisions go to their takers, in the order of the frames.

    Args:
        cascade: whose stages are asked. Its own `decide` may be called at the same time.
        max_in_flight: frames that wait for later stages at once.
        context: events, metrics, clock.
        watch: audits accepted frames, and may be stricter.
        failed: called once, from any thread, when something raises that no frame is to blame for.
    """

    def __init__(
        self,
        cascade: Cascade,
        *,
        max_in_flight: int,
        context: Context,
        watch: Watch = NO_WATCH,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._stages, self._judge = cascade.stages, cascade.judge
        self._max_in_flight = max_in_flight
        self._context, self._watch, self._failed = context, watch, failed
        self._clock = context.clock
        self._first = self._judge.asked[0]
        self._large = self._stages[-1].policy.model
        self.lock = threading.Lock()
        self._work = threading.Condition(self.lock)
        self._asks = threading.Condition(self.lock)
        self._dues = threading.Condition(self.lock)
        self._giving = threading.Lock()
        self._lanes: deque[Lane] = deque()
        self._waiting: deque[Item] = deque()
        self._awaiting: dict[Item, None] = {}
        self._deadlines: list[tuple[float, int, Item]] = []
        self._ticket = itertools.count()
        self._in_flight = 0
        self._stopping = self._muted = False
        engines = min(max_in_flight, self._stages[-1].engine.concurrency)
        later = [self._ask_later_ones] * engines if len(self._judge.asked) > 1 else []
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__, daemon=True)
            for work in (self._ask_first_one, *later, self._keep_deadlines)
        ]
        for thread in self._threads:
            thread.start()

    # Lanes and their feeders

    def add_lane(self, rules: LaneRules, taker: Taker, *, buffers: int = BUFFERS) -> Lane:
        """Add a source.

        Args:
            rules: what holds for its frames.
            taker: takes its decisions.
            buffers: how many prepared frames it may have.
        """
        preprocess = self._stages[self._first].preprocess
        made = [
            np.zeros(preprocess.shape(1), np.dtype(preprocess.format.dtype)) for _ in range(buffers)
        ]
        lane = Lane(rules, taker, buffers=made, lock=self.lock)
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
            while wait and not (self._stopping or lane.has_room):
                lane.room.wait()
            return lane.free.popleft() if lane.has_room and not self._stopping else None

    def give_back(self, lane: Lane, batch: Batch) -> None:
        """Return a buffer that was not used."""
        with self.lock:
            lane.free.append(batch)

    def offer(self, item: Item) -> bool:
        """Take in a prepared frame; False when closed."""
        with self.lock:
            if self._stopping:
                return False
            lane = item.lane
            lane.ready.append(item)
            lane.order.append(item)
            lane.open += 1
            self._work.notify()
            return True

    def end(self, lane: Lane) -> bool:
        """Say that no more frames come; return whether all that came are decided."""
        with self.lock:
            lane.ended = True
            return lane.finished

    def taken(self, lane: Lane) -> None:
        """Say that a decision of the lane was taken by whoever asked for it."""
        with self.lock:
            lane.untaken -= 1
            lane.room.notify()

    # The first stage

    def _ask_first_one(self) -> None:
        while (item := self._next()) is not None:
            self._ask_first(item)

    def _next(self) -> Item | None:
        """Wait for a frame, and take one from each lane in turn."""
        with self.lock:
            while not self._stopping:
                for _ in range(len(self._lanes)):
                    lane = self._lanes[0]
                    self._lanes.rotate(-1)
                    if lane.ready and not (lane.rules.patient and self._is_full):
                        return lane.ready.popleft()
                self._work.wait()
            return None

    @property
    def _is_full(self) -> bool:
        return len(self._judge.asked) > 1 and self._in_flight >= self._max_in_flight

    def _ask_first(self, item: Item) -> None:
        case, stage = item.case, self._stages[self._first]
        started_s = self._clock()
        assert item.batch is not None
        failure: EngineError | None = None
        try:
            outputs = stage.ask(item.batch)
            self._judge.hear(case, self._first, outputs, accepts=self._watch.accepts)
        except EngineError as error:
            failure = error
            if len(self._judge.asked) > 1:
                self._judge.fail(case, self._first, error)
        item.saved_s = self._clock()
        saver_ms = (item.saved_s - started_s) * 1e3
        case.spent(stage.policy.model, saver_ms)
        if failure is not None and len(self._judge.asked) == 1:
            self._leave_undecided(item, failure)
        elif case.accepted:
            case.spent("total", (item.saved_s - item.arrived_s) * 1e3)
            decision = self._judge.decision(case)
            audit = self._may_audit(item, decision)
            self._release(item, keep=audit)
            if audit:  # the lane has not ended before it
                with self.lock:
                    item.lane.open += 1
            self._settle(item, decision, None)
            if audit:
                self._audit(item, decision)
        else:
            self._escalate(item, failure)

    def _release(self, item: Item, *, keep: bool) -> None:
        """Let the lane have its buffer back; keep a copy of what later stages take as well."""
        assert item.batch is not None
        batch, item.batch = item.batch, None
        if keep:
            kept: Batch | None = None
            made = self._stages[self._first].preprocess
            for position in self._judge.asked[1:]:
                if position not in item.prepared and self._stages[position].preprocess == made:
                    kept = batch.copy() if kept is None else kept
                    item.prepared[position] = kept
        with self.lock:
            item.lane.free.append(batch)
            item.lane.room.notify()

    # Escalations

    def _escalate(self, item: Item, failure: EngineError | None) -> None:
        """Have the later stages asked, or say why they are not."""
        rules, case = item.lane.rules, item.case
        reason = self._refusal(item)
        self._release(item, keep=reason is None)
        if failure is None:
            case.spent("total", (item.saved_s - item.arrived_s) * 1e3)
            item.stand_in = self._judge.decision(replace(case, timings_ms=dict(case.timings_ms)))
            del case.timings_ms["total"]
        if reason is not None:
            if item.stand_in is None:
                assert failure is not None
                self._leave_undecided(item, failure)
            else:
                self._settle(item, self._degraded(item, reason), reason)
            return
        self._context.metrics.count(Counter.ESCALATED, rules.source_id)
        with self.lock:
            item.awaiting = True
            self._awaiting[item] = None
            self._enter_flight()
            if item.due_s != float("inf"):
                heapq.heappush(self._deadlines, (item.due_s, next(self._ticket), item))
                self._dues.notify()
        # A provisional answer goes out before the large model can have answered.
        if rules.escalation is Escalation.REVISE and item.stand_in is not None:
            self._context.metrics.count(Counter.PROVISIONAL, rules.source_id)
            waiting = f"{PROVISIONAL}{self._large} has been asked"
            item.decision = replace(item.stand_in, degraded=waiting, certified=False)
            self._flush(item.lane)
        with self.lock:
            if item.awaiting:
                self._waiting.append(item)
                self._asks.notify()
            else:  # its deadline has passed since
                self._leave_flight()

    def _refusal(self, item: Item) -> Reason | None:
        """Return why the later stages cannot be asked about a frame; None where they can."""
        if item.lane.rules.escalation is Escalation.LOCAL:
            return Reason.LOCAL
        if item.saved_s >= item.due_s:
            return Reason.DEADLINE
        with self.lock:
            if self._stopping:
                return Reason.STOPPED
            return Reason.IN_FLIGHT if self._in_flight >= self._max_in_flight else None

    def _enter_flight(self) -> None:
        self._in_flight += 1
        self._context.metrics.gauge(Gauge.IN_FLIGHT, "", self._in_flight)

    def _leave_flight(self) -> None:
        self._in_flight -= 1
        self._context.metrics.gauge(Gauge.IN_FLIGHT, "", self._in_flight)
        self._work.notify()

    def _ask_later_ones(self) -> None:
        preprocessors: dict[int, Preprocessor] = {}
        while (item := self._next_escalation()) is not None:
            try:
                if item.awaiting or item.audited is not None:
                    self._ask_later(item, preprocessors)
            finally:
                with self.lock:
                    self._leave_flight()

    def _next_escalation(self) -> Item | None:
        with self.lock:
            while not (self._stopping or self._waiting):
                self._asks.wait()
            return None if self._stopping else self._waiting.popleft()

    def _ask_later(self, item: Item, preprocessors: dict[int, Preprocessor]) -> None:
        """Ask the later stages, one after the other, until one settles the matter."""
        case = item.case
        failure: EngineError | None = None
        begun_s = self._clock()
        case.spent("waiting", (begun_s - item.saved_s) * 1e3)
        for position in self._judge.asked[1:]:
            stage = self._stages[position]
            batch = self._input(item, position, preprocessors)
            started_s = self._clock()
            try:
                self._judge.hear(case, position, stage.ask(batch))
            except EngineError as error:
                failure = error
                if case.outputs is not None or position != self._judge.asked[-1]:
                    self._judge.fail(case, position, error)
            case.spent(stage.policy.model, (self._clock() - started_s) * 1e3)
            if case.accepted:
                break
        now = self._clock()
        case.spent("total", (now - item.arrived_s) * 1e3)
        if item.audited is not None and failure is not None:
            self._close_item(item)  # nothing to compare with
            return
        if case.outputs is None:
            assert failure is not None
            self._conclude(item, None, None, failure)
            return
        decision = self._judge.decision(case)
        source_id = item.lane.rules.source_id
        if item.audited is not None:
            self._watch.audited(item.audited, decision, item.frame)
            self._close_item(item)
            return
        self._context.metrics.measure(
            Measure.ESCALATION_MS,
            source_id,
            (now - item.saved_s) * 1e3,
            detail=decision.source.value,
        )
        self._conclude(item, decision, None, None)

    def _input(self, item: Item, position: int, preprocessors: dict[int, Preprocessor]) -> Batch:
        """Return a later stage's input for a frame."""
        batch = item.prepared.get(position)
        if batch is not None:
            return batch
        assert item.frame is not None
        if position not in preprocessors:
            preprocessors[position] = Preprocessor(self._stages[position].preprocess)
        return preprocessors[position](item.frame.image)

    # Audits

    def _may_audit(self, item: Item, decision: Decision) -> bool:
        if item.lane.rules.escalation is Escalation.LOCAL or len(self._judge.asked) == 1:
            return False
        with self.lock:
            if self._stopping or self._in_flight >= self._max_in_flight:
                return False
        return self._watch.audits(decision)

    def _audit(self, item: Item, decision: Decision) -> None:
        """Have the later stages asked about a frame whose answer has gone out."""
        item.case = replace(item.case, timings_ms={}, accepted=False)
        item.audited = decision
        with self.lock:
            self._enter_flight()
            self._waiting.append(item)
            self._asks.notify()

    # Deadlines

    def _keep_deadlines(self) -> None:
        while True:
            with self.lock:
                item = self._next_due()
                if self._stopping:
                    return
            if item is not None:
                self._conclude(item, self._degraded(item, Reason.DEADLINE), Reason.DEADLINE, None)

    def _next_due(self) -> Item | None:
        """Wait for a deadline to pass, at most until something changes."""
        if not self._deadlines:
            self._dues.wait()
            return None
        due_s, _, item = self._deadlines[0]
        if not item.awaiting:
            heapq.heappop(self._deadlines)
            return None
        wait_s = due_s - self._clock()
        if wait_s > 0:
            self._dues.wait(wait_s)
            return None
        heapq.heappop(self._deadlines)
        return item if item.stand_in is not None else None

    def _degraded(self, item: Item, reason: Reason) -> Decision:
        """Return the saver's answer as it goes out in place of the large model's."""
        deadline_ms = (item.due_s - item.arrived_s) * 1e3
        why = {
            Reason.DEADLINE: f"{self._large} had not answered within {deadline_ms:g} ms",
            Reason.IN_FLIGHT: f"{self._max_in_flight} frames wait for {self._large} already",
            Reason.LOCAL: f"{self._large} is not asked: the stream is local",
            Reason.STOPPED: f"the stream was closed before {self._large} answered",
        }[reason]
        assert item.stand_in is not None
        return replace(item.stand_in, degraded=why, certified=False)

    # Giving out

    def _conclude(
        self,
        item: Item,
        decision: Decision | None,
        reason: Reason | None,
        failure: EngineError | None,
    ) -> None:
        """End an escalation, unless it has ended already."""
        with self.lock:
            late = not item.awaiting
            item.awaiting = False
            self._awaiting.pop(item, None)
            if item in self._waiting:  # nobody has begun with it: its place is free
                self._waiting.remove(item)
                self._leave_flight()
        if late:
            self._context.metrics.count(Counter.LATE, item.lane.rules.source_id)
        elif decision is None:
            assert failure is not None
            self._leave_undecided(item, failure)
        elif item.decision is None:
            self._settle(item, decision, reason)
        else:
            revision = replace(decision, revision=1)
            self._measure(item, revision, reason)
            with self._giving:
                self._hand_out(item, revision)
                self._close_item(item)

    def _settle(self, item: Item, decision: Decision, reason: Reason | None) -> None:
        """Give a frame its final decision."""
        self._measure(item, decision, reason)
        item.decision = decision
        if item.lane.rules.ordered:
            self._flush(item.lane, closing=item)
            return
        with self._giving:
            with self.lock:
                item.lane.order.remove(item)
            self._hand_out(item, decision)
            self._close_item(item)

    def _flush(self, lane: Lane, *, closing: Item | None = None) -> None:
        """Give out what is decided and has nothing undecided ahead of it."""
        with self._giving:
            while True:
                with self.lock:
                    if not lane.order or lane.order[0].decision is None:
                        break
                    item = lane.order.popleft()
                assert item.decision is not None
                self._hand_out(item, item.decision)
            if closing is not None:
                self._close_item(closing)

    def _hand_out(self, item: Item, decision: Decision) -> None:
        if self._muted:
            return
        name, source = item.lane.rules.source_id, decision.source.value
        age_ms = (self._clock() - item.arrived_s) * 1e3
        self._context.metrics.measure(Measure.AGE_MS, name, age_ms, detail=source)
        with self.lock:
            item.lane.untaken += 1
        item.lane.taker.deliver(item, decision)

    def _close_item(self, item: Item) -> None:
        with self.lock:
            item.lane.open -= 1
            item.lane.room.notify()
            finished = item.lane.finished
        if finished:
            item.lane.taker.drained()

    def _leave_undecided(self, item: Item, failure: EngineError) -> None:
        """No model has answered a frame: a live stream goes on, anything else ends."""
        rules = item.lane.rules
        self._context.metrics.count(Counter.UNDECIDED, rules.source_id)
        with self._giving:
            with self.lock:
                if item in item.lane.order:
                    item.lane.order.remove(item)
            item.lane.taker.give_up(item, failure)
            self._close_item(item)
        self._context.listener(
            Undecided(rules.source_id, self._clock(), item.case.frame_id.sequence, str(failure))
        )
        self._flush(item.lane)

    def _measure(self, item: Item, decision: Decision, reason: Reason | None) -> None:
        """Publish the figures of a final decision."""
        metrics, name = self._context.metrics, item.lane.rules.source_id
        source = decision.source.value
        metrics.count(Counter.DECISIONS, name, detail=source)
        if reason is None and decision.degraded is not None:
            elsewhere = decision.degraded == self._judge.elsewhere
            reason = Reason.FALLBACK_DEVICE if elsewhere else Reason.FAILED
        if reason is not None:
            metrics.count(Counter.DEGRADED, name, detail=reason.value)
        first = self._stages[self._first].policy.model
        metrics.measure(Measure.SAVER_MS, name, decision.timings_ms.get(first, 0.0), detail=source)

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
            for condition in (self._work, self._asks, self._dues):
                condition.notify_all()
            awaiting = list(self._awaiting)
            unread = [item for lane in self._lanes for item in lane.ready]
            for lane in self._lanes:
                lane.ready.clear()
                lane.room.notify_all()
        if first:
            for item in awaiting:
                if item.stand_in is not None:
                    stopped = self._degraded(item, Reason.STOPPED)
                    self._conclude(item, stopped, Reason.STOPPED, None)
                else:
                    unread.append(item)
            for item in unread:
                with self._giving:
                    item.lane.taker.give_up(item, EngineError(CLOSED))
        deadline_s = time.monotonic() + JOIN_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline_s - time.monotonic()))
        with self._giving:
            self._muted = True
        self._context.metrics.gauge(Gauge.IN_FLIGHT, "", 0)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a thread; what it raises ends the stream instead of being lost."""
        try:
            work()
        except BaseException as error:
            self._failed(error)
