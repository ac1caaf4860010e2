"""What is asked of a calibration: how much may be lost, what it may cost, and by which method."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from enum import Enum

from tinysaver_edge.errors import InputError

DEFAULT_MAX_DROP_POINTS = 0.5
"""Points that may be lost where neither a drop nor a budget is named."""


class Method(str, Enum):
    """How a threshold is found.

    Attributes:
        EMPIRICAL: the loosest threshold whose drop on the calibration samples is within the bound.
            It promises nothing about other samples.
        TINYSAVER: the paper's rule, to the letter (arXiv 2403.17726).
    """

    EMPIRICAL = "empirical"
    TINYSAVER = "tinysaver"


class Objective(str, Enum):
    """What is best among the cascades that keep every limit.

    Attributes:
        MACS: the least expected MACs a frame.
        ACCURACY: the highest accuracy.
    """

    MACS = "macs"
    ACCURACY = "accuracy"


@dataclass(frozen=True, slots=True)
class Budgets:
    """Limits on what a cascade may cost; None where there is none.

    Attributes:
        mean_macs: expected multiply-accumulates a frame.
        escalation_rate: share of frames that reach the large model, 0..1.
    """

    mean_macs: float | None = None
    escalation_rate: float | None = None

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"budget {limit.name}={value}: must be a number above 0")

    @classmethod
    def parse(cls, texts: tuple[str, ...]) -> Budgets:
        """Read ``NAME=NUMBER`` as the command line gives it; ``mean_flops`` is 2 × MACs.

        Raises:
            InputError: the name is unknown, named twice, or the number is none.
        """
        values: dict[str, float] = {}
        for text in texts:
            name, _, number = text.partition("=")
            name = name.strip()
            try:
                value = float(number)
            except ValueError:
                raise InputError(
                    f"budget {text!r}: expected NAME=NUMBER, for example mean_macs=60e6"
                ) from None
            if name == "mean_flops":
                name, value = "mean_macs", value / 2
            known = [limit.name for limit in fields(cls)]
            if name not in known:
                raise InputError(
                    f"budget {name!r} is unknown: there are {', '.join(known)} and mean_flops"
                )
            if name in values:
                raise InputError(f"budget {name} is given twice")
            values[name] = value
        return cls(**values)

    @property
    def any(self) -> bool:
        """Whether there is any limit."""
        return any(getattr(self, limit.name) is not None for limit in fields(self))


@dataclass(frozen=True, slots=True)
class Targets:
    """All that is asked of a calibration.

    Attributes:
        method: how thresholds are found.
        max_drop_points: points that may be lost; where it is None, 0.5 unless there are budgets.
        budgets: limits on cost.
        objective: what is best; None takes accuracy where there are budgets, else MACs.
    """

    method: Method = Method.EMPIRICAL
    max_drop_points: float | None = None
    budgets: Budgets = field(default_factory=Budgets)
    objective: Objective | None = None

    def __post_init__(self) -> None:
        drop = self.max_drop_points
        if drop is not None and not (math.isfinite(drop) and 0 <= drop <= 100):
            raise InputError(f"--max-drop {drop}: a number of points from 0 to 100")

    @property
    def allowed_drop_points(self) -> float | None:
        """The bound on the drop in force, or None where only budgets limit."""
        if self.max_drop_points is None and not self.budgets.any:
            return DEFAULT_MAX_DROP_POINTS
        return self.max_drop_points

    @property
    def aim(self) -> Objective:
        """The objective in force."""
        if self.objective is not None:
            return self.objective
        return Objective.ACCURACY if self.budgets.any else Objective.MACS
