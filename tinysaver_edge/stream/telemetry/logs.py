"""Logs: every event through Python's logging, as text or as one JSON object a line."""

from __future__ import annotations

import json
import logging
import queue
import threading
from contextlib import suppress
from logging.handlers import QueueHandler, QueueListener
from typing import TYPE_CHECKING, Any, TextIO

from tinysaver_edge._support.numbers import time_of_day
from tinysaver_edge._support.text import for_people
from tinysaver_edge.stream.telemetry.events import (
    BundleNews,
    Corrupt,
    Denied,
    Doubtful,
    Drift,
    Dropped,
    Ended,
    Event,
    Frozen,
    Lost,
    Retrying,
    SinkFailed,
    Undecided,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _StreamHandler = logging.StreamHandler  # Python 3.10 cannot index it

LOGGER = "tinysaver_edge.stream"

WAITING = 1000
"""Lines that may wait for a terminal or a pipe that stands still; what comes then is left out."""

PATIENCE_S = 2.0
"""How long leaving waits for the lines that are left."""


class EventLog:
    """A listener that logs every event to the logger ``tinysaver_edge.stream``.

    The record's ``event`` holds the event's values, for handlers of one's own. What came before
    anybody asked, a frame dropped, is logged at level DEBUG.
    """

    def __init__(self) -> None:
        self._logger = logging.getLogger(LOGGER)
        package = logging.getLogger("tinysaver_edge")
        if not package.handlers:  # else Python writes warnings to stderr of its own accord
            package.addHandler(logging.NullHandler())

    def __call__(self, event: Event, /) -> None:
        """Log it."""
        level = level_of(event)
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", in_words(event), extra={"event": event.to_dict()})


def level_of(event: Event) -> int:
    """Return how bad an event is, as a level of `logging`."""
    if isinstance(event, Dropped):
        return logging.DEBUG
    if isinstance(event, Ended) and event.reason is not None:
        return logging.ERROR
    if isinstance(event, BundleNews):
        return logging.INFO if event.outcome in ("trial", "kept", "paused") else logging.WARNING
    if isinstance(
        event,
        Lost | Retrying | Corrupt | Denied | Doubtful | Undecided | Drift | SinkFailed | Frozen,
    ):
        return logging.WARNING
    return logging.INFO


def in_words(event: Event) -> str:
    """Return an event as one line for people."""
    told = f"{event.source_id}: {event.text}" if event.source_id else event.text
    return for_people(" ".join(told.split()))


class LogWriter:
    """Writes the package's log to a stream, from a thread of its own; a context manager.

    Programs that configure `logging` themselves need none.

    Args:
        stream: where lines go, such as ``sys.stderr``.
        as_json: one JSON object a line instead of text.
        level: what is left out below it.
    """

    def __init__(self, stream: TextIO, *, as_json: bool = False, level: int = logging.INFO) -> None:
        handler = _QuietHandler(stream)
        handler.setFormatter(_JsonLine() if as_json else _TextLine())
        waiting: queue.Queue[logging.LogRecord] = queue.Queue(WAITING)
        self._handler = _DroppingHandler(waiting)
        self._listener = _PatientListener(waiting, handler)
        self._logger = logging.getLogger("tinysaver_edge")
        self._level = level
        self._before: tuple[int, bool] | None = None

    def __enter__(self) -> Self:
        self._before = (self._logger.level, self._logger.propagate)
        self._logger.setLevel(self._level)
        self._logger.propagate = False
        self._logger.addHandler(self._handler)
        self._listener.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Write what is left and leave the logging as it was."""
        if self._before is None:
            return
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._before[0])
        self._logger.propagate = self._before[1]
        self._before = None
        self._listener.stop()


class _QuietHandler(_StreamHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Where the log cannot be written, there is nowhere to say so."""


class _DroppingHandler(QueueHandler):
    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):  # who does not read must not stall the stream
            self.queue.put_nowait(record)


class _PatientListener(QueueListener):
    _thread: threading.Thread | None

    def stop(self) -> None:
        """Write what is left, unless nobody reads it."""
        with suppress(queue.Full):
            self.enqueue_sentinel()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(PATIENCE_S)


class _TextLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = for_people(record.getMessage())
        return f"{time_of_day(record.created)} {record.levelname.lower():<7} {said}"


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": time_of_day(record.created),
            "severity": record.levelname.lower(),
            "message": for_people(record.getMessage()),
        }
        return json.dumps(values | getattr(record, "event", {}))
