"""A stream: sources in, decisions out, everything between bounded.

A feeder reads each source in a thread of its own; the outbox holds decisions till asked for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, cast

from tinysaver_edge.deciding.policy import Case
from tinysaver_edge.decision import Decision
from tinysaver_edge.engines.batching import quickest_size
from tinysaver_edge.errors import EngineError, InputError, TinySaverError
from tinysaver_edge.preprocess import Preprocessor
from tinysaver_edge.stream.dispatcher import Dispatcher
from tinysaver_edge.stream.drift.watch import NO_WATCH, Watch
from tinysaver_edge.stream.lane import Item, Lane, LaneRules
from tinysaver_edge.stream.options import Escalation, StreamOptions
from tinysaver_edge.stream.sinks.base import Sink
from tinysaver_edge.stream.sources.opening import AnySource, open_source
from tinysaver_edge.stream.sources.source import Clock, Context, Frame, Source
from tinysaver_edge.stream.telemetry.events import Listener, SinkFailed, ignore
from tinysaver_edge.stream.telemetry.metrics import NO_METRICS, Counter, Metrics

if TYPE_CHECKING:
    from collections.abc import Generator

    from typing_extensions import Self

    from tinysaver_edge.cascade import Cascade


class Feeder:
    """One thread: reading, decoding and resizing overlap with the models at work.

    A frame is asked of the source only when there is room for it: a live source then gives its
    newest.

    Args:
        source: where frames come from.
        lane: where they go.
        dispatcher: takes them in.
        cascade: whose first stage they are prepared for.
        deadline_s: seconds from a frame's arrival to its final decision; None for no limit.
        shows: whether a sink wants the next frame's picture.
        ended: called at the end, with what went wrong or None.
    """

    def __init__(
        self,
        source: Source,
        lane: Lane,
        dispatcher: Dispatcher,
        cascade: Cascade,
        *,
        deadline_s: float | None,
        shows: Callable[[], bool],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._source, self._lane, self._dispatcher = source, lane, dispatcher
        self._deadline_s, self._shows, self._ended = deadline_s, shows, ended
        asked = cascade.judge.asked
        preprocess = cascade.stages[asked[0]].preprocess
        # Where all stages take the same input, nobody looks at the picture again.
        self._keeps = any(cascade.stages[later].preprocess != preprocess for later in asked[1:])
        self._preprocessor = Preprocessor(preprocess)
        self._thread = threading.Thread(
            target=self._run, name=f"feeder {source.source_id}", daemon=True
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end."""
        if self._thread is not threading.current_thread():
            self._thread.join(max(0.0, timeout_s))

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            reuse = not self._keeps
            frames = cast("Generator[Frame, None, None]", self._source.frames(reuse=reuse))
            with closing(frames):
                self._feed(frames)
        except BaseException as error:
            failure = error
        finally:
            self._ended(failure)

    def _feed(self, frames: Iterator[Frame]) -> None:
        clock = self._source.context.clock
        deadline_s = self._deadline_s
        while (batch := self._dispatcher.reserve(self._lane)) is not None:
            shown = self._shows()
            frame = next(frames, None)
            if frame is None:
                self._dispatcher.give_back(self._lane, batch)
                return
            started_s = clock()
            arrived_s = frame.timestamp_s if self._source.live else started_s
            self._preprocessor.into(frame.image, batch[0])
            case = Case(frame.frame_id, frame.timestamp_s)
            case.spent("preprocess", (clock() - started_s) * 1e3)
            if shown and not self._keeps:  # the source writes the next frame over this one
                frame = Frame(
                    frame.image.copy(), frame.timestamp_s, frame.sequence, frame.source_id
                )
            item = Item(
                self._lane,
                case,
                arrived_s,
                float("inf") if deadline_s is None else arrived_s + deadline_s,
                batch,
                frame=frame if shown or self._keeps else None,
                shown=shown,
            )
            if not self._dispatcher.offer(item):
                return


Taken = Callable[[], None]
"""Called when a decision was taken."""


