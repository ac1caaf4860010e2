"""Where a stream's decisions go: to its sinks, and to whoever iterates over it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from tinysaver_edge._support.calls import Calls
from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import EngineError
from tinysaver_edge.stream.drift.watch import Watch
from tinysaver_edge.stream.lane import Item, Lane
from tinysaver_edge.stream.sinks.base import Sink
from tinysaver_edge.stream.sinks.queued import Queued
from tinysaver_edge.stream.sources.source import Context
from tinysaver_edge.stream.telemetry.events import SinkFailed
from tinysaver_edge.stream.telemetry.metrics import Counter


class Outbox:
    """Decisions in the order in which they came. Its bounds are the lanes' windows.

    Args:
        calls: entered by whoever takes them: a signal handler that interrupts it must not wait for
            locks that its own thread holds.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._changed = threading.Condition()
        self._decisions: deque[tuple[Decision, Lane]] = deque()
        self._waiters: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self._error: BaseException | None = None
        self._closed = False

    def put(self, decision: Decision, lane: Lane) -> None:
        """Leave a decision."""
        with self._changed:
            self._decisions.append((decision, lane))
            self._wake()

    def close(self, error: BaseException | None = None) -> None:
        """Take no more; whoever asks gets what is left, and then the error, if there is one."""
        with self._changed:
            self._closed = True
            if self._error is None:
                self._error = error
            self._wake()

    def get(self) -> Decision | None:
        """Wait for a decision; None when there are no more.

        Raises:
            BaseException: what the outbox was closed with.
        """
        with self._calls:
            with self._changed:
                while not (self._decisions or self._closed):
                    self._changed.wait()
            return self._take()

    async def get_async(self) -> Decision | None:
        """Await a decision, as `get` waits for it."""
        while True:
            with self._calls, self._changed:
                if self._decisions or self._closed:
                    break
                loop = asyncio.get_running_loop()
                woken: asyncio.Future[None] = loop.create_future()
                self._waiters.append((loop, woken))
            await woken
        with self._calls:
            return self._take()

    def _take(self) -> Decision | None:
        with self._changed:
            if not self._decisions:
                if self._error is not None:
                    raise self._error
                return None
            decision, lane = self._decisions.popleft()
        lane.taken()
        return decision

    def _wake(self) -> None:
        self._changed.notify()
        while self._waiters:
            loop, woken = self._waiters.popleft()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake_up, woken)


def _wake_up(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


class Output:
    """Takes what becomes of every lane's frames; the last part of a stream that a frame passes.

    Args:
        sinks: take every decision.
        lanes: how many end before the decisions do.
        context: events, metrics, clock.
        watch: returns what watches at this moment, which may want pictures.
        calls: entered by whoever takes decisions.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        lanes: int,
        context: Context,
        watch: Callable[[], Watch],
        calls: Calls,
    ) -> None:
        self._sinks, self._context, self._watch = tuple(sinks), context, watch
        self._outbox = Outbox(calls)
        self._open_sinks: list[Sink] = []
        self._state = threading.Lock()
        self._running = lanes
        self._iterated = self._closed = False
        self._failure: BaseException | None = None

    @property
    def wants_frames(self) -> bool:
        """Whether somebody wants the next frame's picture."""
        return self._watch().wants_frames or any(sink.wants_frames for sink in self._sinks)

    @property
    def inside(self) -> bool:
        """Whether this thread is a sink's own."""
        return any(isinstance(sink, Queued) and sink.inside for sink in self._sinks)

    def open(self, *, iterated: bool) -> None:
        """Open the sinks.

        Args:
            iterated: whether somebody asks for the decisions as well.
        """
        self._iterated = iterated
        for sink in self._sinks:
            sink.__enter__()
            self._open_sinks.append(sink)

    def get(self) -> Decision | None:
        """Wait for a decision; None when there are no more.

        Raises:
            BaseException: what went wrong first, after the decisions that came all the same.
        """
        return self._outbox.get()

    async def get_async(self) -> Decision | None:
        """Await a decision, as `get` waits for it."""
        return await self._outbox.get_async()

    # What lanes, feeders and dispatcher tell

    def deliver(self, item: Item, decision: Decision) -> None:
        """Take a decision on a frame; it may not be the last one."""
        for sink in self._sinks:
            try:
                sink.write(decision, item.picture)
            except Exception as error:
                source_id = item.lane.rules.source_id
                self._context.metrics.count(Counter.SINK_FAILED, source_id, detail=sink.name)
                self._tell_sink_failed(source_id, sink, error)
        if self._iterated:
            self._outbox.put(decision, item.lane)
        else:
            item.lane.taken()

    def give_up(self, item: Item, error: EngineError) -> None:
        """Hear that a frame gets no decision: every frame of a file must have one."""
        if not item.lane.rules.live:
            frame_id = item.case.frame_id
            where = f"frame {frame_id.sequence} of {frame_id.source_id}"
            self.fail(type(error)(f"{where}: {error}"))

    def drained(self) -> None:
        """Hear that every frame of a lane, which has ended, is decided."""
        with self._state:
            self._running -= 1
            if self._running:
                return
        self._outbox.close(self._failure)

    def note(self, error: BaseException) -> None:
        """Keep what went wrong first, to raise it when the other sources have ended."""
        with self._state:
            if self._failure is None and not self._closed:
                self._failure = error

    def fail(self, error: BaseException) -> None:
        """End the stream for something that must not be passed over."""
        self.note(error)
        self._outbox.close(self._failure)

    # The end

    def stop(self) -> None:
        """What goes wrong from now on is nobody's concern."""
        with self._state:
            self._closed = True

    def close(self) -> None:
        """Have the sinks write out what they have; decisions that are left can still be taken."""
        with ExitStack() as ends:
            ends.callback(lambda: self._outbox.close(self._failure))
            for sink in self._open_sinks:
                ends.callback(self._leave, sink)

    def _leave(self, sink: Sink) -> None:
        try:
            sink.__exit__(None, None, None)
        except Exception as error:
            self._tell_sink_failed("", sink, error)

    def _tell_sink_failed(self, source_id: str, sink: Sink, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        self._context.listener(SinkFailed(source_id, self._context.clock(), sink.name, reason))
