"""Metrics for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tinysaver_edge._support.packages import needs
from tinysaver_edge.stream.telemetry.metrics import Counter, Gauge, Measure, Reading

PREFIX = "tinysaver"

DETAILS = {
    Counter.DECISIONS: "answered_by",
    Counter.SETTLED: "model",
    Counter.DEGRADED: "reason",
    Counter.REUSED: "alike",
    Counter.SINK_DROPPED: "sink",
    Counter.SINK_FAILED: "sink",
    Counter.DRIFT: "action",
    Counter.BUNDLES: "outcome",
}
"""Name of the label that a counter's detail goes into; the others have none."""

HELP = {
    Counter.FRAMES: "Frames that a source gave to the stream",
    Counter.DROPPED: "Frames left out because newer ones came before anyone asked",
    Counter.CORRUPT: "Frames that could not be decoded",
    Counter.DECISIONS: "Final answers",
    Counter.REUSED: "Final answers that were found for an earlier frame",
    Counter.SETTLED: "Final answers, by the model whose answer it is",
    Counter.CERTIFIED: "Final answers that the certificate covers",
    Counter.STOOD_IN: "Final answers of the saver for want of the large model, repeated or not",
    Counter.PROVISIONAL: "Answers that a revision follows",
    Counter.ESCALATED: "Frames that the large model was asked about",
    Counter.DEGRADED: "Final answers that are not what the policy asks for",
    Counter.UNDECIDED: "Frames that no model could answer",
    Counter.LOST: "Connections lost",
    Counter.RECONNECTED: "Connections made anew",
    Counter.LATE: "Answers of the large model thrown away because they came too late",
    Counter.SINK_DROPPED: "Decisions a sink had no room for",
    Counter.SINK_FAILED: "Decisions a sink could not write",
    Counter.AUDITED: "Accepted or repeated answers that the large model was asked about as well",
    Counter.DISAGREED: "Audited frames that the large model answered otherwise",
    Counter.DRIFT: "Alarms that audited frames disagree more often than calibrated",
    Counter.BUNDLES: "What became of bundles that a followed tag stood for",
    Measure.AGE_MS: "From the taking of a frame to its answer",
    Measure.SAVER_MS: "The first model's inference",
    Measure.ESCALATION_MS: "From the saver's answer to the large model's",
    Gauge.IN_FLIGHT: "Frames that wait for the large model",
    Gauge.CONNECTED: "1 while a source gives frames",
    Gauge.DRIFT_EVIDENCE: "Evidence for drift, 1 is the alarm",
}

BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

MOST_SOURCES = 64
"""Further sources are counted together, as "other": each label value costs memory for ever."""


class _Read:
    """A collector for the client library: figures that are kept elsewhere."""

    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for one in self._read():
            kind = CounterMetricFamily if one.counts else GaugeMetricFamily
            family = kind(f"{PREFIX}_{one.name}", one.help, labels=one.labels)
            for values, value in one.samples:
                family.add_metric(values, value)
            yield family


class PrometheusMetrics:
    """Takes a stream's figures and writes them as Prometheus reads them.

    Names are ``tinysaver_frames_total`` and so on, with the label ``source``; durations are
    histograms in seconds. The process's own figures (memory, descriptors) are among them.

    Raises:
        MissingDependencyError: prometheus-client is not installed.
    """

    def __init__(self) -> None:
        with needs("prometheus-client", extra="metrics", purpose="Metrics for Prometheus"):
            import prometheus_client as prometheus
        self._write = prometheus.generate_latest
        self.content_type: str = prometheus.CONTENT_TYPE_LATEST
        self._registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self._registry)
        prometheus.PlatformCollector(registry=self._registry)
        made: dict[Counter | Gauge | Measure, Any] = {}
        for counter in Counter:
            labels = ["source", *([DETAILS[counter]] if counter in DETAILS else [])]
            made[counter] = self._make(prometheus.Counter, counter, counter.value, labels)
        for gauge in Gauge:
            made[gauge] = self._make(prometheus.Gauge, gauge, gauge.value, ["source"])
        for measure in Measure:
            name = f"{measure.value.removesuffix('_ms')}_seconds"
            labels = ["source", "answered_by"]
            made[measure] = self._make(
                prometheus.Histogram, measure, name, labels, buckets=BUCKETS_S
            )
        self._made = made
        self._lock = threading.Lock()
        self._children: dict[tuple[Counter | Gauge | Measure, str, str], Any] = {}
        self._sources: set[str] = set()

    def _make(
        self,
        kind: Any,  # noqa: ANN401
        of: Counter | Gauge | Measure,
        name: str,
        labels: list[str],
        **more: object,
    ) -> Any:  # noqa: ANN401
        return kind(f"{PREFIX}_{name}", HELP[of], labels, registry=self._registry, **more)

    def count(self, counter: Counter, source_id: str, *, detail: str = "", amount: int = 1) -> None:
        """Add `amount` to a counter."""
        self._child(counter, source_id, detail if counter in DETAILS else None).inc(amount)

    def measure(self, measure: Measure, source_id: str, value_ms: float, *, detail: str) -> None:
        """Add to a histogram."""
        self._child(measure, source_id, detail).observe(value_ms / 1e3)

    def gauge(self, gauge: Gauge, source_id: str, value: float) -> None:
        """Set a level to `value`, in the unit of its name."""
        self._child(gauge, source_id, None).set(value)

    def add(self, read: Callable[[], Iterable[Reading]]) -> None:
        """Publish figures that are read whenever somebody asks.

        Args:
            read: returns them, always under the same names; from any thread, at once.
        """
        self._registry.register(_Read(read))

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        text: bytes = self._write(self._registry)
        return text

    def _child(self, of: Counter | Gauge | Measure, source_id: str, detail: str | None) -> Any:  # noqa: ANN401
        key = (of, source_id, detail or "")
        child = self._children.get(key)
        if child is not None:
            return child
        with self._lock:
            if source_id not in self._sources:
                if len(self._sources) >= MOST_SOURCES:
                    source_id = "other"
                else:
                    self._sources.add(source_id)
            values = (source_id,) if detail is None else (source_id, detail)
            child = self._made[of].labels(*values)
            if source_id != "other":
                self._children[key] = child
        return child
