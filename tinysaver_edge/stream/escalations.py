"""Frames that wait for the large model: few at once, and none for longer than it may."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import Counter as Multiset
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from tinysaver_edge.deciding.policy import as_it_is
from tinysaver_edge.decision import Decision, Reason
from tinysaver_edge.errors import EngineError
from tinysaver_edge.preprocess import Batch, Preprocess, Preprocessor
from tinysaver_edge.stream.lane import Giver, Item, Lane, Regime
from tinysaver_edge.stream.options import Escalation
from tinysaver_edge.stream.sources.source import Context
from tinysaver_edge.stream.telemetry.metrics import Counter, Gauge, Measure

if TYPE_CHECKING:
    from tinysaver_edge.deciding.memory import Remembered

NO_ANSWER = "no model has answered the frame that it looks like"

FEW = 64
"""So many deadlines are kept without a look at whether anybody still waits for them."""


class Deadlines:
    """Deadlines, the next one first. Guarded by the dispatcher's lock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._ticket = itertools.count()
        self._few = FEW

    def add(self, item: Item) -> None:
        """Watch over a frame, unless it may take as long as it likes."""
        if item.due_s == float("inf"):
            return
        if len(self._heap) >= self._few:  # frames that were answered long before their deadline
            self._heap = [due for due in self._heap if due[2].awaiting]
            heapq.heapify(self._heap)
            self._few = max(FEW, 2 * len(self._heap))
        heapq.heappush(self._heap, (item.due_s, next(self._ticket), item))

    def next_s(self) -> float | None:
        """Return when the next is due; None where nothing waits."""
        while self._heap and not self._heap[0][2].awaiting:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self) -> Item:
        """Take out the next."""
        return heapq.heappop(self._heap)[2]


def _large(item: Item) -> str:
    """Return the name of the model that a frame's saver stands in for."""
    return item.regime.decider.stages[-1].policy.model


def _nothing(threshold: float) -> float:
    """Return what no score reaches: an audit goes on to the last stage."""
    return float("inf")


