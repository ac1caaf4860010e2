"""Samples: how long runs of one thing took, and their quantiles."""

from __future__ import annotations

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
