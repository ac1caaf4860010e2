"""Live sources: read in a thread of their own, watched, and opened again when they are lost.

The slot holds the newest frame: whoever puts one never waits, nobody takes an old one.
"""

from __future__ import annotations

import atexit
import random as random_module
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from tinysaver_edge.errors import InputError, SourceError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.sources.source import Frame, Source
from tinysaver_edge.stream.telemetry.events import Dropped, Lost, Reconnected, Retrying
from tinysaver_edge.stream.telemetry.metrics import Counter, Gauge


class Slot:
    """Holds at most one frame, for one giver and one taker."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._frame: Frame | None = None
        self._closed = False

    def put(self, frame: Frame) -> Frame | None:
        """Leave a frame; return the one that nobody took, which is now dropped."""
        with self._condition:
            if self._closed:
                return frame
            dropped, self._frame = self._frame, frame
            self._condition.notify()
            return dropped

    def take(self, timeout_s: float) -> Frame | None:
        """Wait for a frame and take it; None when none came in time or the slot is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._frame is not None or self._closed, timeout_s)
            frame, self._frame = self._frame, None
            return frame

    def clear(self) -> Frame | None:
        """Throw away what is there, and return it."""
        with self._condition:
            frame, self._frame = self._frame, None
            return frame

    def close(self, *, discard: bool) -> None:
        """Take no more frames and wake the taker.

        Args:
            discard: throw away what is there; else it may still be taken.
        """
        with self._condition:
            self._closed = True
            if discard:
                self._frame = None
            self._condition.notify_all()

    @property
    def closed(self) -> bool:
        """Whether no more frames will come."""
        with self._condition:
            return self._closed and self._frame is None


Random = Callable[[], float]
"""Numbers from 0 up to but not including 1."""


