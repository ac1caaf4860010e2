"""One source's way through a stream: its frames in order, bounded, each given out and counted."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tinysaver_edge.deciding.policy import Case
from tinysaver_edge.decision import AnswerSource, Decision, Likeness, stands_in
from tinysaver_edge.engines.batching import SIZES
from tinysaver_edge.errors import EngineError
from tinysaver_edge.preprocess import Batch
from tinysaver_edge.stream.drift.watch import NO_WATCH, Watch
from tinysaver_edge.stream.options import Escalation, Pace
from tinysaver_edge.stream.sources.source import Context, Frame
from tinysaver_edge.stream.telemetry.events import Undecided
from tinysaver_edge.stream.telemetry.metrics import Counter, Measure

if TYPE_CHECKING:
    from tinysaver_edge.deciding.decider import Decider
    from tinysaver_edge.deciding.memory import CameraMemory, Remembered
    from tinysaver_edge.reuse import Look


class Regime:
    """What decides for a time: a frame that is taken in under one regime is decided by it wholly.

    Another may take over between two frames. What is open of the old one then, frames that wait
    for its large model and audits, ends with it. Methods are called with the dispatcher's lock
    held.

    Args:
        decider: whose stages are asked.
        watch: audits accepted frames, and may be stricter.
        memory: makes what remembers a camera's frames and answers; None where none is repeated.
        together: frames that the first stage is asked about at once at most, where so many wait.

    Attributes:
        over: set once another has taken over and nothing is open: its models may be closed.
    """

    def __init__(
        self,
        decider: Decider,
        *,
        watch: Watch = NO_WATCH,
        memory: Callable[[], CameraMemory] | None = None,
        together: int = 1,
    ) -> None:
        self.decider, self.judge = decider, decider.judge
        self.watch, self.memory, self.together = watch, memory, together
        self.joined = {size: self.room(size) for size in SIZES if size <= together}
        self.over = threading.Event()
        self._open = 0
        self._retired = False

    def room(self, frames: int) -> Batch:
        """Return memory for so many prepared frames."""
        made = self.decider.first.preprocess
        return np.zeros(made.shape(frames), np.dtype(made.format.dtype))

    def enter(self) -> None:
        """Something begins that takes its models."""
        self._open += 1

    def leave(self) -> None:
        """Something has ended."""
        self._open -= 1
        if self._retired and not self._open:
            self.over.set()

    def retire(self) -> None:
        """No more frames are taken in under it."""
        self._retired = True
        if not self._open:
            self.over.set()


@dataclass(slots=True, eq=False)
class Item:
    """One frame on its way.

    Attributes:
        lane: where it belongs.
        regime: what decides it.
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
        audited: the decision that an audit compares with, or None.
        memory: what its camera showed and was answered; None where nothing is repeated.
        look: what that said of it; None where there is none.
        repeats: the earlier answer that is its own; None where there is none, or not yet.
        alike: in what it is like that earlier frame.
    """

    lane: Lane
    regime: Regime
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
    memory: CameraMemory | None = None
    look: Look[Remembered] | None = None
    repeats: Remembered | None = None
    alike: Likeness = Likeness.STILL

    @property
    def answer(self) -> Remembered | None:
        """What others may repeat; None where it repeats another's itself, or nobody remembers."""
        return None if self.look is None or self.look.repeats is not None else self.look.key

    @property
    def asks(self) -> bool:
        """Whether the first stage is to be asked about it."""
        return self.batch is not None

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
        live: frames of a camera: taken in only when whoever asks for decisions has taken the last
            one, so that none grows old waiting for him, and one without an answer ends nothing.
        pace: how often the large model may be asked about them.
    """

    source_id: str
    escalation: Escalation
    window: int
    patient: bool = False
    ordered: bool = True
    live: bool = False
    pace: Pace = field(default_factory=Pace)


class Lane:
    """One source's frames on their way. Its counters are its own: others tell it what happens.

    Methods take the dispatcher's lock, unless they say that the caller holds it.

    Attributes:
        room: told whenever a frame may be taken in again.
    """

    def __init__(
        self,
        rules: LaneRules,
        taker: Taker,
        *,
        buffers: int,
        regime: Regime,
        lock: threading.Lock,
    ) -> None:
        self.rules = rules
        self.taker = taker
        self.room = threading.Condition(lock)
        self._count = buffers
        self._make_buffers(regime)
        self._ready: deque[Item] = deque()  # they wait for the first stage
        self._order: deque[Item] = deque()  # taken in and not given out, oldest first
        self._open = 0  # without their final decision, or under audit
        self._pictures = 0  # kept at their full size
        self._untaken = 0  # decisions that nobody has taken yet
        self._asked_s: deque[float] = deque()  # when the large model was asked, lately
        self._ended = False

    # With the lock held

    def _make_buffers(self, regime: Regime) -> None:
        self._regime = regime
        self._buffers = [regime.room(1) for _ in range(self._count)]
        self._free = deque(self._buffers)

    @property
    def serves(self) -> Regime | None:
        """What decides the next of the frames that wait for the first stage; None where none do."""
        return self._ready[0].regime if self._ready and self._ready[0].asks else None

    def waiting(self, regime: Regime) -> int:
        """How many frames wait for a first stage, ahead of any that wait for another's answer."""
        return sum(
            1 for _ in takewhile(lambda item: item.asks and item.regime is regime, self._ready)
        )

    @property
    def joins(self) -> bool:
        """Whether the next frame asks no model."""
        return bool(self._ready) and not self._ready[0].asks

    def may_ask(self, now_s: float) -> bool:
        """Whether its pace lets the large model be asked now."""
        return not self.rules.pace.limits or self.rules.pace.allows(self._asked_s, now_s)

    def asked(self, now_s: float) -> None:
        """The large model is being asked."""
        if self.rules.pace.limits:
            self._asked_s.append(now_s)

    def lend(self) -> Batch | None:
        """Return a buffer for one more frame; None where none may be taken in."""
        full = len(self._order) + self._untaken >= self.rules.window
        held = self._pictures >= PICTURES or (self.rules.live and self._untaken)
        return None if full or held or not self._free else self._free.popleft()

    def fit(self, batch: Batch, regime: Regime) -> Batch:
        """Return a buffer in place of one that was lent, for a frame that a regime decides."""
        if regime is not self._regime:
            self._make_buffers(regime)
            self.room.notify()
            return self._free.popleft()
        return batch

    def take_in(self, item: Item, *, ready: bool = True) -> None:
        """Take in a frame.

        Args:
            item: the frame, prepared where it asks the first stage.
            ready: it goes to the dispatcher; else its decision is known already.
        """
        if ready:
            self._ready.append(item)
        self._order.append(item)
        self._open += 1
        self._pictures += item.frame is not None

    def next_ready(self) -> Item:
        """Return the frame that has waited for the first stage the longest."""
        return self._ready.popleft()

    def clear_ready(self) -> list[Item]:
        """Return the frames that wait for the first stage, which will not be asked any more."""
        unread = list(self._ready)
        self._ready.clear()
        self.room.notify_all()
        return unread

    # Without the lock

    def give_back(self, batch: Batch) -> None:
        """Return a buffer that nobody needs any more; one of another regime is let go."""
        with self.room:
            if any(batch is one for one in self._buffers):
                self._free.append(batch)
                self.room.notify()

    def settle(self, item: Item, decision: Decision) -> None:
        """Note a frame's decision, to be given out when its turn comes."""
        with self.room:
            item.decision = decision

    def next_settled(self) -> Item | None:
        """Take out the oldest frame, if it is decided."""
        with self.room:
            if not self._order or self._order[0].decision is None:
                return None
            return self._order.popleft()

    def leave(self, item: Item) -> None:
        """Take out a frame that waits for no other's turn."""
        with self.room:
            if item in self._order:
                self._order.remove(item)

    def handed_out(self) -> None:
        """A decision is given to the taker."""
        with self.room:
            self._untaken += 1

    def taken(self) -> None:
        """A decision was taken by whoever asked for it."""
        with self.room:
            self._untaken -= 1
            self.room.notify()

    def forget(self, item: Item) -> None:
        """Let go of what a frame holds that nobody needs any more."""
        if item.frame is None and not item.prepared:
            return
        with self.room:
            if item.frame is not None:
                item.frame = None
                self._pictures -= 1
                self.room.notify()
        item.prepared.clear()

    def audit(self, item: Item) -> None:
        """One of its frames, though decided, is under audit: it has not ended before."""
        with self.room:
            self._open += 1
            item.regime.enter()

    def close(self, item: Item) -> None:
        """A frame has its final decision or gets none, or its audit is over."""
        with self.room:
            self._open -= 1
            item.regime.leave()
            self.room.notify()
            drained = self._ended and not self._open
        if drained:
            self.taker.drained()

    def end(self) -> None:
        """No more frames come."""
        with self.room:
            self._ended = True
            drained = not self._open
        if drained:
            self.taker.drained()


