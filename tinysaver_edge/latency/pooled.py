"""Pooled samples: latency over frames of which some are escalated, and what a limit allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.errors import InputError
from tinysaver_edge.latency.samples import (
    TOLERANCE,
    LatencySamples,
    LatencySource,
    Samples,
    quantile_of,
)


@dataclass(frozen=True, slots=True, eq=False)
class PooledLatency:
    """Latency over frames that take one of several ways, each with its share of the frames.

    Attributes:
        mean_ms: weighted mean.
        samples_ms: all ways' samples, ascending.
        up_to: share of the frames that take no longer than each sample, ascending to 1.
        source: measured, when all of it is.
    """

    mean_ms: float
    samples_ms: Samples
    up_to: NDArray[np.float64]
    source: LatencySource

    def quantile_ms(self, q: float) -> float:
        """Return the least sample that a share q of the frames does not exceed.

        Raises:
            InputError: q is outside 0..1.
        """
        return quantile_of(self.samples_ms, self.up_to, q)

    def summary(self) -> dict[str, Any]:
        """Return mean and quantiles as plain values for JSON."""
        return {
            "source": self.source.value,
            "mean_ms": self.mean_ms,
            **{f"p{q}_ms": self.quantile_ms(q / 100) for q in (50, 90, 95, 99)},
        }


def pooled(ways: Sequence[tuple[LatencySamples, float]]) -> PooledLatency:
    """Pool the samples of several ways a frame may take.

    Quantiles come from the samples, never from means: of a cascade that escalates 4 % of its
    frames the p95 is the saver's and the p99 is the large model's.

    Args:
        ways: samples and the share of frames that go that way; the shares sum to 1.

    Raises:
        InputError: the shares are no fractions or do not sum to 1.
    """
    shares = [share for _, share in ways]
    if not all(0 <= share <= 1 for share in shares) or not math.isclose(sum(shares), 1):
        raise InputError(f"shares of frames {shares}: must be fractions that sum to 1")
    taken = [(samples, share) for samples, share in ways if share > 0]
    values = np.concatenate([samples.samples_ms for samples, _ in taken])
    weights = np.concatenate([np.full(len(one), share / len(one)) for one, share in taken])
    order = np.argsort(values)
    measured = all(samples.source is LatencySource.MEASURED for samples, _ in taken)
    return PooledLatency(
        mean_ms=sum(samples.mean_ms * share for samples, share in taken),
        samples_ms=values[order],
        up_to=np.cumsum(weights[order]),
        source=LatencySource.MEASURED if measured else LatencySource.PUBLISHED,
    )


@dataclass(frozen=True, slots=True, eq=False)
class CascadeLatency:
    """Latency of a saver and a large model at any escalation rate.

    Attributes:
        saver: how long a frame takes that the saver answers.
        escalated: how long a frame takes that goes on to the large model, the saver included.
    """

    saver: LatencySamples
    escalated: LatencySamples

    @classmethod
    def of(cls, saver: LatencySamples, escalation: LatencySamples) -> CascadeLatency:
        """Combine what the two were measured at apart.

        Args:
            saver: the saver's part, on every frame.
            escalation: what an escalation takes on top of that.
        """
        return cls(saver, saver.plus(escalation))

    def at(self, escalation_rate: float) -> PooledLatency:
        """Return the latency when that share of the frames, 0..1, is escalated.

        Raises:
            InputError: the rate is no fraction.
        """
        return pooled(((self.saver, 1 - escalation_rate), (self.escalated, escalation_rate)))

    def largest_rate_for_mean(self, limit_ms: float) -> float | None:
        """Return the largest escalation rate whose mean keeps a limit; None where none does."""
        more = self.escalated.mean_ms - self.saver.mean_ms
        left = limit_ms - self.saver.mean_ms
        if left < 0:
            return 1.0 if self.escalated.mean_ms <= limit_ms and more < 0 else None
        return 1.0 if left >= more else left / more

    def largest_rate_for_quantile(self, q: float, limit_ms: float) -> float | None:
        """Return the largest escalation rate whose q quantile keeps a limit; None where none does.

        The quantile keeps it when ``(1 - p) F_saver + p F_escalated >= q``, each F being the share
        of samples within the limit.
        """
        saver, escalated = (
            one.share_within(limit_ms) + TOLERANCE / 2 for one in (self.saver, self.escalated)
        )
        if escalated >= q:
            return 1.0
        return None if saver < q else (saver - q) / (saver - escalated)


def cascade_latency(
    saver: LatencySamples, escalation: LatencySamples, escalation_rate: float
) -> PooledLatency:
    """Return the latency of a cascade of two models that were measured apart.

    For many rates of one pair make a `CascadeLatency` once: it adds the samples up once.

    Args:
        saver: the saver's part, on every frame.
        escalation: what an escalation takes on top of that.
        escalation_rate: share of the frames that is escalated, 0..1.

    Raises:
        InputError: the rate is no fraction.
    """
    return CascadeLatency.of(saver, escalation).at(escalation_rate)
