"""Latency of the cascade beside the large model alone, from measured samples of each path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import FloatArray

STEPS = 160
"""Points of a drawn distribution."""


@dataclass(frozen=True, slots=True, eq=False)
class LatencyPaths:
    """Measured times of one frame, in milliseconds.

    Attributes:
        accepted_ms: ``(k,)`` frames that the first model answers.
        escalated_ms: ``(m,)`` frames that go on to the large model, both models included.
        large_ms: ``(l,)`` the large model alone.
        measured_on: the machine, engine and threads, in words.
    """

    accepted_ms: ArrayLike
    escalated_ms: ArrayLike
    large_ms: ArrayLike
    measured_on: str


@dataclass(frozen=True, slots=True)
class Distribution:
    """One path's latencies.

    Attributes:
        name: what was timed.
        mean_ms: mean.
        p50_ms: median.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        steps: (milliseconds, share of frames at most that slow), rising.
    """

    name: str
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    steps: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class LatencyFacts:
    """The cascade's latencies and the large model's.

    Attributes:
        cascade: accepted and escalated frames pooled as they occur.
        large: the large model on every frame.
        escalation_rate: with which they were pooled.
        measured_on: the machine, in words.
    """

    cascade: Distribution
    large: Distribution
    escalation_rate: float
    measured_on: str


def latency_facts(samples: LatencyPaths, *, escalation_rate: float) -> LatencyFacts:
    """Pool measured samples with the share in which each path occurs.

    Raises:
        InputError: a path that occurs has no samples, or a sample is no time.
    """
    accepted, escalated, large = (
        _checked(values, what)
        for values, what in (
            (samples.accepted_ms, "accepted"),
            (samples.escalated_ms, "escalated"),
            (samples.large_ms, "large"),
        )
    )
    for values, share, what in (
        (accepted, 1 - escalation_rate, "accepted"),
        (escalated, escalation_rate, "escalated"),
        (large, 1.0, "large"),
    ):
        if share > 0 and not len(values):
            raise InputError(f"latency: no samples of {what} frames, of which {share:.1%} are")
    weights = np.concatenate(
        (
            np.full(len(accepted), (1 - escalation_rate) / max(len(accepted), 1)),
            np.full(len(escalated), escalation_rate / max(len(escalated), 1)),
        )
    )
    pooled = np.concatenate((accepted, escalated))
    return LatencyFacts(
        cascade=_distribution("cascade", pooled, weights),
        large=_distribution("large model alone", large, np.full(len(large), 1 / len(large))),
        escalation_rate=escalation_rate,
        measured_on=samples.measured_on,
    )


def _checked(values: ArrayLike, what: str) -> FloatArray:
    times = np.atleast_1d(np.asarray(values, np.float64))
    if times.ndim != 1 or not (np.isfinite(times).all() and (times >= 0).all()):
        raise InputError(f"latency: samples of {what} frames are not all finite times")
    return times


def _distribution(name: str, times: FloatArray, weights: FloatArray) -> Distribution:
    order = np.argsort(times)
    times, shares = times[order], np.cumsum(weights[order]) / weights.sum()

    def quantile(share: float) -> float:
        return float(times[min(int(np.searchsorted(shares, share - 1e-12)), len(times) - 1)])

    drawn = np.unique(np.linspace(0, len(times) - 1, min(STEPS, len(times))).round().astype(int))
    return Distribution(
        name=name,
        mean_ms=float((times * weights[order]).sum() / weights.sum()),
        p50_ms=quantile(0.50),
        p95_ms=quantile(0.95),
        p99_ms=quantile(0.99),
        steps=tuple((float(times[i]), float(shares[i])) for i in drawn),
    )
