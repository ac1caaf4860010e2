"""What the dashboard shows: kept in memory, bounded, and gathered by a sink that never waits."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tinysaver_edge.decision import Decision, Reason, StageRef
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.dashboard.timeline import KINDS, Timeline, Totals
from tinysaver_edge.stream.drift.drift import DriftState
from tinysaver_edge.stream.sinks.saved_frames import is_hard
from tinysaver_edge.stream.sources.source import Frame
from tinysaver_edge.stream.telemetry.events import (
    Connected,
    Dropped,
    Ended,
    Event,
    Lost,
    Reconnected,
)
from tinysaver_edge.stream.telemetry.health import Health
from tinysaver_edge.stream.telemetry.hosts import hosts_told
from tinysaver_edge.stream.telemetry.logs import in_words, level_of
from tinysaver_edge.stream.telemetry.metrics import Counter, Gauge, Measure
from tinysaver_edge.stream.telemetry.promise import Promise

if TYPE_CHECKING:
    from typing_extensions import Self

    from tinysaver_edge.engines.remote.engine import RemoteEngine

THUMBNAIL_WIDTH = 240


@dataclass(slots=True)
class SourceState:
    """The latest about one source.

    Attributes:
        connected: whether it gives frames.
        ended: whether it has come to its end.
        decision: the last one, with a picture or without.
        number: of the picture that is kept; 0 where there is none.
        picture: ``(height, width, 3)`` BGR uint8.
        pictured: what was decided about the picture.
        kept_s: when the picture came.
        written_s: when the last decision came.
        counts: frames and drops.
    """

    connected: bool = False
    ended: bool = False
    decision: Decision | None = None
    number: int = 0
    picture: Picture | None = None
    pictured: Decision | None = None
    kept_s: float = float("-inf")
    written_s: float = float("-inf")
    counts: dict[str, int] = field(default_factory=lambda: {"frames": 0, "dropped": 0})


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture and what was decided about it.

    Attributes:
        number: grows with every picture.
        picture: ``(height, width, 3)`` BGR uint8.
    """

    number: int
    picture: Picture
    decision: Decision
    time_s: float