LONGEST_S = 1e6
"""Longer time-outs are none; OpenCV takes them as 32 bits of milliseconds."""


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Time-outs and retries of a live source.

    After the n-th failure in a row the pause is ``shortest_s * factor ** (n - 1)``, at most
    ``longest_s``, shortened at random by up to the share ``jitter``, so that many devices do not
    come back to one camera at the same moment.

    Attributes:
        open_s: limit on opening it.
        read_s: limit on waiting for one frame; a source that is silent for longer is lost.
        shortest_s: pause after the first failure.
        longest_s: longest pause.
        factor: growth of the pause.
        jitter: 0 for none, up to 1.
        attempts: failures in a row after which a lost source is given up; None for never.
        first_attempts: the same for a source that has not given a frame yet: a wrong address or a
            camera that is not there is told at once; None for never.

    Raises:
        InputError: a figure is out of range.
    """

    open_s: float = 5.0
    read_s: float = 5.0
    shortest_s: float = 0.5
    longest_s: float = 30.0
    factor: float = 2.0
    jitter: float = 0.5
    attempts: int | None = None
    first_attempts: int | None = 1

    def __post_init__(self) -> None:
        for name in ("open_s", "read_s", "shortest_s", "longest_s"):
            if not 0 < getattr(self, name) < LONGEST_S:
                raise InputError(
                    f"{name} {getattr(self, name)}: must be above 0 and below {LONGEST_S:g}"
                )
        if self.factor < 1 or not 0 <= self.jitter <= 1:
            raise InputError(f"factor {self.factor} must be at least 1, jitter in 0..1")
        for name in ("attempts", "first_attempts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} {value}: at least 1, or None for no limit")

    def pause_s(self, failures: int, random: Random) -> float:
        """Return the pause after so many failures in a row, in seconds.

        Args:
            failures: from 1.
            random: draws the jitter.
        """
        doublings = min(failures - 1, 64)  # beyond that, a float may overflow
        pause_s = min(self.longest_s, self.shortest_s * self.factor**doublings)
        return pause_s * (1 - self.jitter * random())


CLOSE_S = 1.0
"""How long `LiveSource.close` waits for a read in progress before it leaves it to end by itself."""

EXIT_S = 10.0
"""How long the end of the program waits at most for a read that is still in progress then."""

TOLD_EVERY_S = 1.0
"""Dropped frames are counted at once, but told of at most this often."""


class DeviceError(Exception):
    """A device cannot be opened or has failed; the message names no credentials."""


class Connection(Protocol):
    """An open device. One thread uses it."""

    live_wait_s: float | None
    """A read that takes less is of frames that have piled up; None for a device that piles up none.

    A network stream piles up frames while it is being opened, and while the network stalls.
    """

    def read(self, into: Picture | None, /) -> Picture | None:
        """Wait for the next picture, ``(height, width, 3)`` BGR uint8; None when there are no more.

        Args:
            into: memory that may be written to, and returned, where it has the right shape.

        Raises:
            DeviceError: the device is lost, or has kept silent for longer than it may.
        """

    def close(self) -> None:
        """Let go of the device."""


class Device(Protocol):
    """Something that pictures can be read from, again and again."""

    def connect(self, options: LiveOptions, stopping: threading.Event, /) -> Connection:
        """Open the device within ``options.open_s``, or earlier when `stopping` is set.

        Raises:
            DeviceError: it cannot be opened.
            TinySaverError: it can never be, however often it is tried.
        """


STALL_S = 0.5
"""After waiting longer than this for one frame, those that follow at once are old."""

DRAIN_S = 5.0
"""How long piled-up frames are thrown away at most: a device may be too slow to catch up."""


class _Drain:
    """Tells frames that have piled up from those that are fresh, by how long they let one wait."""

    def __init__(self, live_wait_s: float | None) -> None:
        self._live_wait_s = live_wait_s
        self._until_s = time.monotonic() + DRAIN_S

    def is_old(self, waited_s: float) -> bool:
        """Whether the frame that one has just waited for was taken some time ago."""
        if self._live_wait_s is None:
            return False
        now = time.monotonic()
        if waited_s > STALL_S:
            self._until_s = now + DRAIN_S
            return True
        if now < self._until_s and waited_s < self._live_wait_s:
            return True
        self._until_s = now
        return False


class LiveSource(Source):
    """Gives the newest frame of a device to whoever asks, and none twice.

    A thread reads the device as fast as it gives frames; those that nobody asked for in time are
    dropped and counted, and leave gaps in the sequence. A device that fails, or keeps silent for
    longer than ``options.read_s``, is told as `Lost` and opened again after a pause.

    `close` sets a flag and waits at most a second. OpenCV cannot be interrupted while it opens or
    reads: where it is in the middle of that, its thread lets go of the device when its time-out
    has passed, and gives nothing to anyone in the meantime. The end of the program waits for it,
    `EXIT_S` at most: Python would otherwise be gone when OpenCV returns, and C++ abort the process.

    Args:
        device: what is read.
        source_id: what decisions call it.
        options: time-outs and retries.
        random: draws the jitter of the pauses.
    """

    live = True

    def __init__(
        self,
        device: Device,
        *,
        source_id: str,
        options: LiveOptions | None = None,
        random: Random | None = None,
    ) -> None:
        super().__init__(source_id)
        self._device = device
        self._options = options or LiveOptions()
        self._random = random or random_module.Random().random
        self._slot = Slot()
        self._spares: deque[Picture] = deque(maxlen=3)
        self._reuse = False
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._state = threading.Lock()
        self._lost_at_s: float | None = None
        self._attempts = self._failures = 0
        self._barren: str | None = None
        self._connected = self._found = False
        self._sequence = 0
        self._untold = 0
        self._told_s = float("-inf")

    def _frames(self, reuse: bool) -> Iterator[Frame]:
        with self._state:
            if self._thread is not None:
                raise SourceError(f"source {self.source_id} already gives its frames to another")
            self._reuse = reuse
            thread = threading.Thread(
                target=self._run, name=f"source {self.source_id}", daemon=True
            )
            thread.start()  # before `close` can see it: nobody may wait for one that never began
            self._thread = thread
        try:
            while True:
                frame = self._slot.take(self._options.read_s)
                if frame is not None:
                    yield frame
                    self._tell_dropped()
                    if reuse:
                        self._spares.append(frame.image)
                elif self._slot.closed:
                    break
                elif self._connected:
                    self._lose(f"no frame for {self._options.read_s:g} s")
        finally:
            self.close()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        """Read the device until the source is closed, the device ends or is given up."""
        try:
            while (connection := self._connect()) is not None:
                try:
                    ended = self._capture(connection)
                finally:
                    connection.close()
                if ended:
                    break
        except Exception as error:  # raised anew in the consumer's thread
            self._failure = error
        finally:
            self._slot.close(discard=self.closed)
            atexit.unregister(self._wait_at_exit)

    def _connect(self) -> Connection | None:
        """Open the device, as often as it takes; None when the source is closed."""
        barren, self._barren = self._barren, None
        if barren is not None:  # it opens, and then gives nothing: as good as not at all
            self._failures += 1
            self._retry(self._failures, barren)
        elif self._lost_at_s is not None:  # not at once: a server that fails on every frame
            self._closed.wait(self._options.pause_s(1, self._random))
        while not self._closed.is_set():
            self._attempts += 1
            try:
                connection = self._device.connect(self._options, self._closed)
            except DeviceError as error:
                self._failures += 1
                self._retry(self._failures, str(error))
                continue
            if self._closed.is_set():
                connection.close()
                return None
            return connection
        return None

    def _retry(self, failures: int, reason: str) -> None:
        """Pause before the next attempt, or give up."""
        options = self._options
        first = not self._found
        limit = options.first_attempts if first else options.attempts
        if limit is not None and failures >= limit:
            raise SourceError(f"source {self.source_id}: {reason}")
        wait_s = options.pause_s(failures, self._random)
        if not self.closed:
            now = self.context.clock()
            self.tell(Retrying(self.source_id, now, failures, wait_s, reason))
            self._closed.wait(wait_s)

    def _capture(self, connection: Connection) -> bool:
        """Read a connection until it is lost (False), or ends or the source is closed (True)."""
        drain, given = _Drain(connection.live_wait_s), False
        while not self._closed.is_set():
            asked_s = time.monotonic()
            try:
                image = connection.read(self._spare())
            except DeviceError as error:
                if self._closed.is_set():
                    return True
                self._lose(str(error))
                self._barren = None if given else str(error)
                return False
            if image is None:
                return True
            if drain.is_old(time.monotonic() - asked_s):
                self._drop(image)
                self._sequence += 1
            elif not self._closed.is_set():
                self._give(image)
                given, self._failures = True, 0
        return True

    def _spare(self) -> Picture | None:
        return self._spares.popleft() if self._reuse and self._spares else None

    def _give(self, image: Picture) -> None:
        """Leave a picture for the consumer."""
        now = self.context.clock()
        self._find(now)
        dropped = self._slot.put(Frame(image, now, self._sequence, self.source_id))
        self._sequence += 1
        if dropped is not None:
            self._drop(dropped.image)

    def _drop(self, image: Picture) -> None:
        if self._reuse:
            self._spares.append(image)
        with self._state:
            self._untold += 1
        self.context.metrics.count(Counter.DROPPED, self.source_id)

    def _find(self, now: float) -> None:
        """A frame has come: the device is there."""
        with self._state:
            lost_at_s, self._lost_at_s = self._lost_at_s, None
            attempts, self._attempts = self._attempts, 0
            self._connected = self._found = True
        if lost_at_s is not None:
            self.tell(Reconnected(self.source_id, now, now - lost_at_s, attempts))
            self.context.metrics.count(Counter.RECONNECTED, self.source_id)
            self.context.metrics.gauge(Gauge.CONNECTED, self.source_id, 1)

    def _lose(self, reason: str) -> None:
        """The device is lost; told once. A frame from before is not given any more."""
        now = self.context.clock()
        with self._state:
            if not self._connected:
                return
            self._connected = False
            self._lost_at_s = now
            self._attempts = 0
        stale = self._slot.clear()
        if stale is not None:
            self._drop(stale.image)
        self.context.metrics.gauge(Gauge.CONNECTED, self.source_id, 0)
        self.context.metrics.count(Counter.LOST, self.source_id)
        self.tell(Lost(self.source_id, now, reason))

    def _tell_dropped(self) -> None:
        now = self.context.clock()
        with self._state:
            if not self._untold or now - self._told_s < TOLD_EVERY_S:
                return
            frames, self._untold, self._told_s = self._untold, 0, now
        self.tell(Dropped(self.source_id, now, frames))

    def _close(self) -> None:
        self._slot.close(discard=True)
        with self._state:  # whoever is starting the thread has then said which
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_S)
            if thread.is_alive():
                atexit.register(self._wait_at_exit)
                if not thread.is_alive():  # it has ended meanwhile, and found nothing to undo
                    atexit.unregister(self._wait_at_exit)

    def _wait_at_exit(self) -> None:
        """Let a read that nobody can interrupt come to its end."""
        options, thread = self._options, self._thread
        if thread is not None:
            with suppress(KeyboardInterrupt):
                thread.join(min(EXIT_S, max(options.open_s, options.read_s) + 1))