class Escalations:
    """Has the last stage asked about frames, and stands in for it when it does not answer.

    Args:
        max_in_flight: frames that wait for a last stage at once.
        context: metrics and clock.
        giver: gives decisions out.
        lock: the dispatcher's.
        freed: called, with the lock held, when one more frame may be escalated.
    """

    def __init__(
        self,
        *,
        max_in_flight: int,
        context: Context,
        giver: Giver,
        lock: threading.Lock,
        freed: Callable[[], None],
    ) -> None:
        self._max_in_flight = max_in_flight
        self._context, self._giver = context, giver
        self._clock = context.clock
        self._lock, self._freed = lock, freed
        self._asks = threading.Condition(lock)
        self._dues = threading.Condition(lock)
        self._waiting: deque[Item] = deque()
        self._awaiting: dict[Item, None] = {}
        self._joined: dict[Remembered, list[Item]] = {}
        self._deadlines = Deadlines()
        self._served: Lane | None = None
        self._in_flight = 0
        self._engines = 0
        self._stopping = False

    def works(self, regime: Regime) -> list[Callable[[], None]]:
        """What threads of their own are to run until `stop`, for a regime as well."""
        if len(regime.judge.asked) == 1:
            return []
        wanted = min(self._max_in_flight, regime.decider.stages[-1].engine.concurrency)
        more = max(0, wanted - self._engines)
        keep = [] if self._engines else [self.keep_deadlines]
        self._engines += more
        return [*[self.ask_later_stages] * more, *keep]

    @property
    def room(self) -> int:
        """How many more frames may wait; below 1 for none. With the lock held."""
        return self._max_in_flight - self._in_flight

    def begin(self, item: Item) -> bool:
        """Have the later stages asked about a frame; False when closed."""
        with self._lock:
            if self._stopping:
                return False
            provisional = self._await(item)
            item.lane.asked(self._clock())
            if item.answer is not None:
                item.answer.stand_in = item.stand_in
            self._enter_flight(item)
        self._context.metrics.count(Counter.ESCALATED, item.lane.rules.source_id)
        if provisional:  # it goes out before the large model can have answered
            self._give_provisional(item)
        with self._lock:
            if not item.awaiting:  # closed meanwhile
                self._leave_flight(item)
                return True
            self._waiting.append(item)
            self._asks.notify()
            self._deadlines.add(item)
            self._dues.notify()
        return True

    def _await(self, item: Item) -> bool:
        """Wait for a frame's answer; tell whether the saver's goes out first. With the lock."""
        item.awaiting = True
        self._awaiting[item] = None
        if item.lane.rules.escalation is not Escalation.REVISE or item.stand_in is None:
            return False
        item.decision = replace(
            item.stand_in,
            degraded=f"provisional: {_large(item)} has been asked",
            reason=Reason.PROVISIONAL,
            certified=False,
        )
        return True

    def _give_provisional(self, item: Item) -> None:
        self._context.metrics.count(Counter.PROVISIONAL, item.lane.rules.source_id)
        self._giver.flush(item.lane)

    # Frames that look like another

    def join(self, item: Item) -> None:
        """Answer a frame with what is found for another, which may be on its way still."""
        answer = item.repeats
        assert answer is not None
        with self._lock:
            if item.stand_in is None and answer.stand_in is not None:
                item.stand_in = self.repeated(item, answer.stand_in)
            waits = not (answer.ended or self._stopping)
            provisional = waits and self._await(item)
            if waits:
                self._joined.setdefault(answer, []).append(item)
                self._deadlines.add(item)
                self._dues.notify()
        if provisional:
            self._give_provisional(item)
        if waits:
            return
        if answer.decision is not None:
            self.repeat(item, answer.decision)
        elif item.stand_in is not None:
            self._giver.settle(item, item.stand_in)
            self.end(item, item.stand_in)
        else:
            self._leave_undecided(item, EngineError(NO_ANSWER))

    def repeat(self, item: Item, decision: Decision) -> None:
        """Answer a frame as an earlier one was."""
        repeated = self.repeated(item, decision)
        self._giver.settle(item, repeated)
        self.end(item, repeated)

    def repeated(self, item: Item, decision: Decision) -> Decision:
        """Return an earlier frame's decision as that on this frame."""
        assert item.memory is not None
        item.case.timings_ms["total"] = (self._clock() - item.arrived_s) * 1e3
        return item.memory.repeated(decision, item.case, item.alike)

    def end(self, item: Item, decision: Decision | None) -> None:
        """Tell those who look like a frame what became of it: its decision, or that there is none.

        Once the first decision is there, it stays.
        """
        answer, memory = item.answer, item.memory
        if answer is None or memory is None:
            return
        with self._lock:
            if answer.ended:
                return
            memory.end(answer, decision)
            joined = self._joined.pop(answer, [])
        for other in joined:
            self._end_joined(other, item, decision)

    def _end_joined(self, item: Item, leader: Item, decision: Decision | None) -> None:
        """Give a frame the answer to the one that it waited for."""
        assert leader.answer is not None
        found, instead = leader.answer.decision, item.stand_in
        if found is not None:
            self._conclude(item, self.repeated(item, found))
        elif decision is not None and instead is not None:
            told = (decision.degraded, decision.reason)
            self._conclude(
                item, replace(instead, degraded=told[0], reason=told[1], certified=False)
            )
        elif decision is not None:
            self._conclude(item, self.repeated(item, decision))
        else:
            item.case.failure = leader.case.failure or EngineError(NO_ANSWER)
            self._conclude(item, None)

    def _leave_undecided(self, item: Item, failure: EngineError) -> None:
        item.case.failure = item.case.failure or failure
        self._giver.leave_undecided(item)
        self.end(item, None)

    # Whether it may be asked

    def refusal(self, item: Item) -> Reason | None:
        """Return why the later stages cannot be asked about a frame; None where they can."""
        if item.lane.rules.escalation is Escalation.LOCAL:
            return Reason.LOCAL
        if item.saved_s >= item.due_s:
            return Reason.DEADLINE
        with self._lock:
            if self._stopping:
                return Reason.STOPPED
            if not item.lane.may_ask(self._clock()):
                return Reason.RATE
            if self.room > 0:
                return None
            other = self._surplus(item.lane)
        if other is None:
            return Reason.IN_FLIGHT
        self._conclude(other, self.degraded(other, Reason.IN_FLIGHT))
        return None

    def _surplus(self, lane: Lane) -> Item | None:
        """Return the newest frame of a source that takes more room than its share.

        Without this, a camera that is unsure about every frame would leave no room to the others.
        """
        counts = Multiset(item.lane for item in self._waiting)
        for item in reversed(self._waiting):
            fair = counts[item.lane] <= counts[lane] + 1 or item.lane.rules.patient
            if item.awaiting and item.stand_in is not None and not fair:
                return item
        return None

    def degraded(self, item: Item, reason: Reason) -> Decision | None:
        """Return the saver's answer, if there is one, as it goes out for the large model's."""
        if item.stand_in is None:
            return None
        total_ms = (self._clock() - item.arrived_s) * 1e3
        timings_ms = {**item.stand_in.timings_ms, "total": total_ms}
        return replace(
            item.stand_in,
            degraded=self._why(item, reason),
            reason=reason,
            certified=False,
            timings_ms=timings_ms,
        )

    def _why(self, item: Item, reason: Reason) -> str:
        """Say for people why the saver's answer goes out for the large model's."""
        large = _large(item)
        match reason:
            case Reason.DEADLINE:
                return f"{large} had not answered within {(item.due_s - item.arrived_s) * 1e3:g} ms"
            case Reason.IN_FLIGHT:
                return f"{self._max_in_flight} frames wait for {large} already"
            case Reason.LOCAL:
                return f"{large} is not asked: the stream is local"
            case Reason.STOPPED:
                return f"the stream was closed before {large} answered"
            case Reason.RATE:
                return f"{large} is asked about a source {item.lane.rules.pace} at most"
        raise ValueError(f"{reason} is no reason of a stream's own")

    def may_audit(self, item: Item, decision: Decision) -> bool:
        """Draw whether a frame with this answer is to be audited, where there is room for it."""
        lane, regime = item.lane, item.regime
        if lane.rules.escalation is Escalation.LOCAL or len(regime.judge.asked) == 1:
            return False
        with self._lock:
            if self._stopping or self.room <= 0 or not lane.may_ask(self._clock()):
                return False
        return regime.watch.audits(decision)

    def audit(self, item: Item) -> None:
        """Have the later stages asked about a frame whose answer has gone out."""
        item.case = replace(item.case, timings_ms={}, accepted=False)
        with self._lock:
            item.lane.asked(self._clock())
            self._enter_flight(item)
            self._waiting.append(item)
            self._asks.notify()

    def _enter_flight(self, item: Item) -> None:
        item.regime.enter()
        self._in_flight += 1
        self._context.metrics.gauge(Gauge.IN_FLIGHT, "", self._in_flight)

    def _leave_flight(self, item: Item) -> None:
        item.regime.leave()
        self._in_flight -= 1
        self._context.metrics.gauge(Gauge.IN_FLIGHT, "", self._in_flight)
        self._freed()

    def ask_later_stages(self) -> None:
        """Ask about one frame after the other."""
        preprocessors: dict[Preprocess, Preprocessor] = {}
        while (item := self._next_escalation()) is not None:
            try:
                if item.awaiting or item.audited is not None:
                    self._ask_later(item, preprocessors)
            finally:
                with self._lock:
                    self._leave_flight(item)

    def _next_escalation(self) -> Item | None:
        with self._lock:
            while not (self._stopping or self._waiting):
                self._asks.wait()
            if self._stopping:
                return None
            others = (item for item in self._waiting if item.lane is not self._served)
            item = next(others, self._waiting[0])  # the sources take turns
            self._waiting.remove(item)
            self._served = item.lane
            return item

    def _ask_later(self, item: Item, preprocessors: dict[Preprocess, Preprocessor]) -> None:
        """Ask the last stage; for an audit all those that were not, whatever they say."""
        case = item.case
        now_s = self._clock()
        case.spent("waiting", (now_s - item.saved_s) * 1e3)
        audit = item.audited is not None
        asked = item.regime.judge.asked
        for position in [one for one in asked if one > case.position] if audit else asked[-1:]:
            batch = self.input_of(item, position, preprocessors)
            if batch is None:
                self.end(item, None)
                return
            now_s = self._clock()
            now_s = item.regime.decider.ask(
                position,
                batch,
                (case,),
                since_s=now_s,
                timeout_s=item.left_s(now_s),
                in_force=_nothing if audit else as_it_is,
            )
        case.spent("total", (now_s - item.arrived_s) * 1e3)
        if item.audited is not None:
            self._end_audit(item, item.audited)
        elif case.outputs is None:
            self._conclude(item, None, last=True)
        else:
            decision = item.regime.judge.decision(case)
            name, source = item.lane.rules.source_id, decision.source.value
            answered_ms = (now_s - item.saved_s) * 1e3
            self._context.metrics.measure(Measure.ESCALATION_MS, name, answered_ms, detail=source)
            self._conclude(item, decision, last=True)

    def _end_audit(self, item: Item, accepted: Decision) -> None:
        if item.case.failure is None:  # else there is nothing to compare with
            large = item.regime.judge.decision(item.case)
            item.regime.watch.audited(accepted, large, item.frame)
        item.lane.forget(item)
        item.lane.close(item)

    def input_of(
        self, item: Item, position: int, preprocessors: dict[Preprocess, Preprocessor]
    ) -> Batch | None:
        """Return a later stage's input for a frame; None where it has been given out meanwhile."""
        batch, frame = item.prepared.get(position), item.frame
        if batch is not None or frame is None:
            return batch
        made = item.regime.decider.stages[position].preprocess
        if made not in preprocessors:
            preprocessors[made] = Preprocessor(made)
        return preprocessors[made](frame.image)

    def keep_deadlines(self) -> None:
        """Give out the saver's answer where a deadline has passed."""
        while (item := self._next_due()) is not None:
            if (degraded := self.degraded(item, Reason.DEADLINE)) is not None:
                self._conclude(item, degraded)

    def _next_due(self) -> Item | None:
        """Wait until a frame's deadline passes; None when closed."""
        with self._lock:
            while not self._stopping:
                due_s = self._deadlines.next_s()
                wait_s = None if due_s is None else due_s - self._clock()
                if wait_s is not None and wait_s <= 0:
                    return self._deadlines.take()
                self._dues.wait(wait_s)
            return None

    def _conclude(self, item: Item, decision: Decision | None, *, last: bool = False) -> None:
        """End an escalation, unless it has ended already.

        Args:
            item: the frame.
            decision: its final decision; None where no stage has answered.
            last: the large model has answered or failed. Where its time is merely up, what it may
                still say is for those who look like this frame.
        """
        with self._lock:
            late = not item.awaiting
            item.awaiting = False
            self._awaiting.pop(item, None)
            if item in self._waiting:  # nobody has begun with it: its place is free
                self._waiting.remove(item)
                self._leave_flight(item)
                last = True
            last = last or item.repeats is not None
        if late:
            self._context.metrics.count(Counter.LATE, item.lane.rules.source_id)
        elif decision is None:
            self._giver.leave_undecided(item)
        elif item.decision is None:
            self._giver.settle(item, decision)
        else:
            self._giver.revise(item, decision)
        if last:
            self.end(item, decision)

    def stop(self) -> list[Item]:
        """Take no more; return the frames that wait. With the lock held."""
        self._stopping = True
        self._asks.notify_all()
        self._dues.notify_all()
        return list(self._awaiting)

    def give_in(self, item: Item) -> bool:
        """Give out the saver's answer at the end; False where there is none."""
        if (degraded := self.degraded(item, Reason.STOPPED)) is None:
            return False
        self._conclude(item, degraded)
        return True
