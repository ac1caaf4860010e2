"""Single frames, submitted by the program and answered through futures."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.calls import Calls
from tinysaver_edge.deciding.policy import Case
from tinysaver_edge.decision import Decision, FrameId
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.preprocess import Preprocess, Preprocessor
from tinysaver_edge.stream.dispatcher import Dispatcher
from tinysaver_edge.stream.lane import Item, LaneRules, Regime
from tinysaver_edge.stream.options import Escalation
from tinysaver_edge.stream.sources.source import Clock, Context

if TYPE_CHECKING:
    from tinysaver_edge.deciding.decider import Decider

SUBMITTED = 16
"""Frames that may wait for the saver at once."""

MAX_IN_FLIGHT = 4
"""Frames that may wait for the large model at once."""

WINDOW = 1024
"""Frames that may be open at once, those that wait for the large model included."""

SOURCE_ID = "submitted"


class DecisionFuture(Future[Decision]):
    """A decision to come: ``future.result(timeout)`` waits for it, ``await future`` awaits it.

    Callbacks run in one of the cascade's threads, which has other frames to see to: be quick.

    Args:
        calls: the cascade's: a signal handler that interrupts the wait must not end it, as
            whoever is just about to wait would not hear of that.
    """

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self._calls = calls

    def result(self, timeout: float | None = None) -> Decision:
        """Wait for the decision, as any future does."""
        with self._calls:
            return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for it, and return what it was refused with; None where it is there."""
        with self._calls:
            return super().exception(timeout)

    def __await__(self) -> Generator[Any, None, Decision]:
        return asyncio.wrap_future(self).__await__()


class Submissions:
    """Takes single frames from any thread. It has threads of its own, until it is closed.

    Args:
        decider: decides.
        calls: the cascade's, for its threads and whoever waits for a future.
        clock: seconds.
        wall: seconds since 1970.
    """

    def __init__(
        self, decider: Decider, *, calls: Calls, clock: Clock, wall: Clock = time.time
    ) -> None:
        self._calls, self._clock, self._wall = calls, clock, wall
        self._dispatcher = Dispatcher(
            Regime(decider),
            max_in_flight=MAX_IN_FLIGHT,
            context=Context(clock=clock),
            failed=self._fail,
            calls=calls,
        )
        # Without a deadline a frame waits for room at the large model; none with one is behind it.
        self._patient, self._hurried = (
            self._dispatcher.add_lane(
                LaneRules(
                    SOURCE_ID, Escalation.WAIT, window=WINDOW, patient=patient, ordered=False
                ),
                self,
                buffers=SUBMITTED,
            )
            for patient in (True, False)
        )
        self._first = Preprocessor(decider.first.preprocess)
        self._later = _later_preprocessors(decider)
        self._preparing = threading.Lock()
        self._lock = threading.Lock()
        self._futures: dict[Item, DecisionFuture] = {}
        self._sequence = itertools.count()
        self._failure: BaseException | None = None

    def submit(
        self,
        frame: Picture,
        *,
        frame_id: FrameId | None,
        timestamp_s: float | None,
        deadline_ms: float | None,
    ) -> DecisionFuture:
        """Prepare a frame in the caller's thread and have it decided; see `Cascade.submit`."""
        if deadline_ms is not None and not deadline_ms > 0:
            raise InputError(f"deadline_ms {deadline_ms}: must be above 0")
        started_s = self._clock()
        lane = self._patient if deadline_ms is None else self._hurried
        batch = self._dispatcher.reserve(lane, wait=False)
        if batch is None:
            reason = "the cascade is closed" if self._failure is None else str(self._failure)
            if not self._dispatcher.closed:
                reason = f"{SUBMITTED} frames wait for the saver already: submit fewer"
            raise EngineError(reason)
        frame_id = frame_id or FrameId(SOURCE_ID, next(self._sequence))
        case = Case(frame_id, started_s if timestamp_s is None else timestamp_s)
        case.taken_at_s = self._wall() if timestamp_s is None else None
        due_s = float("inf") if deadline_ms is None else started_s + deadline_ms / 1e3
        regime, batch = self._dispatcher.begin(lane, batch)
        item = Item(lane, regime, case, started_s, due_s, batch)
        try:
            with self._preparing:
                self._first.into(frame, batch[0])
                for positions, preprocessor in self._later:
                    made = preprocessor(frame)
                    item.prepared.update(dict.fromkeys(positions, made))
        except BaseException:
            lane.give_back(batch)
            self._dispatcher.leave(regime)
            raise
        case.spent("preprocess", (self._clock() - started_s) * 1e3)
        future = DecisionFuture(self._calls)
        future.set_running_or_notify_cancel()
        with self._lock:
            self._futures[item] = future
        if not self._dispatcher.offer(item):
            self.give_up(item, EngineError("the cascade is closed"))
        return future

    def deliver(self, item: Item, decision: Decision) -> None:
        """Keep a promise."""
        item.lane.taken()
        with self._lock:
            future = self._futures.pop(item, None)
        if future is not None:
            future.set_result(decision)

    def give_up(self, item: Item, error: EngineError) -> None:
        """Break a promise."""
        with self._lock:
            future = self._futures.pop(item, None)
        if future is not None:
            with suppress(InvalidStateError):
                future.set_exception(error)

    def drained(self) -> None:
        """Nothing: the lanes never end."""

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        with self._lock:
            futures = list(self._futures.values())
            self._futures.clear()
        for future in futures:
            future.set_exception(error)

    def close(self) -> None:
        """Answer what waits for the large model with the saver's answer, and stop."""
        try:
            self._dispatcher.close()
        finally:
            self._fail(EngineError("the cascade is closed"))


def _later_preprocessors(decider: Decider) -> list[tuple[list[int], Preprocessor]]:
    """Return what prepares the input of stages that do not take the first one's."""
    groups: dict[Preprocess, list[int]] = {}
    for position in decider.judge.asked[1:]:
        preprocess = decider.stages[position].preprocess
        if preprocess != decider.first.preprocess:
            groups.setdefault(preprocess, []).append(position)
    return [(positions, Preprocessor(preprocess)) for preprocess, positions in groups.items()]
