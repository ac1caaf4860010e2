"""Bounded queues: one in memory around any sink, so that none stalls the stream, one on disk."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.files import (
    NO_ROOM,
    atomic_write,
    claim,
    half_written,
    parse_json,
    read_file,
)
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
    def inside(self) -> bool:
        """Whether this thread is the one that calls the sink: the sink may close the stream."""
        return threading.current_thread() is self._thread

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


TRIES = 5
"""How often an item of a `DiskQueue` may fail while others get through."""

ASIDE_SHARE = 0.1
"""Of its bytes, that what was set aside may take."""

_ITEM = ".item"


class ItemError(Exception):
    """The target refuses this item, whatever becomes of others; the message says why."""


@dataclass(slots=True)
class Counts:
    """What became of items; ``found + queued = sent + dropped + aside + waiting`` always holds.

    Attributes:
        found: that were waiting from earlier runs.
        queued: taken in since.
        sent: that are at the target.
        dropped: that gave way to newer ones, or were larger than the queue.
        aside: that failed too often.
    """

    found: int = 0
    queued: int = 0
    sent: int = 0
    dropped: int = 0
    aside: int = 0


class DiskQueue:
    """Items on disk, oldest first, within so many bytes. Thread-safe.

    A kill loses none that was taken in. A power cut may lose those of the last seconds: to wait for
    a flash disk at every frame would wear it out.

    Args:
        folder: where; ``aside`` below it holds what failed too often.
        most_bytes: of all that wait.
    """

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self.counts = Counts()
        self.bytes = 0
        self.changed = threading.Condition()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._blame: dict[str, int] = {}
        self._later: OrderedDict[str, None] = OrderedDict()
        self._sending: str | None = None
        self._held: int | None = None

    def open(self) -> None:
        """Make the folder, and take up what waits there.

        Raises:
            InputError: it cannot be made or read, or another run has it.
        """
        try:
            (self.folder / "aside").mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held = claim(self.folder)
            for path in sorted(self.folder.iterdir()):
                if path.suffix == _ITEM:
                    self._sizes[path.name] = path.stat().st_size
                elif (half_written(path.name) or "").endswith(_ITEM):
                    path.unlink()  # a kill came while it was written
        except OSError as error:
            self.close()
            raise InputError(f"forward: {self.folder}: {error.strerror or error}") from error
        self.counts.found, self.bytes = len(self._sizes), sum(self._sizes.values())
        self._make_room(0)

    def close(self) -> None:
        """Let others have it. Legal in every state."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._sizes)

    def add(self, name: str, content: bytes) -> None:
        """Take in an item, and let go of the oldest where there is no room, on a full disk as well.

        Raises:
            OSError: it cannot be written; it is not taken in then.
        """
        with self.changed:
            fits = self._make_room(len(content))
        while fits:
            try:
                with atomic_write(self.folder / f"{name}{_ITEM}", private=True, sync=False) as file:
                    file.write(content)
                break
            except OSError as error:
                with self.changed:
                    if error.errno not in NO_ROOM or not self._drop_oldest():
                        raise
        with self.changed:
            self.counts.queued += 1
            if not fits:
                self.counts.dropped += 1
                return
            self._sizes[f"{name}{_ITEM}"] = len(content)
            self.bytes += len(content)
            self._make_room(0)
            self.changed.notify_all()

    def _make_room(self, size: int) -> bool:
        """Drop the oldest until so many bytes fit; tell whether they do."""
        if size > self.most_bytes:
            return False
        while self.bytes + size > self.most_bytes and self._drop_oldest():
            pass
        return True

    def _drop_oldest(self) -> bool:
        """Drop one; False where what is being sent is all there is."""
        name = next((one for one in self._sizes if one != self._sending), None)
        if name is not None:
            self._forget(name)
            self.counts.dropped += 1
            (self.folder / name).unlink(missing_ok=True)
        return name is not None

    def _forget(self, name: str) -> None:
        self.bytes -= self._sizes.pop(name, 0)
        self._blame.pop(name, None)
        self._later.pop(name, None)

    def next(self) -> str | None:
        """Return what is to be sent now: the oldest that has not failed lately, else any."""
        with self.changed:
            fresh = (name for name in self._sizes if name not in self._later)
            self._sending = next(fresh, None) or next(iter(self._later), None)
            return self._sending

    def content(self, name: str) -> tuple[dict[str, Any], bytes]:
        """Return an item's row and picture.

        Raises:
            ItemError: it is damaged.
            OSError: it cannot be read.
        """
        head, _, picture = read_file(self.folder / name).partition(b"\n")
        try:
            row: dict[str, Any] = parse_json(head)
            if hashlib.sha256(picture).hexdigest() != row["sha256"]:
                raise ValueError("its picture is another")
        except (ValueError, KeyError, TypeError) as error:
            raise ItemError(f"it is damaged on disk ({error})") from error
        return row, picture

    def sent(self, name: str) -> None:
        """An item is at the target: those that have failed since the last one are to blame."""
        with self.changed:
            self._sending = None
            if name in self._sizes:
                self._forget(name)
                self.counts.sent += 1
                (self.folder / name).unlink(missing_ok=True)
            blamed = [one for one in self._later if one in self._sizes]
            self._later.clear()
        for one in blamed:
            self.failed(one, blame=True)

    def failed(self, name: str, *, blame: bool) -> None:
        """An item could not be sent: it is tried after the others, or set aside.

        Args:
            name: which.
            blame: whether it is itself to blame, as far as anybody can tell.
        """
        with self.changed:
            self._sending = None
            if name not in self._sizes:
                return
            self._blame[name] = self._blame.get(name, 0) + blame
            if self._blame[name] < TRIES:
                if not blame:
                    self._later[name] = None
                    self._later.move_to_end(name)
                return
            size = self._sizes[name]
            self._forget(name)
            self.counts.aside += 1
            with suppress(OSError):
                self._put_aside(name, size)

    def _put_aside(self, name: str, size: int) -> None:
        """Keep it for whoever looks into it, within a share of the bytes."""
        (self.folder / name).replace(self.folder / "aside" / name)
        there = sorted((self.folder / "aside").glob(f"*{_ITEM}"))
        total = sum(path.stat().st_size for path in there)
        for path in there:
            if total <= max(size, ASIDE_SHARE * self.most_bytes):
                break
            total -= path.stat().st_size
            path.unlink()
