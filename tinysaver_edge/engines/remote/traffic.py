"""What went to a remote model and what came back, in figures."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

from tinysaver_edge.decision import ModelIdentity
from tinysaver_edge.engines.remote.breaker import State
from tinysaver_edge.engines.remote.facts import Kind


@dataclass(frozen=True, slots=True)
class Traffic:
    """Figures since the engine was opened.

    Attributes:
        requests: batches that were to be answered.
        answered: of these, how many were.
        retries: attempts beyond the first.
        probes: inferences and questions that asked how a host is.
        sent_bytes: tensors sent, without headers; probes included.
        received_bytes: tensors received.
        failures: attempts that failed, by `Kind`.
    """

    requests: int
    answered: int
    retries: int
    probes: int
    sent_bytes: int
    received_bytes: int
    failures: dict[str, int]


@dataclass(frozen=True, slots=True)
class HostState:
    """How one host is.

    Attributes:
        name: its URL.
        state: whether it is asked.
        in_use: whether it gave the last answer.
        answered: batches that it answered.
        reconnects: how often it was taken back into use after it had been left alone.
        latency_ms: mean of its last answers; 0 before the first.
        identity: which model it says it serves; None before it was reached.
    """

    name: str
    state: State
    in_use: bool
    answered: int
    reconnects: int
    latency_ms: float
    identity: ModelIdentity | None


class Meter:
    """Counts traffic. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()

    def count(self, what: str, amount: int = 1) -> None:
        """Add to one of the figures of `Traffic`, by its name."""
        with self._lock:
            self._counts[what] += amount

    def failed(self, kind: Kind) -> None:
        """Count a failed attempt."""
        with self._lock:
            self._failures[kind.value] += 1

    def read(self) -> Traffic:
        """Return the figures of this moment."""
        with self._lock:
            return Traffic(
                requests=self._counts["requests"],
                answered=self._counts["answered"],
                retries=self._counts["retries"],
                probes=self._counts["probes"],
                sent_bytes=self._counts["sent_bytes"],
                received_bytes=self._counts["received_bytes"],
                failures=dict(self._failures),
            )
