"""Latency as it was sampled: of one model, and of a cascade from the samples of its models.

A cascade's samples are pooled, at any share of escalated frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.errors import InputError

Samples = NDArray[np.float64]
"""Durations in milliseconds, ``(n,)``."""

PAIRS_OF = 256
"""Runs of each of two models that are paired with all of the other's; see `LatencySamples.plus`."""

TOLERANCE = 1e-9
"""Share of the total weight that rounding may cost: 0.95 of 100 samples is the 95th of them."""


class LatencySource(str, Enum):
    """Where figures come from.

    Attributes:
        MEASURED: timed on the machine at hand.
        PUBLISHED: taken from a device's profile; somebody else's word.
    """

    MEASURED = "measured"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True, eq=False)
class LatencySamples:
    """How long runs of one thing took, in the order they were made.

    A quantile is the least sample that at least that share of the samples does not exceed: always
    one that was seen.

    Attributes:
        samples_ms: at least one, finite, not negative.
        source: measured here, or published.

    Raises:
        InputError: there are no samples, or one is no duration.
    """

    samples_ms: Samples
    source: LatencySource = LatencySource.MEASURED

    def __post_init__(self) -> None:
        samples = np.array(self.samples_ms, np.float64).reshape(-1)
        if not samples.size or not np.isfinite(samples).all() or samples.min() < 0:
            raise InputError("latency needs at least one sample, each finite and 0 ms or more")
        samples.flags.writeable = False
        object.__setattr__(self, "samples_ms", samples)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LatencySamples):
            return NotImplemented
        return self.source is other.source and np.array_equal(self.samples_ms, other.samples_ms)

    def __hash__(self) -> int:
        return hash((self.source, self.samples_ms.tobytes()))

    def __len__(self) -> int:
        return len(self.samples_ms)

    @property
    def mean_ms(self) -> float:
        """The mean of the samples."""
        return float(self.samples_ms.mean())

    @property
    def median_ms(self) -> float:
        """The 0.5 quantile."""
        return self.quantile_ms(0.5)

    @property
    def p50_ms(self) -> float:
        """The 0.5 quantile."""
        return self.quantile_ms(0.5)

    @property
    def p90_ms(self) -> float:
        """The 0.9 quantile."""
        return self.quantile_ms(0.9)

    @property
    def p95_ms(self) -> float:
        """The 0.95 quantile."""
        return self.quantile_ms(0.95)

    @property
    def p99_ms(self) -> float:
        """The 0.99 quantile."""
        return self.quantile_ms(0.99)

    def quantile_ms(self, q: float) -> float:
        """Return the least sample that a share q of the samples does not exceed.

        Raises:
            InputError: q is outside 0..1.
        """
        ordered = np.sort(self.samples_ms)
        return quantile_of(ordered, np.arange(1, len(ordered) + 1) / len(ordered), q)

    def share_within(self, limit_ms: float) -> float:
        """Return the share of the samples that do not exceed a limit."""
        return float((self.samples_ms <= limit_ms).mean())

    def plus(self, other: LatencySamples) -> LatencySamples:
        """Return how long both take one after the other: the sums of all pairs of samples.

        Nothing says that a slow run of one meets a slow run of the other, so they are taken as
        independent. Where one has more than `PAIRS_OF` samples, the means of that many equal parts
        of the sorted samples stand for it, so that the mean stays what it is.
        """
        sums = np.add.outer(_at_most(self.samples_ms), _at_most(other.samples_ms))
        measured = {self.source, other.source} == {LatencySource.MEASURED}
        return LatencySamples(
            sums.reshape(-1), LatencySource.MEASURED if measured else LatencySource.PUBLISHED
        )

    def thinned(self, count: int) -> LatencySamples:
        """Return at most so many samples, ascending: means of equal parts of the sorted ones.

        The mean stays what it is, and so do the quantiles, but for the last few samples.
        """
        if len(self) <= count:
            return self
        return LatencySamples(_at_most(self.samples_ms, count), self.source)

    def summary(self) -> dict[str, Any]:
        """Return mean and quantiles as plain values for JSON, without the samples."""
        return {
            "source": self.source.value,
            "runs": len(self),
            "mean_ms": self.mean_ms,
            **{f"p{q}_ms": self.quantile_ms(q / 100) for q in (50, 90, 95, 99)},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values for JSON, the samples to the nanosecond."""
        samples = [round(float(sample), 6) for sample in self.samples_ms]
        return {**self.summary(), "samples_ms": samples}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LatencySamples:
        """Read what `to_dict` returned; only the samples and their source count.

        Raises:
            InputError: a field is missing or wrong.
        """
        try:
            return cls(np.array(values["samples_ms"], np.float64), LatencySource(values["source"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"latency samples cannot be read: {error!r}; measure anew") from error

    @classmethod
    def published(cls, mean_ms: float) -> LatencySamples:
        """Return a published figure as if it were the only run; its quantiles are itself."""
        return cls(np.array([mean_ms]), LatencySource.PUBLISHED)


def quantile_of(ordered: Samples, up_to: NDArray[np.float64], q: float) -> float:
    """Return the least of ascending samples that a share q of the weight does not exceed.

    Raises:
        InputError: q is outside 0..1.
    """
    if not 0 <= q <= 1:
        raise InputError(f"quantile {q}: must lie in 0..1")
    place = int(np.searchsorted(up_to, q - TOLERANCE))
    return float(ordered[min(place, len(ordered) - 1)])


def _at_most(samples: Samples, count: int = PAIRS_OF) -> Samples:
    """Return the samples, or the means of so many equal parts of the sorted samples."""
    if len(samples) <= count:
        return samples
    sums = np.concatenate([[0.0], np.cumsum(np.sort(samples))])
    edges = np.linspace(0, len(samples), count + 1)
    parts: Samples = np.diff(np.interp(edges, np.arange(len(sums)), sums)) * count / len(samples)
    return parts.clip(0)


def joined_samples(rounds: Sequence[LatencySamples]) -> LatencySamples:
    """Return several rounds of timing the same thing as one, at least one."""
    samples_ms = np.concatenate([one.samples_ms for one in rounds])
    return LatencySamples(samples_ms, rounds[0].source)


@dataclass(frozen=True, slots=True, eq=False)
class PooledLatency:
    """Latency over frames that take one of several ways, each with its share of the frames.

    Attributes:
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


def settled_shares(reached: Sequence[float]) -> tuple[float, ...]:
    """Return the share of the frames that each stage settles, of those that reach each later one.

    Upper bounds may cross: no more reach a stage than the one before it.
    """
    rates = np.minimum.accumulate((1.0, *reached))
    shares: list[float] = (rates - np.append(rates[1:], 0.0)).tolist()
    return tuple(shares)


@dataclass(frozen=True, slots=True, eq=False)
class CascadeLatency:
    """Latency of a saver and a large model at any escalation rate.

    Frames are taken to come in random order: a rate says of each frame, whatever came before it,
    how likely it is escalated.

    Attributes:
        saver: how long a frame takes that the saver answers.
        escalated: how long a frame takes that goes on to the large model, the saver included.
        saver_after: how long a frame takes that the saver answers right after one that was
            escalated, when the large model's weights have driven the saver's out of the caches;
            None where it was not told apart.
    """

    saver: LatencySamples
    escalated: LatencySamples
    saver_after: LatencySamples | None = None

    @classmethod
    def of(cls, saver: LatencySamples, escalation: LatencySamples) -> CascadeLatency:
        """Combine what the two were measured at apart.

        Args:
            saver: the saver's part, on every frame.
            escalation: what an escalation takes on top of that.
        """
        return cls(saver, saver.plus(escalation))

    @classmethod
    def joined(cls, rounds: Sequence[CascadeLatency]) -> CascadeLatency:
        """Return several rounds of timing the same pair as one, at least one."""
        after = [one.saver_after for one in rounds if one.saver_after is not None]
        return cls(
            joined_samples([one.saver for one in rounds]),
            joined_samples([one.escalated for one in rounds]),
            joined_samples(after) if after else None,
        )

    def at(self, escalation_rate: float) -> PooledLatency:
        """Return the latency when that share of the frames, 0..1, is escalated.

        Raises:
            InputError: the rate is no fraction.
        """
        p = escalation_rate
        if self.saver_after is None:
            return pooled(((self.saver, 1 - p), (self.escalated, p)))
        after = (self.saver_after, (1 - p) * p)
        return pooled(((self.saver, (1 - p) * (1 - p)), after, (self.escalated, p)))

    def mean_ms(self, escalation_rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean at each of several rates, of the same shape."""
        saver, after, escalated = (one.mean_ms for one in (self.saver, self._after, self.escalated))
        p = escalation_rates
        means: NDArray[np.float64] = (1 - p) ** 2 * saver + (1 - p) * p * after + p * escalated
        return means

    def largest_rate_for_mean(self, limit_ms: float) -> float | None:
        """Return the largest rate up to which the mean keeps a limit; None where not even 0 does.

        The mean is ``(1 - p)² saver + (1 - p) p saver_after + p escalated``.
        """
        means = (one.mean_ms for one in (self.saver, self._after, self.escalated))
        return _largest_rate(*(limit_ms - mean for mean in means))

    def largest_rate_for_quantile(self, q: float, limit_ms: float) -> float | None:
        """Return the largest rate up to which the q quantile keeps a limit; None where not even 0.

        The quantile keeps it while ``(1 - p)² F_saver + (1 - p) p F_after + p F_escalated >= q``,
        each F being the share of samples within the limit.
        """
        ways = (self.saver, self._after, self.escalated)
        shares = (one.share_within(limit_ms) + TOLERANCE / 2 for one in ways)
        return _largest_rate(*(share - q for share in shares))

    @property
    def _after(self) -> LatencySamples:
        return self.saver if self.saver_after is None else self.saver_after

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values for JSON."""
        after = None if self.saver_after is None else self.saver_after.to_dict()
        return {
            "saver": self.saver.to_dict(),
            "escalated": self.escalated.to_dict(),
            "saver_after": after,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CascadeLatency:
        """Read what `to_dict` returned.

        Raises:
            InputError: a field is missing or wrong.
        """
        try:
            after = values["saver_after"]
            return cls(
                LatencySamples.from_dict(values["saver"]),
                LatencySamples.from_dict(values["escalated"]),
                None if after is None else LatencySamples.from_dict(after),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"latency of a cascade cannot be read: {error!r}") from error


def _largest_rate(saver: float, after: float, escalated: float) -> float | None:
    """Return the largest p with ``(1 - r)² saver + (1 - r) r after + r escalated >= 0``, r <= p."""
    if saver < 0:
        return None
    square, linear = saver - after, after + escalated - 2 * saver
    # The first root above 0, in the form that loses no digits; none where it never turns negative.
    inside = linear * linear - 4 * square * saver
    if inside < 0:
        return 1.0
    under = -(linear + math.copysign(math.sqrt(inside), linear)) / 2
    roots = [under / square] if square else []
    roots += [saver / under] if under else []
    falling = [one for one in roots if one >= 0 and (2 * square * one + linear, square) < (0, 0)]
    return min([*falling, 1.0])
