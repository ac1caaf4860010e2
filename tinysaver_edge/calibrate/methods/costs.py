"""What a saver and a large model cost together, at any escalation rate, in budgets' units."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tinysaver_edge.calibrate.problem import Answers
from tinysaver_edge.calibrate.targets import Budgets
from tinysaver_edge.errors import InputError
from tinysaver_edge.latency import CascadeLatency

_QUANTILES = {"p95_latency_ms": 0.95, "p99_latency_ms": 0.99}


@dataclass(frozen=True, slots=True)
class PairCosts:
    """The costs of one saver with the large model.

    Attributes:
        saver: the model that is asked on every frame.
        large: the model that is asked on the escalated ones.
        latency: of both, None where a model's is not known.
        memory_mb: what both add to the process, None where that is not known.
    """

    saver: Answers
    large: Answers
    latency: CascadeLatency | None
    memory_mb: float | None = None

    @classmethod
    def of(cls, saver: Answers, large: Answers) -> PairCosts:
        """Combine two models' costs: as timed together, else from what is known of each alone."""
        if (together := saver.with_large) is not None:
            return cls(saver, large, together.latency, together.memory_mb)
        latency = memory_mb = None
        if saver.latency is not None and large.latency is not None:
            latency = CascadeLatency.of(saver.latency, large.latency)
        if saver.memory_mb is not None and large.memory_mb is not None:
            memory_mb = saver.memory_mb + large.memory_mb
        return cls(saver, large, latency, memory_mb)

    def at(self, name: str, rate: float) -> float:
        """Return one of the quantities that `Budgets` limits, at an escalation rate.

        Raises:
            InputError: the quantity was not measured.
        """
        if name == "escalation_rate":
            return rate
        if name == "mean_macs":
            return self.saver.macs + rate * self.large.macs
        if name == "memory_mb":
            return self._known_memory_mb()
        pooled = self._known_latency(name).at(rate)
        return pooled.mean_ms if name == "mean_latency_ms" else pooled.quantile_ms(_QUANTILES[name])

    def alone(self, name: str) -> float:
        """Return the quantity for the large model alone on every frame.

        Raises:
            InputError: the quantity was not measured.
        """
        if name == "escalation_rate":
            return 1.0
        if name == "mean_macs":
            return self.large.macs
        if name == "memory_mb":
            return self._known_memory_mb()
        latency = self.large.latency
        if latency is None:
            raise self._unknown(name)
        return (
            latency.mean_ms if name == "mean_latency_ms" else latency.quantile_ms(_QUANTILES[name])
        )

    def largest_rate(self, name: str, limit: float) -> float | None:
        """Return the largest escalation rate that keeps a limit; None where none does.

        Raises:
            InputError: the quantity was not measured.
        """
        rate: float | None
        if name == "escalation_rate":
            rate = limit
        elif name == "mean_macs":
            rate = (limit - self.saver.macs) / self.large.macs
        elif name == "memory_mb":
            rate = 1.0 if self._known_memory_mb() <= limit else None
        elif name == "mean_latency_ms":
            rate = self._known_latency(name).largest_rate_for_mean(limit)
        else:
            rate = self._known_latency(name).largest_rate_for_quantile(_QUANTILES[name], limit)
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

    def _unknown(self, name: str) -> InputError:
        return InputError(
            f"{name}: there is no latency of {self.saver.name} with {self.large.name}; calibrate "
            f"with the model files, timed, or name a --device whose profile has them"
        )


def limits_of(budgets: Budgets) -> dict[str, float]:
    """Return the limits that are set, by name."""
    values = {one.name: getattr(budgets, one.name) for one in fields(budgets)}
    return {name: value for name, value in values.items() if value is not None}
