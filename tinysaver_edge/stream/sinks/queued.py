"""One wrapper for all sinks: a bounded queue and a thread, so that no sink stalls the stream."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import InputError, TinySaverError
from tinysaver_edge.stream.sinks.base import Sink
from tinysaver_edge.stream.sources.source import Frame
from tinysaver_edge.stream.telemetry.events import Listener, SinkFailed, SinkRecovered, ignore
from tinysaver_edge.stream.telemetry.metrics import NO_METRICS, Counter, Metrics

if TYPE_CHECKING:
    from typing_extensions import Self


class Queued:
    """Writes to a sink in a thread of its own; drops and counts what it has no room for.

    `write` never raises, and blocks for `patience_s` at most. The sink is entered, written
    to and left by the one thread, so that it needs no lock and may use what is bound to a thread,
    as windows are.

    Args:
        sink: what is written to.
        clock: seconds, for the events.
        listener: hears when the sink begins to fail and when it has recovered.
        metrics: counts what was dropped and what failed.
        capacity: decisions that may wait.
        pictures: how many of them may hold a picture; a 1080p one takes 6 MB.
        patience_s: how long `write` waits for room: 0 for live sources, which must not be held up;
            more for files, of which every frame counts. A sink that lets it run out is waited for
            no more until it has moved on.
        open_timeout_s: how long the sink may take to open.
        close_timeout_s: how long leaving waits for what is in the queue; what is left then is
            dropped and counted.

    Raises:
        InputError: there is no room for a single decision.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        clock: Callable[[], float],
        listener: Listener = ignore,
        metrics: Metrics = NO_METRICS,
        capacity: int = 1024,
        pictures: int = 8,
        patience_s: float = 0.0,
        open_timeout_s: float = 20.0,
        close_timeout_s: float = 5.0,
    ) -> None:
        if capacity < 1 or pictures < 1:
            raise InputError(f"sink {sink.name}: a queue of {capacity} and {pictures} holds none")
        self.name = sink.name
        self._sink = sink
        self._clock = clock
        self._listener = listener
        self._metrics = metrics
        self._capacity = capacity
        self._pictures = pictures
        self._patience_s = patience_s
        self._stuck = False
        self._open_timeout_s = open_timeout_s
        self._close_timeout_s = close_timeout_s
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Decision, Frame | None]] = deque()
        self._held = 0
        self._accepting = False
        self._ending = False
        self._opened = threading.Event()
        self._refusal: BaseException | None = None
        self._lost = 0
        self._writing: Decision | None = None
        self._thread = threading.Thread(target=self._work, name=f"sink {self.name}", daemon=True)

    @property
    def wants_frames(self) -> bool:
        """Whether the sink needs the next picture."""
        return self._sink.wants_frames

    def write(self, decision: Decision, frame: Frame | None) -> None:
        """Put one decision into the queue, or drop and count it."""
        with self._changed:
            if self._patience_s and not self._stuck and not self._fits(frame):
                patient = self._changed.wait_for(
                    lambda: self._fits(frame) or not self._accepting, self._patience_s
                )
                self._stuck = not patient
            if self._accepting and self._fits(frame):
                self._waiting.append((decision, frame))
                self._held += frame is not None
                self._changed.notify_all()
                return
        self._metrics.count(Counter.SINK_DROPPED, decision.frame_id.source_id, detail=self.name)

    def _fits(self, frame: Frame | None) -> bool:
        room = len(self._waiting) < self._capacity
        return room and (frame is None or self._held < self._pictures)

    def __enter__(self) -> Self:
        """Open the sink in its thread.

        Raises:
            TinySaverError: it cannot be opened, or not in time.
        """
        self._thread.start()
        if not self._opened.wait(self._open_timeout_s):
            self._leave()
            raise InputError(f"sink {self.name}: not open after {self._open_timeout_s:g} s")
        if self._refusal is not None:
            self._thread.join()
            if isinstance(self._refusal, TinySaverError):
                raise self._refusal
            raise InputError(f"sink {self.name}: {reason_of(self._refusal)}") from self._refusal
        return self

    def __exit__(self, *exception: object) -> None:
        """Write what is left, within the time for it, and close. Legal in every state."""
        self._leave()
        if self._thread.ident is not None:
            self._thread.join(self._close_timeout_s)
        with self._changed:
            left = list(self._waiting)
            self._waiting.clear()
            if self._writing is not None:  # a sink that hangs in the middle of one
                left.append((self._writing, None))
        for decision, _ in left:
            self._metrics.count(Counter.SINK_DROPPED, decision.frame_id.source_id, detail=self.name)

    def _leave(self) -> None:
        with self._changed:
            self._accepting, self._ending = False, True
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            self._sink.__enter__()
        except BaseException as error:
            self._refusal = error
            return
        finally:
            with self._changed:
                self._accepting = self._refusal is None and not self._ending
            self._opened.set()
        while (item := self._next()) is not None:
            self._writing = item[0]
            self._write(*item)
            self._writing = None
            del item  # the picture is not kept while nothing comes
        try:
            self._sink.__exit__(None, None, None)
        except Exception as error:
            self._metrics.count(Counter.SINK_FAILED, "", detail=self.name)
            self._listener(SinkFailed("", self._clock(), self.name, reason_of(error)))

    def _next(self) -> tuple[Decision, Frame | None] | None:
        """Wait for a decision; None where there are none and none will come."""
        with self._changed:
            while not self._waiting and not self._ending:
                self._changed.wait()
            if not self._waiting:
                return None
            item = self._waiting.popleft()
            self._held -= item[1] is not None
            self._stuck = False
            self._changed.notify_all()
            return item

    def _write(self, decision: Decision, frame: Frame | None) -> None:
        try:
            written = self._sink.write(decision, frame)
        except Exception as error:
            source_id = decision.frame_id.source_id
            self._metrics.count(Counter.SINK_FAILED, source_id, detail=self.name)
            self._lost += 1
            if self._lost == 1:
                self._listener(SinkFailed("", self._clock(), self.name, reason_of(error)))
            return
        if self._lost and written is not False:
            self._listener(SinkRecovered("", self._clock(), self.name, self._lost))
            self._lost = 0


def reason_of(error: BaseException) -> str:
    """Say in one line why something failed."""
    if isinstance(error, OSError) and error.strerror:
        place = "" if error.filename is None else f"{error.filename}: "
        return f"{place}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
