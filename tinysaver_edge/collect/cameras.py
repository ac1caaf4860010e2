"""Sources as they run: each is read all the time, and a frame is taken when its moment has come.

What a camera shows at a moment is the next frame that comes, on the same connection: where it was
lost before that, the camera was away at the moment, and the moment is missed. Taking the first
frame after an outage in its place would make that frame stand for all the time that nobody saw.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from tinysaver_edge.collect.draw import Draw
from tinysaver_edge.collect.epochs import Epochs
from tinysaver_edge.collect.store import AWAY, FULL, STOPPED, Store, encode, utc
from tinysaver_edge.data.collection import CollectionFile, DrawnMoment, SourceEntry
from tinysaver_edge.errors import InputError, SourceError, TinySaverError
from tinysaver_edge.stream.sources.source import Clock, Context, Frame, Source
from tinysaver_edge.stream.telemetry.events import Dropped, Event, Listener, Lost, ignore

TICK_S = 0.1
"""How often it is looked whether the period is over."""


class _Watcher:
    """Reads one source in a thread of its own."""

    def __init__(self, source: Source, store: Store, context: Context) -> None:
        self.source, self._store, self._context = source, store, context
        self._lock = threading.Lock()
        self._moments: deque[DrawnMoment] = deque()
        self._epochs = Epochs(store)
        self._zero_s: float | None = None
        self._since_s: float | None = None
        self._lost_s: float | None = None
        self.seen = threading.Event()
        self.ended = threading.Event()
        self.failure: TinySaverError | None = None
        self._thread = threading.Thread(target=self._run, name=f"collect {source.source_id}")

    def start(self) -> None:
        """Begin to read."""
        self.source.attach(Context(self._hear, clock=self._context.clock, wall=self._context.wall))
        self._thread.start()

    def begin(self, moments: Sequence[DrawnMoment], zero_s: float) -> None:
        """Say which moments are to be taken, and where on the clock the period began."""
        with self._lock:
            self._moments.extend(moments)
            self._zero_s = zero_s

    def pass_by(self, now_s: float) -> None:
        """Miss the moments that have come while the camera was away."""
        with self._lock:
            if self._since_s is None or self._lost_s is not None or self.ended.is_set():
                self._miss_until(now_s, AWAY)

    def end(self) -> None:
        """Close the source, and let go of what is half done."""
        self.source.close()
        self._thread.join()
        with self._lock:
            self._epochs.give_up_all(STOPPED)

    @property
    def pending(self) -> bool:
        """Whether something is still to be taken."""
        with self._lock:
            return bool(self._moments or self._epochs)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Lost):
            self._lost_s = event.time_s
        if not isinstance(event, Dropped):  # between two moments all frames are
            self._context.listener(event)

    def _run(self) -> None:
        try:
            for frame in self.source.frames(reuse=True):
                self._see(frame)
                self.seen.set()
        except TinySaverError as error:
            self.failure = error
        finally:
            self.ended.set()
            self.seen.set()

    def _see(self, frame: Frame) -> None:
        """Take a frame where a moment has come."""
        at_s = frame.timestamp_s
        with self._lock:
            lost_s = self._lost_s
            if self._since_s is None or (lost_s is not None and at_s > lost_s):
                self._since_s, self._lost_s = at_s, None
                self._epochs.give_up_all(AWAY)
            if self._zero_s is None:
                return
            now_s, since_s = at_s - self._zero_s, self._since_s - self._zero_s
            due = []
            while self._moments and self._moments[0].moment_s <= now_s:
                moment = self._moments.popleft()
                if moment.moment_s < since_s:
                    self._store.miss(moment, AWAY)
                else:
                    due.append(moment)
            self._take(frame, due, now_s)

    def _take(self, frame: Frame, due: Sequence[DrawnMoment], now_s: float) -> None:
        if self._store.file.epoch_s is None:
            data = encode(frame.image, self._store.file.encoding) if due else b""
            for moment in due:
                if not self._store.take(moment, data):
                    self._store.miss(moment, FULL)
            return
        for moment in due:
            self._epochs.begin(moment, start_s=moment.moment_s)
        self._epochs.see(frame.image, now_s)

    def _miss_until(self, now_s: float, why: str) -> None:
        while self._moments and self._moments[0].moment_s <= now_s:
            self._store.miss(self._moments.popleft(), why)
        self._epochs.give_up_all(why)


def collect_live(
    sources: Sequence[Source],
    store: Store,
    draw: Draw | None,
    *,
    clock: Clock,
    wall: Clock,
    stop: threading.Event,
    cut: str = "",
    patience_s: float = 5.0,
    wait_for_sources: bool = False,
    listener: Listener = ignore,
    begun: Callable[[CollectionFile], object] = lambda file: None,
) -> CollectionFile:
    """Take frames, or epochs, of live sources at the drawn moments, until the period is over.

    A new period begins when every source has given a frame; one that is gone on with goes by the
    time of day, and what was drawn while nobody collected is missed.

    Args:
        sources: live ones, called as the folder shall call them.
        store: the folder, open.
        draw: what is to be drawn; None goes on with what there is.
        clock: seconds, that the frames are stamped with.
        wall: seconds since 1970.
        stop: set, from any thread, to end before the time.
        cut: what the sources leave out of each frame, in words.
        patience_s: how long a frame is waited for after the last moment.
        wait_for_sources: begin the period at once, whatever cameras there are.
        listener: hears of lost cameras.
        begun: called once the moments are drawn.

    Returns:
        What the folder says of itself now.

    Raises:
        InputError: it is another collection's folder, or cannot be written.
        SourceError: a camera is not there at the start.
    """
    names = [one.source_id for one in sources]
    if store.begun:
        store.check_same(draw, names, cut=cut)
    elif draw is None or draw.period_s is None:
        raise InputError(
            f"--out {store.folder}: holds no collection to go on with: say --for and --frames"
        )
    context = Context(listener, clock=clock, wall=wall, sources=len(sources))
    watchers = [_Watcher(one, store, context) for one in sources]
    try:
        for watcher in watchers:
            watcher.start()
        if not store.begun:
            if not wait_for_sources:
                _wait_for_all(watchers, stop)
            if stop.is_set():
                raise InputError("stopped before the first frame came: nothing was collected")
            assert draw is not None
            assert draw.period_s is not None
            moments = draw.moments(names, [draw.period_s] * len(names))
            entries = [SourceEntry(name=name) for name in names]
            store.begin(draw, moments, entries, start=utc(wall()), cut=cut)
        else:
            store.resume()
            _miss_the_past(store, wall() - store.file.start.timestamp())
        started_s = store.file.start.timestamp()
        zero_s = clock() - (wall() - started_s)
        left = store.open_moments
        for watcher in watchers:
            mine = [one for one in left if one.source == watcher.source.source_id]
            watcher.begin(mine, zero_s)
        begun(store.file)
        early = _until_the_end(watchers, store, clock, zero_s, stop, patience_s)
    finally:
        for watcher in watchers:
            with suppress(InputError):
                watcher.end()
    for failure in (one.failure for one in watchers):
        if failure is not None:
            store.warn(str(failure))
    ended_s = clock() - zero_s  # nothing was taken after this
    if early and ended_s < store.file.period_s:
        return store.finish(stopped_at_s=ended_s)
    for one in store.open_moments:
        store.miss(one, AWAY)
    return store.finish()


def _wait_for_all(watchers: Sequence[_Watcher], stop: threading.Event) -> None:
    """Wait until every source has given a frame, or one cannot.

    Raises:
        SourceError: it is not there.
        InputError: region or mask does not fit it.
    """
    while not stop.is_set():
        for watcher in watchers:
            if watcher.failure is not None:
                raise watcher.failure
            if watcher.ended.is_set():
                name = watcher.source.source_id
                raise SourceError(f"source {name}: ended before anything was collected")
        if all(one.seen.is_set() for one in watchers):
            return
        stop.wait(TICK_S / 2)


def _miss_the_past(store: Store, now_s: float) -> None:
    for moment in store.open_moments:
        if moment.moment_s < now_s:
            store.miss(moment, STOPPED)


def _until_the_end(
    watchers: Sequence[_Watcher],
    store: Store,
    clock: Clock,
    zero_s: float,
    stop: threading.Event,
    patience_s: float,
) -> bool:
    """Wait for the end of the period; return whether it was ended before."""
    period_s = store.file.period_s
    while True:
        now_s = clock() - zero_s
        for watcher in watchers:
            watcher.pass_by(now_s)
        if now_s < period_s and (stop.is_set() or all(one.ended.is_set() for one in watchers)):
            return True
        done = not any(one.pending for one in watchers)
        if (now_s >= period_s and (done or stop.is_set())) or now_s >= period_s + patience_s:
            return False
        stop.wait(TICK_S)
