"""The contract of a source, its frames, and the limit that ends one after so many."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tinysaver_edge.decision import FrameId
from tinysaver_edge.errors import InputError, SourceError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.telemetry.events import Connected, Ended, Event, Listener, ignore
from tinysaver_edge.stream.telemetry.metrics import NO_METRICS, Counter, Gauge, Metrics

if TYPE_CHECKING:
    from collections.abc import Generator

    from typing_extensions import Self


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture and where it comes from.

    Attributes:
        image: ``(height, width, 3)`` BGR uint8.
        timestamp_s: when it was taken, in seconds: on the stream's clock for live sources, from
            the start of a video file, 0 for images.
        sequence: position in its source, from 0. It only grows; a gap is a frame that was dropped
            or could not be read.
        source_id: name of the camera or file, without any credentials.
        taken_at_s: when it was taken, in seconds since 1970; None where the source does not tell.
            A stream works it out of `timestamp_s` for live sources.
        opening: how often a live source had been opened before the camera gave it: what was known
            of earlier ones may not hold any more.
        folder: the source's name where it gives many files and `source_id` is that of one; else "".
    """

    image: Picture
    timestamp_s: float
    sequence: int
    source_id: str
    taken_at_s: float | None = None
    opening: int = 0
    folder: str = ""

    @property
    def frame_id(self) -> FrameId:
        """Source and sequence, as decisions name the frame."""
        return FrameId(self.source_id, self.sequence)


SLACK_S = 1e-3
"""Where only so many frames a second are taken, one may be early by as much."""

Clock = Callable[[], float]
"""Seconds from any fixed point, never going back."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a source is told of the stream around it.

    Attributes:
        listener: hears of events.
        metrics: takes the figures.
        clock: seconds; live frames are stamped with it.
        wall: seconds since 1970.
        sources: how many sources the stream has.
    """

    listener: Listener = ignore
    metrics: Metrics = NO_METRICS
    clock: Clock = time.monotonic
    wall: Clock = time.time
    sources: int = 1


class Source(ABC):
    """Gives frames to one consumer. Subclasses fill in `_frames` and, where needed, `_close`.

    A context manager. `close` is legal in every state, from any thread, any number of times; it
    returns promptly and ends `frames`.

    Args:
        source_id: what decisions, events and metrics call it; without credentials.
    """

    live: bool = False
    """Whether frames come at a pace of their own, so that a slow consumer misses some."""

    named: bool = False
    """Whether its user has named it: no two sources of a stream may then be called so."""

    files: Sequence[Path] = ()
    """What it reads, where that is files: nothing may be written over them."""

    def __init__(self, source_id: str) -> None:
        self.source_id = source_id
        self.context = Context()
        self._closed = threading.Event()

    def attach(self, context: Context) -> None:
        """Tell the source where its events and figures go; before `frames` is called."""
        self.context = context

    def frames(self, *, reuse: bool = False) -> Iterator[Frame]:
        """Yield the frames, in order, until the source ends or is closed.

        Args:
            reuse: the picture of a frame is looked at only until the next one is asked for, so
                that the source may write them all into the same memory.

        Raises:
            SourceError: the source is closed, cannot be opened, or has failed for good.
            InputError: there is nothing to read in a file.
        """
        if self._closed.is_set():
            raise SourceError(f"source {self.source_id} is closed")
        return self._told(reuse)

    def _told(self, reuse: bool) -> Iterator[Frame]:
        """Yield the frames, counted, and tell of the first and the last."""
        given, reason = 0, None
        try:
            for frame in self._frames(reuse):
                if not given:
                    self.tell(Connected(self.source_id, self.context.clock()))
                    self.context.metrics.gauge(Gauge.CONNECTED, self.source_id, 1)
                given += 1
                self.context.metrics.count(Counter.FRAMES, self.source_id)
                yield frame
        except GeneratorExit:
            raise
        except Exception as error:
            reason = str(error)
            raise
        finally:
            self.context.metrics.gauge(Gauge.CONNECTED, self.source_id, 0)
            self.tell(Ended(self.source_id, self.context.clock(), given, reason))

    def tell(self, event: Event) -> None:
        """Tell the listener."""
        self.context.listener(event)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    @abstractmethod
    def _frames(self, reuse: bool) -> Iterator[Frame]:
        """Yield the frames, until there are no more or `closed`."""

    def _close(self) -> None:  # noqa: B027 - optional to fill in
        """Let go of what is held, and wake whoever waits for a frame."""

    def close(self) -> None:
        """Give no more frames and let go of the camera or file."""
        self._closed.set()
        self._close()

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def limited(sources: Sequence[Source], frames: int) -> list[Source]:
    """Return sources that together give so many frames, and end then as files do.

    A stream of them asks the large model about each, and its sinks have each: closing the stream
    after so many decisions would cut off those that are on their way.

    Args:
        sources: each gives its frames through one of those that are returned.
        frames: how many, at least one.

    Raises:
        InputError: it is none.
    """
    if frames < 1:
        raise InputError(f"a limit of {frames} frames: at least 1")
    budget = _Budget(sources, frames)
    return [_Limited(one, budget) for one in sources]