def small(picture: Picture) -> Picture:
    """Leave out rows and columns: quick, and good enough for a thumbnail."""
    step = max(1, picture.shape[1] // THUMBNAIL_WIDTH)
    return picture[::step, ::step].copy()


def source_told(name: str, source: SourceState) -> dict[str, Any]:
    """Return a source as plain values for the page."""
    return {
        "id": name,
        "connected": source.connected,
        "ended": source.ended,
        "picture": source.number,
        "decision": None if source.decision is None else source.decision.to_dict(),
        **source.counts,
    }


def thumbnail_told(shown: Shown, now: float) -> dict[str, Any]:
    """Return an escalated frame as plain values for the page."""
    decision = shown.decision
    return {
        "number": shown.number,
        "age_s": round(now - shown.time_s, 1),
        "source_id": decision.frame_id.source_id,
        "label": decision.label,
        "confidence": decision.confidence,
        "answered_by": decision.source.value,
        "degraded": decision.degraded,
    }


def percentiles(ages: deque[float]) -> dict[str, float]:
    """Return p50, p95 and p99 of some milliseconds, at least one, and how many there are."""
    p50, p95, p99 = np.percentile(ages, (50, 95, 99))
    return {
        "p50": round(float(p50), 2),
        "p95": round(float(p95), 2),
        "p99": round(float(p99), 2),
        "frames": len(ages),
    }


MOST_SOURCES = 32
"""Sources that are shown; the figures count them all."""

WATCHED_FOR_S = 5.0
"""So long after somebody has asked for a picture, pictures are kept."""

PICTURE_GAP_S = 0.08
"""Least time between two pictures of a source while somebody looks."""

IDLE_GAP_S = 1.0
"""And while nobody does."""

SILENT_S = 10.0
"""A source that gives nothing for so long keeps no one waiting for its picture."""

THUMBNAILS = 12
THUMBNAIL_GAP_S = 0.5

AGES = 2000
"""Latest ages that the percentiles are of, by where the answer comes from."""


class DashboardState:
    """Sink, metrics and listener at once; all that the page asks for comes from here.

    Every call returns at once: pictures are kept by reference, and only as often as somebody looks.

    Args:
        clock: seconds.
        health: what is told of it.
        drift: returns what the drift watch has seen, or None where there is none.
        promise: returns what is promised at this moment; None where nobody is to be told.
        hosts: asks the hosts of the large model; None where it runs here.
    """

    name = "dashboard"

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        health: Health,
        drift: Callable[[], DriftState | None] = lambda: None,
        promise: Callable[[], Promise] | None = None,
        hosts: RemoteEngine | None = None,
    ) -> None:
        self.health = health
        self._clock = clock
        self._drift, self._promise, self._hosts = drift, promise, hosts
        self._started_s = clock()
        self._lock = threading.Lock()
        self._asked_s = self._written_s = float("-inf")
        self._sources: dict[str, SourceState] = {}
        self._timeline = Timeline()
        self._ages: dict[str, deque[float]] = {}
        self._totals = Totals()
        self._settled: dict[StageRef, int] = {}
        self._in_flight = 0.0
        self._numbers = 0
        self._thumbnails: deque[Shown] = deque(maxlen=THUMBNAILS)
        self._thumbnail_s = float("-inf")
        self._events: deque[tuple[float, int, str]] = deque(maxlen=40)

    # As a sink

    @property
    def wants_frames(self) -> bool:
        """Whether some source's picture is older than it should be."""
        now = self._clock()
        due_s = now - self._gap_s(now)
        with self._lock:
            if now - self._written_s >= IDLE_GAP_S:  # a slow stream: every picture
                return True
            return any(
                one.kept_s <= due_s
                for one in self._sources.values()
                if now - one.written_s < SILENT_S
            )

    def _gap_s(self, now: float) -> float:
        return PICTURE_GAP_S if now - self._asked_s < WATCHED_FOR_S else IDLE_GAP_S

    def write(self, decision: Decision, frame: Frame | None) -> None:
        """Remember one decision."""
        now = self._clock()
        with self._lock:
            self._written_s = now
            source = self._source(decision.frame_id.source_id)
            if source is not None:
                source.decision, source.written_s = decision, now
                if frame is not None:
                    self._keep(source, decision, frame, now)
            if decision.reason is Reason.PROVISIONAL:
                return
            self._timeline.add(decision, now)
            self._totals.add(decision)
            self._settled[decision.stage] = self._settled.get(decision.stage, 0) + 1
            due = now - self._thumbnail_s >= THUMBNAIL_GAP_S
            if frame is not None and is_hard(decision) and due:
                self._thumbnail_s = now
                self._numbers += 1
                picture = small(frame.image)
                self._thumbnails.append(Shown(self._numbers, picture, decision, now))

    def _keep(self, source: SourceState, decision: Decision, frame: Frame, now: float) -> None:
        if decision.revision and source.pictured is not None:
            newer = source.pictured.frame_id.sequence > decision.frame_id.sequence
            if newer:  # a revision of a frame that is no longer shown
                return
        self._numbers += 1
        source.number, source.picture = self._numbers, frame.image
        source.pictured, source.kept_s = decision, now

    def _source(self, source_id: str) -> SourceState | None:
        if source_id not in self._sources:
            if len(self._sources) >= MOST_SOURCES:
                return None
            self._sources[source_id] = SourceState()
        return self._sources[source_id]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    # As a listener

    def __call__(self, event: Event, /) -> None:
        """Remember an event, and whether its source gives frames."""
        with self._lock:
            source = self._source(event.source_id) if event.source_id else None
            if source is not None and isinstance(event, Connected | Reconnected):
                source.connected, source.ended = True, False
            elif source is not None and isinstance(event, Lost | Ended):
                source.connected, source.ended = False, isinstance(event, Ended)
            if not isinstance(event, Dropped):  # counted, and too many to read
                self._events.append((self._clock(), level_of(event), in_words(event)))

    # As metrics

    def count(self, counter: Counter, source_id: str, *, detail: str = "", amount: int = 1) -> None:
        """Follow frames and drops."""
        if counter in (Counter.FRAMES, Counter.DROPPED):
            with self._lock:
                source = self._source(source_id)
                if source is not None:
                    source.counts[counter.value] += amount

    def measure(self, measure: Measure, source_id: str, value_ms: float, *, detail: str) -> None:
        """Follow ages."""
        if measure is Measure.AGE_MS:
            with self._lock:
                self._timeline.add_age(value_ms, self._clock())
                self._ages.setdefault(detail, deque(maxlen=AGES)).append(value_ms)

    def gauge(self, gauge: Gauge, source_id: str, value: float) -> None:
        """Follow the frames that wait for the large model."""
        if gauge is Gauge.IN_FLIGHT:
            self._in_flight = value

    # For the page

    def snapshot(self) -> dict[str, Any]:
        """Return everything but the pictures as plain values for JSON."""
        now = self._clock()
        alive, ready = self.health.alive, self.health.ready
        seen = self._drift()
        drift = None if seen is None else asdict(seen)
        hosts = None if self._hosts is None else hosts_told(self._hosts)
        with self._lock:
            return {
                "uptime_s": round(now - self._started_s, 1),
                "alive": alive.good,
                "ready": ready.good,
                "state": alive.why if not alive.good else ready.why,
                "sources": [source_told(name, one) for name, one in self._sources.items()],
                "totals": {kind: getattr(self._totals, kind) for kind in KINDS},
                "settled": [
                    {"model": stage.model, "answers": count}
                    for stage, count in sorted(self._settled.items(), key=lambda it: it[0].index)
                ],
                "promise": self._promise_told(now),
                "hosts": hosts,
                "in_flight": self._in_flight,
                "latency": {kind: percentiles(ages) for kind, ages in self._ages.items()},
                "timeline": self._timeline.to_dict(now),
                "drift": drift,
                "escalated": [thumbnail_told(one, now) for one in reversed(self._thumbnails)],
                "events": [
                    {"age_s": round(now - at, 1), "severity": level, "words": words}
                    for at, level, words in reversed(self._events)
                ],
            }

    def _promise_told(self, now: float) -> dict[str, Any] | None:
        """Return what is left of the promise since the start and lately. With the lock held."""
        promise = None if self._promise is None else self._promise()
        if promise is None:
            return None
        kept = {
            name: promise.kept(
                answers=totals.answers, certified=totals.certified, fallbacks=totals.fallbacks
            )
            for name, totals in (("all", self._totals), ("recent", self._timeline.totals(now)))
        }
        return asdict(promise) | {name: one and asdict(one) for name, one in kept.items()}

    def picture(self, source_id: str, *, after: int) -> Shown | None:
        """Return a source's latest picture, if it is newer than that number."""
        now = self._clock()
        with self._lock:
            self._asked_s = now
            one = self._sources.get(source_id)
            if one is None or one.picture is None or one.pictured is None or one.number <= after:
                return None
            return Shown(one.number, one.picture, one.pictured, one.kept_s)

    def thumbnail(self, number: int) -> Picture | None:
        """Return the small picture of an escalated frame."""
        with self._lock:
            return next((one.picture for one in self._thumbnails if one.number == number), None)
