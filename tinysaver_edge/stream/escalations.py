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
from tinysaver_edge.preprocess import Batch, Preprocessor
from tinysaver_edge.stream.drift.watch import Watch
from tinysaver_edge.stream.lane import Giver, Item, Lane
from tinysaver_edge.stream.options import Escalation
from tinysaver_edge.stream.sources.source import Context
from tinysaver_edge.stream.telemetry.metrics import Counter, Gauge, Measure

if TYPE_CHECKING:
    from tinysaver_edge.deciding.decider import Decider

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


def _nothing(threshold: float) -> float:
    """Return what no score reaches: an audit goes on to the last stage."""
    return float("inf")


class Escalations:
    """Has the last stage asked about frames, and stands in for it when it does not answer.

    Args:
        decider: whose stages are asked.
        max_in_flight: frames that wait for the last one at once.
        context: metrics and clock.
        watch: hears of audits.
        giver: gives decisions out.
        lock: the dispatcher's.
        freed: called, with the lock held, when one more frame may be escalated.
    """

    def __init__(
        self,
        decider: Decider,
        *,
        max_in_flight: int,
        context: Context,
        watch: Watch,
        giver: Giver,
        lock: threading.Lock,
        freed: Callable[[], None],
    ) -> None:
        self._decider, self._judge, self._max_in_flight = decider, decider.judge, max_in_flight
        self._context, self._watch, self._giver = context, watch, giver
        self._clock = context.clock
        self._lock, self._freed = lock, freed
        self._asks = threading.Condition(lock)
        self._dues = threading.Condition(lock)
        self._large = decider.stages[-1].policy.model
        self._waiting: deque[Item] = deque()
        self._awaiting: dict[Item, None] = {}
        self._deadlines = Deadlines()
        self._served: Lane | None = None
        self._in_flight = 0
        self._stopping = False

    @property
    def works(self) -> list[Callable[[], None]]:
        """What threads are to run until `stop`."""
        if len(self._judge.asked) == 1:
            return []
        engines = min(self._max_in_flight, self._decider.stages[-1].engine.concurrency)
        return [*[self.ask_later_stages] * engines, self.keep_deadlines]

    @property
    def room(self) -> int:
        """How many more frames may wait; below 1 for none. With the lock held."""
        return self._max_in_flight - self._in_flight

    def begin(self, item: Item) -> None:
        """Have the later stages asked about a frame; nothing has been said against it."""
        rules = item.lane.rules
        self._context.metrics.count(Counter.ESCALATED, rules.source_id)
        provisional = rules.escalation is Escalation.REVISE and item.stand_in is not None
        with self._lock:
            item.awaiting = True
            self._awaiting[item] = None
            self._enter_flight()
            if provisional:
                assert item.stand_in is not None
                item.decision = replace(
                    item.stand_in,
                    degraded=f"provisional: {self._large} has been asked",
                    reason=Reason.PROVISIONAL,
                    certified=False,
                )
        if provisional:  # it goes out before the large model can have answered
            self._context.metrics.count(Counter.PROVISIONAL, rules.source_id)
            self._giver.flush(item.lane)
        with self._lock:
            if not item.awaiting:  # closed meanwhile
                self._leave_flight()
                return
            self._waiting.append(item)
            self._asks.notify()
            self._deadlines.add(item)
            self._dues.notify()

    def refusal(self, item: Item) -> Reason | None:
        """Return why the later stages cannot be asked about a frame; None where they can."""
        if item.lane.rules.escalation is Escalation.LOCAL:
            return Reason.LOCAL
        if item.saved_s >= item.due_s:
            return Reason.DEADLINE
        with self._lock:
            if self._stopping:
                return Reason.STOPPED
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

    def degraded(self, item: Item, reason: Reason) -> Decision:
        """Return the saver's answer as it goes out in place of the large model's."""
        deadline_ms = (item.due_s - item.arrived_s) * 1e3
        why = {
            Reason.DEADLINE: f"{self._large} had not answered within {deadline_ms:g} ms",
            Reason.IN_FLIGHT: f"{self._max_in_flight} frames wait for {self._large} already",
            Reason.LOCAL: f"{self._large} is not asked: the stream is local",
            Reason.STOPPED: f"the stream was closed before {self._large} answered",
        }[reason]
        assert item.stand_in is not None
        total_ms = (self._clock() - item.arrived_s) * 1e3
        timings_ms = {**item.stand_in.timings_ms, "total": total_ms}
        return replace(
            item.stand_in, degraded=why, reason=reason, certified=False, timings_ms=timings_ms
        )

    def may_audit(self, item: Item, decision: Decision) -> bool:
        """Whether an accepted frame is to be audited, and there is room for it."""
        if item.lane.rules.escalation is Escalation.LOCAL or len(self._judge.asked) == 1:
            return False
        with self._lock:
            if self._stopping or self.room <= 0:
                return False
        return self._watch.audits(decision)

    def audit(self, item: Item) -> None:
        """Have the later stages asked about a frame whose answer has gone out."""
        item.case = replace(item.case, timings_ms={}, accepted=False)
        with self._lock:
            self._enter_flight()
            self._waiting.append(item)
            self._asks.notify()

    def _enter_flight(self) -> None:
        self._in_flight += 1
        self._context.metrics.gauge(Gauge.IN_FLIGHT, "", self._in_flight)

    def _leave_flight(self) -> None:
        self._in_flight -= 1
        self._context.metrics.gauge(Gauge.IN_FLIGHT, "", self._in_flight)
        self._freed()

    def ask_later_stages(self) -> None:
        """Ask about one frame after the other."""
        preprocessors: dict[int, Preprocessor] = {}
        while (item := self._next_escalation()) is not None:
            try:
                if item.awaiting or item.audited is not None:
                    self._ask_later(item, preprocessors)
            finally:
                with self._lock:
                    self._leave_flight()

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

    def _ask_later(self, item: Item, preprocessors: dict[int, Preprocessor]) -> None:
        """Ask the last stage; for an audit all those that were not, whatever they say."""
        case = item.case
        now_s = self._clock()
        case.spent("waiting", (now_s - item.saved_s) * 1e3)
        audit = item.audited is not None
        asked = self._judge.asked
        for position in [one for one in asked if one > case.position] if audit else asked[-1:]:
            batch = self.input_of(item, position, preprocessors)
            if batch is None:
                return
            now_s = self._clock()
            now_s = self._decider.ask(
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
            self._conclude(item, None)
        else:
            decision = self._judge.decision(case)
            name, source = item.lane.rules.source_id, decision.source.value
            answered_ms = (now_s - item.saved_s) * 1e3
            self._context.metrics.measure(Measure.ESCALATION_MS, name, answered_ms, detail=source)
            self._conclude(item, decision)

    def _end_audit(self, item: Item, accepted: Decision) -> None:
        if item.case.failure is None:  # else there is nothing to compare with
            self._watch.audited(accepted, self._judge.decision(item.case), item.frame)
        item.lane.forget(item)
        item.lane.close(item)

    def input_of(
        self, item: Item, position: int, preprocessors: dict[int, Preprocessor]
    ) -> Batch | None:
        """Return a later stage's input for a frame; None where it has been given out meanwhile."""
        batch, frame = item.prepared.get(position), item.frame
        if batch is not None or frame is None:
            return batch
        if position not in preprocessors:
            preprocessors[position] = Preprocessor(self._decider.stages[position].preprocess)
        return preprocessors[position](frame.image)

    def keep_deadlines(self) -> None:
        """Give out the saver's answer where a deadline has passed."""
        while (item := self._next_due()) is not None:
            if item.stand_in is not None:
                self._conclude(item, self.degraded(item, Reason.DEADLINE))

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

    def _conclude(self, item: Item, decision: Decision | None) -> None:
        """End an escalation, unless it has ended already; None where no stage has answered."""
        with self._lock:
            late = not item.awaiting
            item.awaiting = False
            self._awaiting.pop(item, None)
            if item in self._waiting:  # nobody has begun with it: its place is free
                self._waiting.remove(item)
                self._leave_flight()
        if late:
            self._context.metrics.count(Counter.LATE, item.lane.rules.source_id)
        elif decision is None:
            self._giver.leave_undecided(item)
        elif item.decision is None:
            self._giver.settle(item, decision)
        else:
            self._giver.revise(item, decision)

    def stop(self) -> list[Item]:
        """Take no more; return the frames that wait. With the lock held."""
        self._stopping = True
        self._asks.notify_all()
        self._dues.notify_all()
        return list(self._awaiting)

    def give_in(self, item: Item) -> bool:
        """Give out the saver's answer at the end; False where there is none."""
        if item.stand_in is None:
            return False
        self._conclude(item, self.degraded(item, Reason.STOPPED))
        return True
