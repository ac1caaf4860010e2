"""Latency of the cascade beside the large model alone, from measured samples of each path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinysaver_edge.calibrate.costs import CascadeCosts
from tinysaver_edge.latency import LatencySource, PooledLatency, pooled

STEPS = 160
"""Points of a drawn distribution."""


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
        escalation_rate: with which they were pooled.
        machine: what they were measured on, in words, or None.
        measured: whether all of it was timed, none of it taken from a profile.
    """

    cascade: Distribution
    large: Distribution
    escalation_rate: float
    machine: str | None
    measured: bool


def latency_facts(
    costs: CascadeCosts, *, rates: Sequence[float], asked: bool, machine: str | None
) -> LatencyFacts | None:
    """Pool both paths of the cascade in the share in which they occur.

    Args:
        costs: of the saver with the large model.
        rates: as the costs have them: share of frames that reach each stage but the first, 0..1.
        asked: whether the saver is asked at all.
        machine: what the latencies were measured on, in words, or None.

    Returns:
        None where a model's latency is not known.
    """
    if not costs.timed or costs.large.latency is None:
        return None
    large = pooled(((costs.large.latency, 1.0),))
    cascade = costs.latency_at(*rates) if asked else large
    return LatencyFacts(
        cascade=_distribution("cascade", cascade),
        large=_distribution("large model alone", large),
        escalation_rate=rates[-1],
        machine=machine,
        measured={cascade.source, large.source} == {LatencySource.MEASURED},
    )


def _distribution(name: str, found: PooledLatency) -> Distribution:
    times, shares = found.samples_ms, found.up_to
    # Even in time and in share: neither a long tail nor a steep step may be lost.
    wanted = np.linspace(0, 1, STEPS // 2)
    by_share = np.searchsorted(shares, wanted)
    by_time = np.searchsorted(times, times[0] + (times[-1] - times[0]) * wanted)
    drawn = np.unique(np.clip(np.concatenate((by_share, by_time)), 0, len(times) - 1))
    return Distribution(
        name=name,
        mean_ms=found.mean_ms,
        p50_ms=found.quantile_ms(0.50),
        p95_ms=found.quantile_ms(0.95),
        p99_ms=found.quantile_ms(0.99),
        steps=tuple((float(times[i]), float(shares[i])) for i in drawn),
    )
