"""Health: whether the stream is alive, and whether it is ready to give answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tinysaver_edge._support.doors import Said
from tinysaver_edge.stream.telemetry.events import Connected, Ended, Event, Lost, Reconnected
from tinysaver_edge.stream.telemetry.metrics import Counter, NoMetrics

MOST_SOURCES = 1024
"""Names that are remembered; a folder of pictures has one for each."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Good or not, and why.

    Attributes:
        good: whether all is well.
    """

    good: bool
    why: str


class Health(NoMetrics):
    """Hears of events and figures, and judges. Every call returns at once.

    Args:
        clock: seconds.
        stall_s: a frame that has had no answer for so long means that the stream hangs.
    """

    def __init__(self, *, clock: Callable[[], float], stall_s: float = 15.0) -> None:
        self._clock = clock
        self._stall_s = stall_s
        self._lock = threading.Lock()
        self._started = False
        self._unanswered_since: float | None = None
        self._answers = 0
        self._giving: set[str] = set()
        self._lost: set[str] = set()

    def started(self) -> None:
        """The models are loaded and the stream runs."""
        self._started = True

    def stopped(self) -> None:
        """The stream is being closed."""
        self._started = False

    def __call__(self, event: Event, /) -> None:
        """Follow the sources."""
        with self._lock:
            if isinstance(event, Connected | Reconnected) and len(self._giving) < MOST_SOURCES:
                self._giving.add(event.source_id)
                self._lost.discard(event.source_id)
            elif isinstance(event, Lost | Ended):
                self._giving.discard(event.source_id)
                if isinstance(event, Lost) or event.reason is not None:
                    self._lost.add(event.source_id)

    def count(self, counter: Counter, source_id: str, *, detail: str = "", amount: int = 1) -> None:
        """Follow frames and answers."""
        if counter is Counter.FRAMES and self._unanswered_since is None:
            self._unanswered_since = self._clock()
        elif counter is Counter.DECISIONS:
            self._unanswered_since = None
            self._answers += 1

    @property
    def alive(self) -> Verdict:
        """Whether the process does its work: a supervisor restarts it where this is false."""
        since = self._unanswered_since
        if since is not None and (waited := self._clock() - since) > self._stall_s:
            return Verdict(False, f"no answer for {waited:.0f} s, although there are frames")
        return Verdict(True, "running" if self._started else "not started yet")

    @property
    def ready(self) -> Verdict:
        """Whether answers can be relied upon: models loaded, a source connected, answers given."""
        alive = self.alive
        if not alive.good:
            return alive
        if not self._started:
            return Verdict(False, "the models are not loaded yet, or the stream is being closed")
        with self._lock:
            giving, lost = len(self._giving), len(self._lost)
        if not giving:
            return Verdict(False, f"no source gives frames ({lost} lost)")
        if not self._answers:
            return Verdict(False, "no answer yet")
        sources = "1 source gives frames" if giving == 1 else f"{giving} sources give frames"
        return Verdict(True, sources + (f", {lost} lost" if lost else ""))

    def said(self, path: str) -> Said | None:
        """Return the answer to ``/healthz`` or ``/readyz``; None where another path is asked."""
        if path not in ("/healthz", "/readyz"):
            return None
        verdict = self.alive if path == "/healthz" else self.ready
        body = json.dumps({"good": verdict.good, "why": verdict.why}) + "\n"
        return Said(200 if verdict.good else 503, "application/json", body.encode())
