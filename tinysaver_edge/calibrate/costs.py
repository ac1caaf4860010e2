"""What a cascade costs: MACs, times, memory and energy together, and what keeps a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinysaver_edge.calibrate.problem import ModelAnswers
from tinysaver_edge.calibrate.targets import Budgets, limits_of
from tinysaver_edge.errors import InputError
from tinysaver_edge.latency import (
    CascadeLatency,
    LatencySamples,
    PooledLatency,
    pooled,
    settled_shares,
)
from tinysaver_edge.outputs import FloatArray

_QUANTILES = {"p95_latency_ms": 0.95, "p99_latency_ms": 0.99}


@dataclass(frozen=True, slots=True)
class CascadeCosts:
    """The costs of one saver, or of several in turn, with the large model.

    Rates are the shares of the frames that reach the second stage, the third, and so on: of two
    stages one number, the escalation rate. Where answers are reused, the share that reaches the
    first stage comes before them.

    Attributes:
        saver: the model that is asked on every frame.
        large: the model that is asked on those that no other settles.
        latency: of both, None where a model's is not known or others stand between them.
        memory_mb: what all add to the process, None where that is not known.
        rounds: as for `PairTiming`.
        between: the models asked after the saver and before the large one, in order.
        ways: how long a frame takes that each of the stages settles, where some stand between;
            before them, where answers are reused, one that is found still.
        reuses: whether answers are reused, so that the first model is not asked on every frame.
    """

    saver: ModelAnswers
    large: ModelAnswers
    latency: CascadeLatency | None
    memory_mb: float | None = None
    rounds: tuple[CascadeLatency, ...] = ()
    between: tuple[ModelAnswers, ...] = ()
    ways: tuple[LatencySamples, ...] | None = None
    reuses: bool = False

    def reusing(self, look: LatencySamples | None) -> CascadeCosts:
        """Return the costs where answers are reused from frame to frame.

        Args:
            look: how long a frame takes that is found still; None counts it as one that the first
                model answers, which takes longer.
        """
        ways = self.ways
        if self.latency is not None:
            ways = (self.latency.saver, self.latency.escalated)
        if ways is not None:
            ways = (ways[0] if look is None else look, *ways)
        return replace(self, latency=None, rounds=(), ways=ways, reuses=True)

    @classmethod
    def of(
        cls, saver: ModelAnswers, large: ModelAnswers, between: tuple[ModelAnswers, ...] = ()
    ) -> CascadeCosts:
        """Combine models' costs: of two as timed together, else from what is known of each."""
        if between:
            early = (saver, *between)
            return cls(
                saver,
                large,
                latency=None,
                memory_mb=_memory_of(early, large),
                between=between,
                ways=_ways_of(early, large),
            )
        if (together := saver.with_large) is not None:
            return cls(saver, large, together.latency, together.memory_mb, together.rounds)
        latency = memory_mb = None
        if saver.latency is not None and large.latency is not None:
            latency = CascadeLatency.of(saver.latency, large.latency)
        if saver.memory_mb is not None and large.memory_mb is not None:
            memory_mb = saver.memory_mb + large.memory_mb
        return cls(saver, large, latency, memory_mb)

    @property
    def later(self) -> tuple[ModelAnswers, ...]:
        """All models but the first, in order."""
        return (*self.between, self.large)

    @property
    def timed(self) -> bool:
        """Whether it is known how long a frame takes."""
        return self.latency is not None or self.ways is not None

    def at(self, name: str, *rates: float) -> float:
        """Return one of the quantities that `Budgets` limits, at an escalation rate for each model.

        Raises:
            InputError: the quantity was not measured, or is none that is budgeted.
        """
        Budgets.check_name(name)
        if name == "escalation_rate":
            return rates[-1]
        if name == "mean_macs":
            reached = rates if self.reuses else (1.0, *rates)
            asked = zip((self.saver, *self.later), reached, strict=True)
            return sum(rate * model.macs for model, rate in asked)
        if name == "memory_mb":
            return self._known_memory_mb()
        if name == "uplink_kbit":
            return rates[-1] * self._known_kbit()
        if name == "mean_energy_mj":
            # What looking takes is not known: a frame found still counts as if it were asked about.
            asked = zip(self.later, rates[-len(self.later) :], strict=True)
            first = self._known_mj(self.saver)
            return first + sum(rate * self._known_mj(model) for model, rate in asked)
        pooled = self.latency_at(*rates, name=name)
        return pooled.mean_ms if name == "mean_latency_ms" else pooled.quantile_ms(_QUANTILES[name])

    def latency_at(self, *rates: float, name: str = "latency") -> PooledLatency:
        """Return how long frames take, from samples of each way that they may go.

        Raises:
            InputError: it was not measured.
        """
        if self.ways is None:
            return self._known_latency(name).at(rates[-1])
        return pooled(tuple(zip(self.ways, settled_shares(rates), strict=True)))

    def worth(self, name: str, limit: float) -> tuple[FloatArray, float]:
        """Return what a frame counts that goes each of the ways, and what the mean must not exceed.

        Where answers are reused: one that is found still, one that each stage settles.

        Raises:
            InputError: the quantity was not measured, or is none that is budgeted.
        """
        Budgets.check_name(name)
        models = (self.saver, *self.later)
        if name == "escalation_rate":
            return np.array([0.0] * len(models) + [1.0]), limit
        if name == "mean_macs":
            return np.cumsum([0.0, *(one.macs for one in models)]), limit
        if name == "memory_mb":
            return np.full(len(models) + 1, self._known_memory_mb()), limit
        if name == "uplink_kbit":
            return np.array([0.0] * len(models) + [self._known_kbit()]), limit
        if name == "mean_energy_mj":  # see `at`
            each = np.cumsum([self._known_mj(one) for one in models])
            return np.concatenate((each[:1], each)), limit
        if self.ways is None:
            raise self._unknown(name)
        if name == "mean_latency_ms":
            return np.array([one.mean_ms for one in self.ways]), limit
        # A quantile keeps a limit where no more than the rest takes longer.
        beyond = np.array([1.0 - one.share_within(limit) for one in self.ways])
        return beyond, 1.0 - _QUANTILES[name]

    def alone(self, name: str) -> float:
        """Return the quantity for the large model alone on every frame.

        Raises:
            InputError: the quantity was not measured, or is none that is budgeted.
        """
        Budgets.check_name(name)
        if name == "escalation_rate":
            return 1.0
        if name == "mean_macs":
            return self.large.macs
        if name == "memory_mb":
            return self._known_memory_mb()
        if name == "uplink_kbit":
            return self._known_kbit()
        if name == "mean_energy_mj":
            return self._known_mj(self.large)
        latency = self.large.latency
        if latency is None:
            raise self._unknown(name)
        return (
            latency.mean_ms if name == "mean_latency_ms" else latency.quantile_ms(_QUANTILES[name])
        )

    def largest_rate(self, name: str, limit: float) -> float | None:
        """Return the largest escalation rate that keeps a limit; None where none does.

        A limit of time is kept where one round of timing keeps it: what lies within the spread of
        the rounds is not ruled out.

        Raises:
            InputError: the quantity was not measured, or is none that is budgeted.
        """
        Budgets.check_name(name)
        rate: float | None
        if name == "escalation_rate":
            rate = limit
        elif name == "mean_macs":
            rate = (limit - self.saver.macs) / self.large.macs
        elif name == "uplink_kbit":
            rate = limit / self._known_kbit()
        elif name == "mean_energy_mj":
            rate = (limit - self._known_mj(self.saver)) / self._known_mj(self.large)
        elif name == "memory_mb":
            rate = 1.0 if self._known_memory_mb() <= limit else None
        else:
            looks = (self._known_latency(name), *self.rounds)
            rates = [_largest_rate_in(one, name, limit) for one in looks]
            rate = max((one for one in rates if one is not None), default=None)
        return None if rate is None or rate < 0 else min(rate, 1.0)

    def rate_within(self, budgets: Budgets) -> float | None:
        """Return the largest escalation rate that keeps every limit; None where none does."""
        rate = 1.0
        for name, limit in limits_of(budgets).items():
            allowed = self.largest_rate(name, limit)
            if allowed is None:
                return None
            rate = min(rate, allowed)
        return rate

    def mean_spread_ms(self, rate: float) -> tuple[float, float] | None:
        """Return the least and the greatest mean of the rounds at a rate; None without rounds."""
        means = [one.at(rate).mean_ms for one in self.rounds]
        return (min(means), max(means)) if means else None

    def _known_latency(self, name: str) -> CascadeLatency:
        if self.latency is None:
            raise self._unknown(name)
        return self.latency

    def _known_memory_mb(self) -> float:
        if self.memory_mb is None:
            raise InputError(
                f"budget memory_mb: the memory of {self.saver.name} and {self.large.name} was not "
                f"measured; calibrate with the model files, timed on a system that tells"
            )
        return self.memory_mb

    def _known_kbit(self) -> float:
        if self.large.sent_bytes is None:
            raise InputError(
                f"budget uplink_kbit: nobody knows what is sent of a frame to {self.large.name}; "
                "calibrate with the model files on images"
            )
        return self.large.sent_bytes * 8 / 1e3

    @staticmethod
    def _known_mj(model: ModelAnswers) -> float:
        if model.energy_mj is None:
            raise InputError(
                f"budget mean_energy_mj: nobody knows what a frame takes {model.name}; bench it "
                "where a counter of energy tells and name the report with --bench, or name a "
                "--device whose profile has power_w, and if that is another machine, a report of it"
            )
        return model.energy_mj

    def _unknown(self, name: str) -> InputError:
        return InputError(
            f"{name}: there is no latency of {self.saver.name} with {self.large.name}; time them "
            "(calibrate on images, or measure, without --no-timing), or name a --device whose "
            "profile has them"
        )


def _memory_of(early: Sequence[ModelAnswers], large: ModelAnswers) -> float | None:
    """Return what models add to a process together, None where one's part is not known."""
    if large.memory_mb is None:
        return None
    parts = [
        one.memory_mb
        if one.with_large is None or one.with_large.memory_mb is None
        else one.with_large.memory_mb - large.memory_mb
        for one in early
    ]
    return None if None in parts else large.memory_mb + sum(max(0.0, one or 0.0) for one in parts)


def _ways_of(
    early: Sequence[ModelAnswers], large: ModelAnswers
) -> tuple[LatencySamples, ...] | None:
    """Return how long a frame takes that each stage settles: every stage asked adds its own."""
    ways: list[LatencySamples] = []
    for one in (*(model.alone for model in early), large.latency):
        if one is None:
            return None
        ways.append(ways[-1].plus(one) if ways else one)
    return tuple(ways)


def _largest_rate_in(latency: CascadeLatency, name: str, limit: float) -> float | None:
    if name == "mean_latency_ms":
        return latency.largest_rate_for_mean(limit)
    return latency.largest_rate_for_quantile(_QUANTILES[name], limit)
