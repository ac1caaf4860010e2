"""What goes to a host, and when nothing does: figures, the retry budget, the circuit breaker."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tinysaver_edge.decision import ModelIdentity
from tinysaver_edge.engines.remote.facts import Kind

SAVED = 10.0
"""So many retries may be saved up."""


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
        state: whether it is asked.
        in_use: whether it gave the last answer.
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


class RetryBudget:
    """Earns a share of a retry with every request, and spends one on each. Thread-safe."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._left = SAVED if share else 0.0
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Take note of a request."""
        with self._lock:
            self._left = min(SAVED, self._left + self._share)

    def spend(self) -> bool:
        """Return whether a retry may be made, and take it off."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True


class State(str, Enum):
    """What a breaker lets through.

    Attributes:
        CLOSED: everything.
        OPEN: nothing.
        HALF_OPEN: the one probe that is under way.
    """

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Counts failures in a row, and says when a host may be asked again. Thread-safe.

    Args:
        clock: seconds.
        failures: so many in a row open it.
        pause_s: how long it stays open before a probe.
        is_open: begin open, with a probe due at once.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        failures: int = 3,
        pause_s: float = 0.5,
        is_open: bool = False,
    ) -> None:
        self._clock = clock
        self._failures = failures
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._state = State.OPEN if is_open else State.CLOSED
        self._probe_s = clock()

    @property
    def state(self) -> State:
        """What it lets through now."""
        with self._lock:
            return self._state

    def failed(self, *, lasting: bool = False) -> bool:
        """Take note of a failure; return whether that opened the breaker."""
        with self._lock:
            self._in_a_row += 1
            opens = lasting or self._in_a_row >= self._failures
            if self._state is not State.CLOSED or not opens:
                return False
            self._open()
            return True

    def succeeded(self) -> None:
        """Take note of an answer. One that comes while open, from a request of before, is none."""
        with self._lock:
            if self._state is State.CLOSED:
                self._in_a_row = 0

    def wait_s(self) -> float | None:
        """Return how long until a probe is due, 0 where one is; None where none will be."""
        with self._lock:
            if self._state is not State.OPEN:
                return None
            return max(0.0, self._probe_s - self._clock())

    def begin_probe(self) -> bool:
        """Let one probe through, if it is time; whoever gets True must call `end_probe`."""
        with self._lock:
            if self._state is not State.OPEN or self._clock() < self._probe_s:
                return False
            self._state = State.HALF_OPEN
            return True

    def end_probe(self, *, good: bool) -> None:
        """Close the breaker after a good probe, open it again after a bad one."""
        with self._lock:
            if good:
                self._state, self._in_a_row = State.CLOSED, 0
            else:
                self._open()

    def _open(self) -> None:
        self._state = State.OPEN
        self._probe_s = self._clock() + self._pause_s
