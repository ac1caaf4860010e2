"""A stream: sources in, decisions out, everything between bounded.

A feeder reads each source in a thread of its own, a dispatcher asks the models, an output takes
the decisions: frames go one way.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from tinysaver_edge._support.calls import Calls
from tinysaver_edge.deciding.policy import Case
from tinysaver_edge.decision import Decision
from tinysaver_edge.engines.batching import quickest_size
from tinysaver_edge.errors import EngineError, InputError, TinySaverError
from tinysaver_edge.preprocess import Batch, Preprocessor
from tinysaver_edge.stream.dispatcher import Dispatcher
from tinysaver_edge.stream.drift.watch import NO_WATCH, Watch
from tinysaver_edge.stream.lane import Item, Lane, LaneRules, Regime
from tinysaver_edge.stream.options import Escalation, Pace, StreamOptions
from tinysaver_edge.stream.output import Output
from tinysaver_edge.stream.sinks.base import Sink
from tinysaver_edge.stream.sources.opening import AnySource, open_source
from tinysaver_edge.stream.sources.source import Clock, Context, Frame, Source
from tinysaver_edge.stream.telemetry.events import Event, Frozen, Listener, ignore
from tinysaver_edge.stream.telemetry.metrics import NO_METRICS, Metrics

if TYPE_CHECKING:
    from collections.abc import Generator

    from typing_extensions import Self

    from tinysaver_edge.deciding.decider import Decider
    from tinysaver_edge.deciding.memory import CameraMemory


FROZEN_S = 60.0
"""A camera that has shown exactly the same for so long has stopped: a real one is noisy."""


class _Stillness:
    """Notices a camera that gives the same picture for ever."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._difference = math.nan
        self._since_s = -math.inf
        self._told = False

    def saw(self, difference: float, time_s: float) -> None:
        """Take in how a frame differs from a remembered one: of the same bytes, the same."""
        if difference not in (0.0, self._difference):
            self._since_s, self._told = time_s, False
        elif self._source.live and not self._told and time_s - self._since_s >= FROZEN_S:
            self._told = True
            self._source.tell(
                Frozen(self._source.source_id, self._source.context.clock(), time_s - self._since_s)
            )
        self._difference = difference


