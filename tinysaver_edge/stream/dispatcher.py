"""The heart of a stream: the saver hears every frame, the large model some, and neither waits."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge.engines.batching import SIZES, most_at_once
from tinysaver_edge.errors import EngineError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Batch
from tinysaver_edge.stream.drift.watch import NO_WATCH, Watch
from tinysaver_edge.stream.escalations import Escalations
from tinysaver_edge.stream.lane import Giver, Item, Lane, LaneRules, Taker
from tinysaver_edge.stream.sources.source import Context
from tinysaver_edge.stream.telemetry.metrics import Gauge

if TYPE_CHECKING:
    from tinysaver_edge.cascade import Cascade
    from tinysaver_edge.deciding.stage import Stage


class Together:
    """Asks a stage about the frames that wait. For one thread.

    Args:
        stage: whom to ask.
        limit: frames at once.
    """

    def __init__(self, stage: Stage, *, limit: int) -> None:
        self._stage = stage
        dtype = np.dtype(stage.preprocess.format.dtype)
        self._buffers = {
            size: np.empty(stage.preprocess.shape(size), dtype) for size in SIZES if size <= limit
        }
        self._limit = limit

    def most(self, waiting: int) -> int:
        """Return how many of the frames that wait are asked about at once."""
        return most_at_once(waiting, self._limit)

    def ask(self, inputs: Sequence[Batch]) -> list[Outputs | EngineError]:
        """Return what the stage answers to each frame, or how it failed on it.

        Where a batch fails, each frame is asked about alone: one that the model cannot take does
        the others no harm.

        Args:
            inputs: one prepared frame each, as many as `most` allows.
        """
        if len(inputs) == 1:
            return [self._ask_one(inputs[0])]
        batch = self._buffers[len(inputs)]
        np.concatenate(inputs, out=batch)
        try:
            answered = self._stage.ask(batch)
        except EngineError:
            return [self._ask_one(one) for one in inputs]
        return [answered.subset(slice(place, place + 1)) for place in range(len(inputs))]

    def _ask_one(self, batch: Batch) -> Outputs | EngineError:
        try:
            return self._stage.ask(batch)
        except EngineError as error:
            return error


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
        together: frames that the first stage is asked about at once at most, where so many wait.
        watch: audits accepted frames, and may be stricter.
        failed: called once, from any thread, when something raises that no frame is to blame for.
    """

    def __init__(
        self,
        cascade: Cascade,
        *,
        max_in_flight: int,
        context: Context,
        together: int = 1,
        watch: Watch = NO_WATCH,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._stages, self._judge = cascade.stages, cascade.judge
        self._context, self._watch, self._failed = context, watch, failed
        self._clock = context.clock
        self._first = self._judge.asked[0]
        self._together = Together(self._stages[self._first], limit=together)
        self.lock = threading.Lock()
        self._work = threading.Condition(self.lock)
        self._lanes: deque[Lane] = deque()
        self._giver = Giver(self._judge, context=context, lock=self.lock, watch=watch)
        self._escalations = Escalations(
            self._stages,
            self._judge,
            max_in_flight=max_in_flight,
            context=context,
            watch=watch,
            giver=self._giver,
            lock=self.lock,
            freed=self._work.notify,
        )
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__, daemon=True)
            for work in (self._ask_first_stage, *self._escalations.works)
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
            lane.pictures += item.frame is not None
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

    def _ask_first_stage(self) -> None:
        while items := self._next():
            started_s = self._clock()
            answers = self._together.ask([_input(item) for item in items])
            ended_s = self._clock()
            for item, answer in zip(items, answers, strict=True):
                self._take_answer(item, answer, started_s=started_s, ended_s=ended_s)

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
        lanes = [
            lane for lane in self._lanes if lane.ready and (room > 0 or not lane.rules.patient)
        ]
        waiting = sum(len(lane.ready) for lane in lanes)
        if any(lane.rules.patient for lane in lanes):
            waiting = min(waiting, room)
        count = self._together.most(waiting)
        items: list[Item] = []
        while len(items) < count:
            lane = self._lanes[0]
            self._lanes.rotate(-1)
            if lane in lanes and lane.ready:
                items.append(lane.ready.popleft())
        return items

    def _take_answer(
        self, item: Item, answer: Outputs | EngineError, *, started_s: float, ended_s: float
    ) -> None:
        case, stage = item.case, self._stages[self._first]
        failure: EngineError | None = None
        if isinstance(answer, EngineError):
            failure = answer
            if len(self._judge.asked) > 1:
                self._judge.fail(case, self._first, answer)
        else:
            self._judge.hear(case, self._first, answer, accepts=self._watch.accepts)
        item.saved_s = ended_s
        case.spent(stage.policy.model, (ended_s - started_s) * 1e3)
        if failure is not None and len(self._judge.asked) == 1:
            self._giver.leave_undecided(item, failure)
        elif case.accepted:
            case.spent("total", (item.saved_s - item.arrived_s) * 1e3)
            decision = self._judge.decision(case)
            audit = self._escalations.may_audit(item, decision)
            self._release(item, keep=audit)
            if audit:  # the lane has not ended before it
                item.audited = decision
                with self.lock:
                    item.lane.open += 1
            elif not item.shown:
                self._giver.forget(item)
            self._giver.settle(item, decision, None)
            if audit:
                self._escalations.audit(item)
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

    def _escalate(self, item: Item, failure: EngineError | None) -> None:
        """Have the later stages asked, or give out the saver's answer and why they are not."""
        case, reason = item.case, self._escalations.refusal(item)
        self._release(item, keep=reason is None)
        if failure is None:
            case.spent("total", (item.saved_s - item.arrived_s) * 1e3)
            item.stand_in = self._judge.decision(replace(case, timings_ms=dict(case.timings_ms)))
            del case.timings_ms["total"]
        if reason is None:
            self._escalations.begin(item)
        elif item.stand_in is not None:
            self._giver.settle(item, self._escalations.degraded(item, reason), reason)
        else:
            assert failure is not None
            self._giver.leave_undecided(item, failure)

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
            unread = [item for lane in self._lanes for item in lane.ready]
            for lane in self._lanes:
                lane.ready.clear()
                lane.room.notify_all()
        if first:
            unread += [item for item in awaiting if not self._escalations.give_in(item)]
            for item in unread:
                self._giver.abandon(item, EngineError(CLOSED))
        deadline_s = time.monotonic() + JOIN_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline_s - time.monotonic()))
        self._giver.mute()
        self._context.metrics.gauge(Gauge.IN_FLIGHT, "", 0)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a thread; what it raises ends the stream instead of being lost."""
        try:
            work()
        except BaseException as error:
            self._failed(error)


def _input(item: Item) -> Batch:
    assert item.batch is not None
    return item.batch
