"""The contract of a source: it gives frames, tells what happens to it, and can always be closed."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tinysaver_edge.decision import FrameId
from tinysaver_edge.errors import SourceError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.telemetry.events import Connected, Ended, Event, Listener, ignore
from tinysaver_edge.stream.telemetry.metrics import NO_METRICS, Counter, Gauge, Metrics

if TYPE_CHECKING:
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
    """

    image: Picture
    timestamp_s: float
    sequence: int
    source_id: str

    @property
    def frame_id(self) -> FrameId:
        """Source and sequence, as decisions name the frame."""
        return FrameId(self.source_id, self.sequence)


Clock = Callable[[], float]
"""Seconds from any fixed point, never going back."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a source is told of the stream around it.

    Attributes:
        listener: hears of events.
        metrics: takes the figures.
        clock: seconds; live frames are stamped with it.
    """

    listener: Listener = ignore
    metrics: Metrics = NO_METRICS
    clock: Clock = time.monotonic


class Source(ABC):
    """Gives frames to one consumer. Subclasses fill in `_frames` and, where needed, `_close`.

    A context manager. `close` is legal in every state, from any thread, any number of times; it
    returns promptly and ends `frames`.

    Args:
        source_id: what decisions, events and metrics call it; without credentials.
    """

    live: ClassVar[bool] = False
    """Whether frames come at a pace of their own, so that a slow consumer misses some."""

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
