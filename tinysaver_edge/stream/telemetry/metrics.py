"""What a stream counts and measures, without knowing who publishes it."""

from __future__ import annotations

import threading
from collections import Counter as Multiset
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure, for every value of its labels.

    Attributes:
        name: as in the metrics, without what precedes every name and ``_total``.
        help: what it is, in a line.
        samples: values of the labels, and the figure; none where there is nothing to say.
        labels: names of the labels.
        counts: whether it only grows.
    """

    name: str
    help: str
    samples: tuple[tuple[tuple[str, ...], float], ...]
    labels: tuple[str, ...] = ()
    counts: bool = False


def reading(name: str, help: str, value: float | None, *, counts: bool = False) -> Reading:
    """Return a figure without labels; None for nothing to say."""
    return Reading(name, help, () if value is None else (((), value),), counts=counts)


class Counter(str, Enum):
    """What is counted, by source; every counter only grows.

    Attributes:
        FRAMES: frames that a source gave to the stream.
        DROPPED: frames left out because newer ones came before anyone asked.
        CORRUPT: frames that could not be decoded.
        DECISIONS: final answers; the detail is `Decision.source`.
        REUSED: final answers that were found for an earlier frame; the detail is an `Likeness`.
        SETTLED: final answers; the detail is the model of the stage whose answer it is.
        CERTIFIED: final answers that the bundle's certificate covers.
        STOOD_IN: final answers of the saver for want of the large model, repeated ones included.
        PROVISIONAL: answers that a revision follows.
        ESCALATED: frames that the large model was asked about.
        DEGRADED: final answers that are not what the policy asks for; the detail is a `Reason`.
        UNDECIDED: frames that no model could answer.
        LOST: connections lost.
        RECONNECTED: connections made anew.
        LATE: answers of the large model that came after their deadline and were thrown away.
        SINK_DROPPED: decisions a sink had no room for; the detail is the sink's name.
        SINK_FAILED: decisions a sink could not write; the detail is the sink's name.
        AUDITED: accepted or repeated answers that the large model was asked about as well.
        DISAGREED: audited frames that it answered otherwise.
        DRIFT: alarms that they disagree more often than the calibration promised.
        BUNDLES: what became of bundles that a tag stood for; the detail is `BundleNews.outcome`.
    """

    FRAMES = "frames"
    DROPPED = "dropped"
    CORRUPT = "corrupt"
    DECISIONS = "decisions"
    REUSED = "reused"
    SETTLED = "settled"
    CERTIFIED = "certified"
    STOOD_IN = "stood_in"
    PROVISIONAL = "provisional"
    ESCALATED = "escalated"
    DEGRADED = "degraded"
    UNDECIDED = "undecided"
    LOST = "lost"
    RECONNECTED = "reconnected"
    LATE = "late"
    SINK_DROPPED = "sink_dropped"
    SINK_FAILED = "sink_failed"
    AUDITED = "audited"
    DISAGREED = "disagreed"
    DRIFT = "drift"
    BUNDLES = "bundles"


class Measure(str, Enum):
    """What is measured of single frames, in milliseconds.

    Attributes:
        AGE_MS: from the taking of a frame (from its reading, for files) to its answer.
        SAVER_MS: the first model's inference.
        ESCALATION_MS: from the saver's answer to the large model's, waiting included.
    """

    AGE_MS = "age_ms"
    SAVER_MS = "saver_ms"
    ESCALATION_MS = "escalation_ms"


class Gauge(str, Enum):
    """What goes up and down.

    Attributes:
        IN_FLIGHT: frames that wait for the large model, of all sources.
        CONNECTED: 1 while a source gives frames, else 0.
        DRIFT_EVIDENCE: value of the e-process of the drift watch, relative to where the alarm is
            raised: 1 is the alarm.
    """

    IN_FLIGHT = "in_flight"
    CONNECTED = "connected"
    DRIFT_EVIDENCE = "drift_evidence"


class Metrics(Protocol):
    """Takes a stream's figures. Called from several threads at once; every call returns at once."""

    def count(self, counter: Counter, source_id: str, *, detail: str = "", amount: int = 1) -> None:
        """Something happened `amount` times more; `detail` says of which kind."""

    def measure(self, measure: Measure, source_id: str, value_ms: float, *, detail: str) -> None:
        """One frame took that long; the detail is `Decision.source` of its answer."""

    def gauge(self, gauge: Gauge, source_id: str, value: float) -> None:
        """A level is now `value`, in the unit of its name; no source where it concerns them all."""


class NoMetrics:
    """Publishes nothing."""

    def count(self, counter: Counter, source_id: str, *, detail: str = "", amount: int = 1) -> None:
        """Ignore it."""

    def measure(self, measure: Measure, source_id: str, value_ms: float, *, detail: str) -> None:
        """Ignore it."""

    def gauge(self, gauge: Gauge, source_id: str, value: float) -> None:
        """Ignore it."""


NO_METRICS = NoMetrics()


class Tally(NoMetrics):
    """Metrics kept in memory: counters and gauges; measures are only counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Multiset[tuple[Counter, str, str]] = Multiset()
        self._gauges: dict[tuple[Gauge, str], float] = {}

    def count(self, counter: Counter, source_id: str, *, detail: str = "", amount: int = 1) -> None:
        """Add `amount` to a counter."""
        with self._lock:
            self._counts[counter, source_id, detail] += amount

    def gauge(self, gauge: Gauge, source_id: str, value: float) -> None:
        """Keep the level's newest `value`."""
        with self._lock:
            self._gauges[gauge, source_id] = value

    def total(
        self, counter: Counter, *, source_id: str | None = None, detail: str | None = None
    ) -> int:
        """Return a counter's sum, over all sources and details unless one is named."""
        with self._lock:
            return sum(
                amount
                for (which, source, why), amount in self._counts.items()
                if which is counter
                and (source_id is None or source == source_id)
                and (detail is None or why == detail)
            )

    def level(self, gauge: Gauge, source_id: str = "") -> float:
        """Return a gauge's last level; 0 where it has had none."""
        with self._lock:
            return self._gauges.get((gauge, source_id), 0.0)


class AllMetrics:
    """Passes every figure on to several takers."""

    def __init__(self, *takers: Metrics) -> None:
        self._takers = list(takers)

    def add(self, taker: Metrics) -> None:
        """Pass them on to one more; to be called before the stream starts."""
        self._takers.append(taker)

    def count(self, counter: Counter, source_id: str, *, detail: str = "", amount: int = 1) -> None:
        """Pass `amount` on."""
        for taker in self._takers:
            taker.count(counter, source_id, detail=detail, amount=amount)

    def measure(self, measure: Measure, source_id: str, value_ms: float, *, detail: str) -> None:
        """Pass it on."""
        for taker in self._takers:
            taker.measure(measure, source_id, value_ms, detail=detail)

    def gauge(self, gauge: Gauge, source_id: str, value: float) -> None:
        """Pass `value` on."""
        for taker in self._takers:
            taker.gauge(gauge, source_id, value)