class Feeder:
    """One thread: reading, decoding and resizing overlap with the models at work.

    A frame is asked of the source only when there is room for it: a live source then gives its
    newest.

    Args:
        source: where frames come from.
        lane: where they go.
        dispatcher: takes them in, and says what decides each.
        regime: what decides at first.
        output: knows whether a picture is wanted, and hears what goes wrong.
        calls: entered for as long as the thread runs: what gives the frames may close the stream.
        deadline_s: seconds from a frame's arrival to its final decision; None for no limit.
    """

    def __init__(
        self,
        source: Source,
        lane: Lane,
        dispatcher: Dispatcher,
        regime: Regime,
        output: Output,
        calls: Calls,
        *,
        deadline_s: float | None,
    ) -> None:
        self._source, self._lane, self._dispatcher = source, lane, dispatcher
        self._output, self._calls, self._deadline_s = output, calls, deadline_s
        self._opening = 0
        self._stillness = _Stillness(source)
        self._obey(regime)
        self._reused = not self._keeps  # the source writes the next frame over the last one
        self._thread = threading.Thread(
            target=self._run, name=f"feeder {source.source_id}", daemon=True
        )

    def _obey(self, regime: Regime) -> None:
        """Prepare frames for a regime; what was remembered for another is forgotten."""
        self._regime, decider = regime, regime.decider
        preprocess = decider.first.preprocess
        # Where all stages take the same input, nobody looks at the picture again.
        later = (decider.stages[position] for position in decider.judge.asked[1:])
        self._keeps = any(stage.preprocess != preprocess for stage in later)
        self._preprocessor = Preprocessor(preprocess)
        self._memory = None if regime.memory is None else regime.memory()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end."""
        self._thread.join(max(0.0, timeout_s))

    def _run(self) -> None:
        with self._calls:
            try:
                made = self._source.frames(reuse=self._reused)
                frames = cast("Generator[Frame, None, None]", made)
                with closing(frames):
                    self._feed(frames)
            except BaseException as error:
                self._output.note(error)
            finally:
                self._lane.end()

    def _feed(self, frames: Iterator[Frame]) -> None:
        while (batch := self._dispatcher.reserve(self._lane)) is not None:
            shown = self._output.wants_frames
            frame = next(frames, None)
            if frame is None:
                self._lane.give_back(batch)
                return
            regime, batch = self._dispatcher.begin(self._lane, batch)
            try:
                if regime is not self._regime:
                    self._obey(regime)
                item = self._prepared(frame, batch, shown=shown)
            except BaseException:
                self._dispatcher.leave(regime)
                raise
            give = self._dispatcher.offer if item.asks else self._dispatcher.repeat
            if not give(item):
                return

    def _prepared(self, frame: Frame, batch: Batch, *, shown: bool) -> Item:
        """Look at a frame, and prepare it where the models are to be asked."""
        clock = self._source.context.clock
        started_s = clock()
        arrived_s = frame.timestamp_s if self._source.live else started_s
        due_s = float("inf") if self._deadline_s is None else arrived_s + self._deadline_s
        case = Case(frame.frame_id, frame.timestamp_s, self._taken_at_s(frame))
        item = Item(self._lane, self._regime, case, arrived_s, due_s, None, shown=shown)
        asks = self._looks_new(frame, item)
        if asks:
            began_s = clock()
            self._preprocessor.into(frame.image, batch[0])
            item.batch = batch
            case.spent("preprocess", (clock() - began_s) * 1e3)
        else:
            self._lane.give_back(batch)
        if shown or (asks and self._keeps):
            copied = replace(frame, image=frame.image.copy()) if self._reused else frame
            item.frame = copied
        return item

    def _looks_new(self, frame: Frame, item: Item) -> bool:
        """Look at a frame; tell whether the models are to be asked about it."""
        item.memory = memory = self._memory
        if memory is None or not self._regime.watch.repeats:
            return True
        if frame.opening != self._opening:
            self._opening = frame.opening
            memory.forget()
        clock = self._source.context.clock
        began_s = clock()
        item.look = memory.look(frame.image, frame.timestamp_s)
        item.case.covered = memory.covers(frame.timestamp_s)
        item.repeats = item.look.repeats
        item.case.spent("look", (clock() - began_s) * 1e3)
        self._stillness.saw(item.look.difference, frame.timestamp_s)
        return item.repeats is None or self._dispatcher.audits_next(item, item.repeats)

    def _taken_at_s(self, frame: Frame) -> float | None:
        """Return when a frame was taken, in seconds since 1970; None where nobody knows."""
        if frame.taken_at_s is not None or not self._source.live:
            return frame.taken_at_s
        context = self._source.context
        return context.wall() - (context.clock() - frame.timestamp_s)


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

    A context manager. Leaving the loop, or `close` from any thread or signal handler, ends it:
    frames that wait for the large model get the saver's answer, sinks write out what they have,
    sources are closed.

    Args:
        decider: decides. Its stages must stay open for as long.
        sources: anything that `open_source` takes, at least one.
        options: escalation and bounds.
        sinks: take every decision, besides whoever iterates.
        listener: hears of events.
        metrics: takes the figures.
        watch: audits accepted frames.
        memory: makes what remembers a camera's frames and answers; None where none is repeated.
        clock: seconds; live frames are stamped with it.
        wall: seconds since 1970, for the time of day in decisions.

    Raises:
        InputError: there is no source, one cannot be understood, or two were given one name.
    """

    def __init__(
        self,
        decider: Decider,
        sources: Sequence[AnySource],
        *,
        options: StreamOptions | None = None,
        sinks: Sequence[Sink] = (),
        listener: Listener = ignore,
        metrics: Metrics = NO_METRICS,
        watch: Watch = NO_WATCH,
        memory: Callable[[], CameraMemory] | None = None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        if not sources:
            raise InputError("a stream needs at least one source")
        self._options = options or StreamOptions()
        self._calls = Calls("a stream")

        def told(event: Event) -> None:
            with self._calls:  # a source's thread tells as well, and it may close the stream
                listener(event)

        self._context = Context(told, metrics, clock, wall, sources=len(sources))
        self._several = len(sources) > 1
        self._regime = Regime(decider, watch=watch, memory=memory)
        self._output = Output(
            sinks,
            lanes=len(sources),
            context=self._context,
            watch=lambda: self._regime.watch,
            calls=self._calls,
        )
        self._state = threading.Lock()
        self._setup = threading.RLock()  # held while it is set up, and while it is torn down
        self._started = self._closed = False
        self._dispatcher: Dispatcher | None = None
        self._feeders: list[Feeder] = []
        self._sources = _opened(sources)
        for source in self._sources:
            source.attach(self._context)

    @property
    def source_ids(self) -> tuple[str, ...]:
        """The sources' names in events and metrics, in the order in which they were given."""
        return tuple(source.source_id for source in self._sources)

    @property
    def inside(self) -> bool:
        """Whether the stream waits for this thread when it ends: a sink's, say."""
        return self._calls.inside or self._output.inside

    # Who decides

    @property
    def decider(self) -> Decider:
        """What decides the frames that come from now on."""
        return self._regime.decider

    def switch(
        self,
        decider: Decider,
        *,
        watch: Watch = NO_WATCH,
        memory: Callable[[], CameraMemory] | None = None,
    ) -> threading.Event:
        """Have another cascade decide, from the next frame of each source on.

        No frame is lost or decided twice, and each is decided wholly by the one that was there when
        it came: what waits for the former's large model gets its answer from that. What cameras
        were answered before is forgotten; the order of decisions stays.

        Args:
            decider: decides from then on. Its stages must stay open for as long.
            watch: audits its accepted frames.
            memory: as for the stream.

        Returns:
            An event that is set when nothing of the former is open any more: its stages may then
            be closed. It is not set once the stream has been closed.
        """
        regime = Regime(decider, watch=watch, memory=memory, together=self._at_once(decider))
        with self._calls, self._setup:
            former, self._regime = self._regime, regime
            if self._dispatcher is None:
                former.over.set()
            else:
                self._dispatcher.switch(regime)
        return former.over

    # Taking decisions

    def __iter__(self) -> Iterator[Decision]:
        """Yield every decision.

        Raises:
            TinySaverError: a source has failed for good, or a model on a file's frame; after the
                decisions of the others.
        """
        self._start(iterated=True)
        thread, apart = threading.get_ident(), False
        try:
            while (decision := self._output.get()) is not None:
                yield decision
        except GeneratorExit:  # the garbage collector leaves loops in the middle of anything
            apart = thread != threading.get_ident()
            raise
        finally:
            self._calls.end(self._close, apart=apart or self._output.inside)

    async def __aiter__(self) -> AsyncIterator[Decision]:
        """Yield every decision, without holding up the event loop."""
        self._start(iterated=True)
        try:
            while (decision := await self._output.get_async()) is not None:
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
            self._output.get()
        finally:
            self.close()

    # Starting and stopping

    def _start(self, *, iterated: bool) -> None:
        self._calls.check()
        with self._calls:
            self._start_once(iterated=iterated)

    def _start_once(self, *, iterated: bool) -> None:
        with self._state:
            over, self._started = self._started or self._closed, True
        if over:
            raise InputError("a stream runs once: make another")
        with self._setup:
            if self._closed:  # a signal came in between: there is nothing to give
                return
            try:
                self._set_up(iterated=iterated)
            except BaseException:
                self._close()
                raise

    def _set_up(self, *, iterated: bool) -> None:
        """Open the sinks and start the threads; `close` waits for it."""
        self._output.open(iterated=iterated)
        first = self._regime
        self._regime = Regime(
            first.decider,
            watch=first.watch,
            memory=first.memory,
            together=self._at_once(first.decider),
        )
        self._dispatcher = Dispatcher(
            self._regime,
            max_in_flight=self._options.max_in_flight,
            context=self._context,
            failed=self._output.fail,
            calls=self._calls,
        )
        feeders = [self._feeder(source, self._dispatcher) for source in self._sources]
        for feeder in feeders:
            feeder.start()
            self._feeders.append(feeder)

    def _at_once(self, decider: Decider) -> int:
        """Return how many frames of several sources the saver is asked about at once."""
        if self._options.together is not None or not self._several:
            return self._options.together or 1
        first = decider.first
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
            live=source.live,
            pace=Pace(options.min_time_between_escalations_s, options.escalations_per_minute),
        )
        lane = dispatcher.add_lane(rules, self._output)
        return Feeder(
            source, lane, dispatcher, self._regime, self._output, self._calls, deadline_s=deadline_s
        )

    def close(self) -> None:
        """Stop, give out what is decided, let the sinks write it out and let go of the sources.

        Legal in every state, from any thread, any number of times. It takes a few seconds at most.
        From a signal handler that interrupts the loop's wait, and from whatever the stream calls (a
        sink, a listener, metrics, an iterable) it returns at once, and the loop ends.
        """
        self._calls.end(self._close, apart=self._output.inside)

    def _close(self) -> None:
        with self._state:
            first, self._closed = not self._closed, True
        self._output.stop()
        with self._setup:  # who comes second waits: sinks are written out when `close` returns
            if first:
                self._tear_down()

    def _tear_down(self) -> None:
        with ExitStack() as ends:  # from the last to the first, whatever one of them raises
            ends.callback(self._output.close)
            ends.callback(self._join_feeders)
            if self._dispatcher is not None:
                ends.callback(self._dispatcher.close)
            for source in reversed(self._sources):
                ends.callback(source.close)

    def _join_feeders(self) -> None:
        deadline_s = time.monotonic() + CLOSE_S
        for feeder in self._feeders:
            feeder.join(deadline_s - time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _opened(sources: Sequence[AnySource]) -> tuple[Source, ...]:
    """Open sources, and number those that would have the same name by chance."""
    opened: list[Source] = []
    try:
        opened.extend(open_source(source) for source in sources)
        _refuse_one_name(opened)
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


def _refuse_one_name(opened: Sequence[Source]) -> None:
    """Refuse a name that a user gave and that another source has as well."""
    names = [source.source_id for source in opened]
    for source in opened:
        if source.named and names.count(source.source_id) > 1:
            raise InputError(
                f"two sources are called {source.source_id}: give each a name of its own"
            )
