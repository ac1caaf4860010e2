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
        latency: of both, None where a model's was not measured.
    """

    saver: Answers
    large: Answers
    latency: CascadeLatency | None

    @classmethod
    def of(cls, saver: Answers, large: Answers) -> PairCosts:
        """Combine two models' costs."""
        both = None
        if saver.latency is not None and large.latency is not None:
            both = CascadeLatency.of(saver.latency, large.latency)
        return cls(saver, large, both)

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
            return self._memory_mb()
        pooled = self._measured(name).at(rate)
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
            return self._memory_mb()
        self._measured(name)
        assert self.large.latency is not None
        if name == "mean_latency_ms":
            return self.large.latency.mean_ms
        return self.large.latency.quantile_ms(_QUANTILES[name])

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
            rate = 1.0 if self._memory_mb() <= limit else None
        elif name == "mean_latency_ms":
            rate = self._measured(name).largest_rate_for_mean(limit)
        else:
            rate = self._measured(name).largest_rate_for_quantile(_QUANTILES[name], limit)
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

    def _measured(self, name: str) -> CascadeLatency:
        if self.latency is None:
            raise InputError(
                f"budget {name}: there is no latency of {self.saver.name} and {self.large.name}; "
                f"calibrate with the model files, or name a --device whose profile has them"
            )
        return self.latency

    def _memory_mb(self) -> float:
        if self.saver.memory_mb is None or self.large.memory_mb is None:
            raise InputError(
                f"budget memory_mb: the memory of {self.saver.name} and {self.large.name} was not "
                f"measured; calibrate with the model files"
            )
        return self.saver.memory_mb + self.large.memory_mb


def limits_of(budgets: Budgets) -> dict[str, float]:
    """Return the limits that are set, by name."""
    values = {one.name: getattr(budgets, one.name) for one in fields(budgets)}
    return {name: value for name, value in values.items() if value is not None}