class _Budget:
    def __init__(self, sources: Sequence[Source], frames: int) -> None:
        self._sources = sources
        self._left = frames
        self._lock = threading.Lock()

    def is_spent(self) -> bool:
        """Whether no more frames may be given."""
        with self._lock:
            return self._left <= 0

    def take(self) -> bool:
        """Whether one more frame may be given; with the last, nobody waits for another."""
        with self._lock:
            self._left -= 1
            left = self._left
        if left == 0:
            for source in self._sources:
                source.close()
        return left >= 0


class Around(Source):
    """A source that gives another one's frames, changed: subclasses fill in `_frames`.

    Args:
        source: the other; it is told and closed with this one.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        super().__init__(source.source_id)

    @property
    def live(self) -> bool:  # type: ignore[override]
        """Whether the other is."""
        return self._source.live

    @property  # a stream renames sources of one name
    def source_id(self) -> str:
        """The other's name."""
        return self._source.source_id

    @source_id.setter
    def source_id(self, name: str) -> None:
        self._source.source_id = name

    @property
    def named(self) -> bool:  # type: ignore[override]
        """Whether the other's user has named it."""
        return self._source.named

    def attach(self, context: Context) -> None:
        """Tell both where their events and figures go."""
        super().attach(context)
        self._source.attach(context)

    def frames(self, *, reuse: bool = False) -> Iterator[Frame]:
        """Yield the frames; the other counts them and tells of them."""
        return self._frames(reuse)

    def _close(self) -> None:
        self._source.close()


class _Limited(Around):
    def __init__(self, source: Source, budget: _Budget) -> None:
        self._budget = budget
        super().__init__(source)

    def _frames(self, reuse: bool) -> Iterator[Frame]:
        try:
            frames = self._source.frames(reuse=reuse)
        except SourceError:
            if self._budget.is_spent():  # the others were quicker
                return
            raise
        with closing(cast("Generator[Frame, None, None]", frames)):
            for frame in frames:
                if not self._budget.take():
                    return
                yield frame


def paced(sources: Sequence[Source], fps: float) -> list[Source]:
    """Return sources that give so many frames a second at most, as `collect` keeps of epochs.

    A certificate over epochs speaks of cameras about as fast as those were. Frames without times
    that rise are all given.

    Args:
        sources: each gives its frames through one of those that are returned.
        fps: frames a second.

    Raises:
        InputError: it is not above 0.
    """
    if not 0 < fps < float("inf"):
        raise InputError(f"{fps} frames a second: must be above 0, and finite")
    return [_Paced(one, 1 / fps - SLACK_S) for one in sources]


class _Paced(Around):
    def __init__(self, source: Source, pause_s: float) -> None:
        self._pause_s = pause_s
        super().__init__(source)

    def _frames(self, reuse: bool) -> Iterator[Frame]:
        last: tuple[int, float] | None = None
        frames = self._source.frames(reuse=reuse)
        with closing(cast("Generator[Frame, None, None]", frames)):
            for frame in frames:
                opening, at_s = frame.opening, frame.timestamp_s
                if last is None or last[0] != opening or not 0 < at_s - last[1] < self._pause_s:
                    last = (opening, at_s)
                    yield frame