class Outbox:
    """Decisions in the order in which they came. Its bounds are the lanes' windows."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._decisions: deque[tuple[Decision, Taken]] = deque()
        self._waiters: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self._error: BaseException | None = None
        self._closed = False

    def put(self, decision: Decision, taken: Taken) -> None:
        """Leave a decision."""
        with self._changed:
            self._decisions.append((decision, taken))
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
        with self._changed:
            while not (self._decisions or self._closed):
                self._changed.wait()
        return self._take()

    async def get_async(self) -> Decision | None:
        """Await a decision, as `get` waits for it."""
        while True:
            with self._changed:
                if self._decisions or self._closed:
                    break
                loop = asyncio.get_running_loop()
                woken: asyncio.Future[None] = loop.create_future()
                self._waiters.append((loop, woken))
            await woken
        return self._take()

    def _take(self) -> Decision | None:
        with self._changed:
            if not self._decisions:
                if self._error is not None:
                    raise self._error
                return None
            decision, taken = self._decisions.popleft()
        taken()
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


CLOSE_S = 2.0
"""How long `Stream.close` waits for sources; one that is stuck in OpenCV ends by itself."""


class Stream:
    """Decides the frames of some sources, once.

    Iterate over it, or ``async for``, or call `run` where only the sinks matter. Frames of one
    source come in order; those of several take turns, and share the models. A live source's frames
    are taken as the loop asks for decisions: a slow loop misses frames, but gets none that is old.

        with cascade.stream("rtsp://camera/1", "rtsp://camera/2") as stream:
            for decision in stream:
                ...

    A context manager. Leaving the loop, or `close` from any thread, ends it: frames that wait for
    the large model get the saver's answer, sinks write out what they have, sources are closed.

    Args:
        cascade: decides. It must stay open for as long.
        sources: anything that `open_source` takes, at least one.
        options: escalation and bounds.
        sinks: take every decision, besides whoever iterates.
        listener: hears of events.
        metrics: takes the figures.
        watch: audits accepted frames.
        clock: seconds; live frames are stamped with it.

    Raises:
        InputError: there is no source, or one cannot be understood.
    """

    def __init__(
        self,
        cascade: Cascade,
        sources: Sequence[AnySource],
        *,
        options: StreamOptions | None = None,
        sinks: Sequence[Sink] = (),
        listener: Listener = ignore,
        metrics: Metrics = NO_METRICS,
        watch: Watch = NO_WATCH,
        clock: Clock = time.monotonic,
    ) -> None:
        if not sources:
            raise InputError("a stream needs at least one source")
        self._cascade = cascade
        self._options = options or StreamOptions()
        self._context = Context(listener, metrics, clock)
        self._watch = watch
        self._sinks = tuple(sinks)
        self._open_sinks: list[Sink] = []
        self._outbox = Outbox()
        self._state = threading.Lock()
        self._setup = threading.RLock()  # held while it is set up, and while it is torn down
        self._started = self._closed = False
        self._iterated = True
        self._running = 0
        self._failure: BaseException | None = None
        self._dispatcher: Dispatcher | None = None
        self._feeders: list[Feeder] = []
        self._sources = _opened(sources)
        for source in self._sources:
            source.attach(self._context)

    @property
    def source_ids(self) -> tuple[str, ...]:
        """The sources' names in events and metrics, in the order in which they were given."""
        return tuple(source.source_id for source in self._sources)

    # Taking decisions

    def __iter__(self) -> Iterator[Decision]:
        """Yield every decision.

        Raises:
            TinySaverError: a source has failed for good, or a model on a file's frame; after the
                decisions of the others.
        """
        self._start(iterated=True)
        try:
            while (decision := self._outbox.get()) is not None:
                yield decision
        finally:
            self.close()

    async def __aiter__(self) -> AsyncIterator[Decision]:
        """Yield every decision, without holding up the event loop."""
        self._start(iterated=True)
        try:
            while (decision := await self._outbox.get_async()) is not None:
                yield decision
        finally:
            await asyncio.to_thread(self.close)  # it waits for what is stuck; the loop must not

    def run(self) -> None:
        """Decide all frames for the sinks, until the sources end or the stream is closed.

        Raises:
            TinySaverError: as for iterating.
        """
        self._start(iterated=False)
        try:
            self._outbox.get()
        finally:
            self.close()

    # Starting and stopping

    def _start(self, *, iterated: bool) -> None:
        with self._state:
            if self._started or self._closed:
                raise InputError("a stream runs once: make another")
            self._started = True
            self._iterated = iterated
        with self._setup:
            if self._is_closed():  # a signal came in between: there is nothing to give
                return
            try:
                self._set_up()
            except BaseException:
                self.close()
                raise

    def _is_closed(self) -> bool:
        with self._state:
            return self._closed

    def _set_up(self) -> None:
        """Open the sinks and start the threads; `close` waits for it."""
        for sink in self._sinks:
            sink.__enter__()
            self._open_sinks.append(sink)
        self._dispatcher = Dispatcher(
            self._cascade,
            max_in_flight=self._options.max_in_flight,
            context=self._context,
            together=self._at_once(),
            watch=self._watch,
            failed=self._fail,
        )
        self._running = len(self._sources)
        feeders = [self._feeder(source, self._dispatcher) for source in self._sources]
        for feeder in feeders:
            feeder.start()
            self._feeders.append(feeder)

    def _at_once(self) -> int:
        """Return how many frames of several sources the saver is asked about at once."""
        if self._options.together is not None or len(self._sources) == 1:
            return self._options.together or 1
        first = self._cascade.stages[self._cascade.judge.asked[0]]
        try:
            return quickest_size(first.ask, first.blank)
        except EngineError:  # what to do about it is for each frame to say
            return 1

    def _feeder(self, source: Source, dispatcher: Dispatcher) -> Feeder:
        options = self._options
        deadline_s = options.deadline_s(live=source.live)
        rules = LaneRules(
            source.source_id,
            options.escalation,
            window=options.window,
            patient=deadline_s is None and options.escalation is not Escalation.LOCAL,
            fresh=source.live,
        )
        taker = _Taker(self, live=source.live)
        lane = dispatcher.add_lane(rules, taker)

        def ended(error: BaseException | None) -> None:
            if error is not None:
                self._note(error)
            if dispatcher.end(lane):
                taker.drained()

        return Feeder(
            source,
            lane,
            dispatcher,
            self._cascade,
            deadline_s=deadline_s,
            shows=self._shows,
            ended=ended,
        )

    def _shows(self) -> bool:
        return self._watch.wants_frames or any(sink.wants_frames for sink in self._sinks)

    def _note(self, error: BaseException) -> None:
        """Keep what went wrong first, to raise it when the other sources have ended."""
        with self._state:
            if self._failure is None and not self._closed:
                self._failure = error

    def _fail(self, error: BaseException) -> None:
        """End the stream for something that must not be passed over."""
        self._note(error)
        self._outbox.close(self._failure)

    def _lane_drained(self) -> None:
        with self._state:
            self._running -= 1
            if self._running:
                return
        self._outbox.close(self._failure)

    def _give(self, item: Item, decision: Decision) -> None:
        for sink in self._sinks:
            try:
                sink.write(decision, item.picture)
            except Exception as error:
                source_id = item.lane.rules.source_id
                self._context.metrics.count(Counter.SINK_FAILED, source_id, detail=sink.name)
                self._tell_sink_failed(source_id, sink, error)
        dispatcher = self._dispatcher
        assert dispatcher is not None
        if self._iterated:
            self._outbox.put(decision, lambda: dispatcher.taken(item.lane))
        else:
            dispatcher.taken(item.lane)

    def _tell_sink_failed(self, source_id: str, sink: Sink, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        self._context.listener(SinkFailed(source_id, self._context.clock(), sink.name, reason))

    def close(self) -> None:
        """Stop, give out what is decided, let the sinks write it out and let go of the sources.

        Legal in every state, from any thread, any number of times. It takes a few seconds at most.
        """
        with self._state:
            first, self._closed = not self._closed, True
        with self._setup:  # who comes second waits: sinks are written out when `close` returns
            if first:
                self._tear_down()

    def _tear_down(self) -> None:
        for source in self._sources:
            source.close()
        if self._dispatcher is not None:
            self._dispatcher.close()
        deadline_s = time.monotonic() + CLOSE_S
        for feeder in self._feeders:
            feeder.join(deadline_s - time.monotonic())
        for sink in reversed(self._open_sinks):
            try:
                sink.__exit__(None, None, None)
            except Exception as error:
                self._tell_sink_failed("", sink, error)
        self._outbox.close(self._failure)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Taker:
    """Takes one lane's decisions to the stream."""

    def __init__(self, stream: Stream, *, live: bool) -> None:
        self._stream = stream
        self._live = live

    def deliver(self, item: Item, decision: Decision) -> None:
        self._stream._give(item, decision)

    def give_up(self, item: Item, error: EngineError) -> None:
        if not self._live:  # every frame of a file must have its answer
            frame_id = item.case.frame_id
            where = f"frame {frame_id.sequence} of {frame_id.source_id}"
            self._stream._fail(type(error)(f"{where}: {error}"))

    def drained(self) -> None:
        self._stream._lane_drained()


def _opened(sources: Sequence[AnySource]) -> tuple[Source, ...]:
    """Open sources, and number those that would have the same name."""
    opened: list[Source] = []
    try:
        opened.extend(open_source(source) for source in sources)
    except TinySaverError:
        for source in opened:
            source.close()
        raise
    seen: dict[str, int] = {}
    for source in opened:
        seen[source.source_id] = count = seen.get(source.source_id, 0) + 1
        if count > 1:
            source.source_id = f"{source.source_id}#{count}"
    return tuple(opened)