class Giver:
    """Gives decisions to the lanes' takers, one at a time where a lane has an order.

    Any thread may call it, without the dispatcher's lock.
    """

    def __init__(self, *, context: Context) -> None:
        self._context = context
        self._turn = threading.Lock()
        self._muted = False

    def settle(self, item: Item, decision: Decision) -> None:
        """Give a frame, which has none yet, its final decision."""
        self._count(item, decision)
        item.lane.settle(item, decision)
        if item.lane.rules.ordered:
            self.flush(item.lane, closing=item)
            return
        item.lane.leave(item)
        self._hand_out(item, decision)
        item.lane.close(item)

    def revise(self, item: Item, decision: Decision) -> None:
        """Give a frame that has a provisional decision its final one."""
        revision = replace(decision, revision=1)
        self._count(item, revision)
        self.flush(item.lane)  # the provisional one goes first, whoever was quicker
        with self._turn:
            self._hand_out(item, revision)
            item.lane.close(item)

    def flush(self, lane: Lane, *, closing: Item | None = None) -> None:
        """Give out what is decided and has nothing undecided ahead of it."""
        with self._turn:
            while (item := lane.next_settled()) is not None:
                assert item.decision is not None
                self._hand_out(item, item.decision)
            if closing is not None:
                lane.close(closing)

    def leave_undecided(self, item: Item) -> None:
        """No model has answered a frame: a live stream goes on, anything else ends."""
        failure = item.case.failure
        assert failure is not None
        source_id, sequence = item.lane.rules.source_id, item.case.frame_id.sequence
        self._context.metrics.count(Counter.UNDECIDED, source_id)
        with self._turn_of(item.lane):
            item.lane.leave(item)
            item.lane.taker.give_up(item, failure)
            item.lane.forget(item)
            item.lane.close(item)
        now = self._context.clock()
        self._context.listener(Undecided(source_id, now, sequence, str(failure)))
        self.flush(item.lane)

    def abandon(self, item: Item, failure: EngineError) -> None:
        """Say at the end that a frame gets no decision."""
        with self._turn_of(item.lane):
            item.lane.taker.give_up(item, failure)

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
        if decision.certified and not item.regime.watch.vouches:
            decision = replace(decision, certified=False)
        name, source = item.lane.rules.source_id, decision.source.value
        if decision.certified:
            self._context.metrics.count(Counter.CERTIFIED, name)
        age_ms = (self._context.clock() - item.arrived_s) * 1e3
        self._context.metrics.measure(Measure.AGE_MS, name, age_ms, detail=source)
        item.lane.handed_out()
        item.lane.taker.deliver(item, decision)
        if not item.awaiting and item.audited is None:
            item.lane.forget(item)

    def _count(self, item: Item, decision: Decision) -> None:
        """Publish the figures of a final decision."""
        metrics, name = self._context.metrics, item.lane.rules.source_id
        source = decision.source.value
        metrics.count(Counter.DECISIONS, name, detail=source)
        metrics.count(Counter.SETTLED, name, detail=decision.stage.model)
        if decision.reason is not None:
            metrics.count(Counter.DEGRADED, name, detail=decision.reason.value)
        if stands_in(decision):
            metrics.count(Counter.STOOD_IN, name)
        if decision.reused is not None:
            metrics.count(Counter.REUSED, name, detail=decision.reused.alike.value)
        first_model = item.regime.decider.first.policy.model
        if decision.source is not AnswerSource.REUSED or first_model in decision.timings_ms:
            saver_ms = decision.timings_ms.get(first_model, 0.0)
            metrics.measure(Measure.SAVER_MS, name, saver_ms, detail=source)
