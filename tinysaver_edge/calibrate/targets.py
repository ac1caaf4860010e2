"""What is asked of a calibration: how much may be lost, what it may cost, and by which method."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from types import MappingProxyType

from tinysaver_edge.errors import InputError

DEFAULT_MAX_DROP_POINTS = 0.5
"""Points that may be lost where nothing else is said; no budget takes this away."""

DEFAULT_MAX_STAGES = 3
"""Models that a cascade may have where nothing else is said."""

MOST_STAGES = 4
"""Models that it may have at all."""

BUDGET_UNITS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "mean_macs": ("MACs", "60e6"),
        "mean_latency_ms": ("milliseconds", "5"),
        "p95_latency_ms": ("milliseconds", "5"),
        "p99_latency_ms": ("milliseconds", "5"),
        "escalation_rate": ("0 to 1", "0.3"),
        "memory_mb": ("MiB", "200"),
        "mean_energy_mj": ("millijoules", "15"),
        "uplink_kbit": ("kilobits", "40"),
        "mean_flops": ("FLOPs (2 × MACs)", "120e6"),
    }
)
"""What a budget may limit: the unit, and an example."""

ALL = "all"
"""As a score or fusion: try every one there is."""


class Method(str, Enum):
    """How a threshold is found.

    Attributes:
        CERTIFIED: the loosest threshold whose drop is within the bound with the confidence asked
            for, on whatever the samples were drawn from.
        EMPIRICAL: the loosest threshold whose drop on the calibration samples is within the bound.
            It promises nothing about other samples.
        TINYSAVER: the paper's rule, to the letter (arXiv 2403.17726).
        CRC: conformal risk control (arXiv 2208.02814): the bound holds on average.
        LTT_HB: Learn then Test with Hoeffding-Bentkus p-values (arXiv 2110.01052).
    """

    CERTIFIED = "certified"
    EMPIRICAL = "empirical"
    TINYSAVER = "tinysaver"
    CRC = "crc"
    LTT_HB = "ltt-hb"


class Objective(str, Enum):
    """What is best among the cascades that keep every limit.

    Attributes:
        MACS: the least expected MACs a frame.
        LATENCY: the least mean latency.
        ACCURACY: the highest accuracy.
    """

    MACS = "macs"
    LATENCY = "latency"
    ACCURACY = "accuracy"


class Reference(str, Enum):
    """Whose answer is taken for the right one.

    Attributes:
        LABELS: the labels'.
        LARGE: the large model's, where there are no labels: the promise is consistency with it.
        QUESTIONS: people's, who are asked only where answers differ (docs/questions.md).
    """

    LABELS = "labels"
    LARGE = "large"
    QUESTIONS = "questions"


@dataclass(frozen=True, slots=True)
class Budgets:
    """Limits on what a cascade may cost; None where there is none.

    Attributes:
        mean_macs: expected multiply-accumulates a frame.
        mean_latency_ms: mean time to decide a frame.
        p95_latency_ms: time within which 95 % of the frames are decided.
        p99_latency_ms: time within which 99 % of the frames are decided.
        escalation_rate: share of frames that reach the large model, 0..1.
        memory_mb: what the models add to the process.
        mean_energy_mj: mean energy a frame takes, what the machine idles away meanwhile included.
        uplink_kbit: what is sent of a frame on average, the large model being on another host; at
            ``f`` frames a second a camera takes ``f`` times as many kbit/s.

    Raises:
        InputError: a field is out of its range, or does not fit another; the message names it.
    """

    mean_macs: float | None = None
    mean_latency_ms: float | None = None
    p95_latency_ms: float | None = None
    p99_latency_ms: float | None = None
    escalation_rate: float | None = None
    memory_mb: float | None = None
    mean_energy_mj: float | None = None
    uplink_kbit: float | None = None

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
            if name not in BUDGET_UNITS:
                near = difflib.get_close_matches(name, BUDGET_UNITS, n=1)
                hint = f"did you mean {near[0]}? T" if near else "t"
                raise InputError(
                    f"budget {name!r} is unknown: {hint}here are {', '.join(BUDGET_UNITS)}"
                )
            try:
                value = float(number)
            except ValueError:
                unit, example = BUDGET_UNITS[name]
                raise InputError(
                    f"budget {text!r}: expected NAME=NUMBER, a plain number of {unit}, as "
                    f"{name}={example}"
                ) from None
            if name == "escalation_rate" and 1 < value < math.inf:
                raise InputError(f"budget {text}: a share of frames from 0 to 1, as 0.3 for 30 %")
            if name == "mean_flops":
                name, value = "mean_macs", value / 2
            if name in values:
                raise InputError(f"budget {name} is given twice")
            values[name] = value
        return cls(**values)

    @classmethod
    def check_name(cls, name: str) -> None:
        """Refuse the name of what no budget limits.

        Raises:
            InputError: naming what there is.
        """
        known = [one.name for one in fields(cls)]
        if name not in known:
            raise InputError(f"budget {name!r} is unknown: there are {', '.join(known)}")

    def over(self, defaults: Mapping[str, float]) -> Budgets:
        """Return these limits, and a device's where there is none.

        Raises:
            InputError: a limit of the device is unknown.
        """
        known = {limit.name for limit in fields(self)}
        unknown = sorted(set(defaults) - known)
        if unknown:
            raise InputError(f"budget {unknown[0]!r} of the device is unknown")
        own = {name: getattr(self, name) for name in known if getattr(self, name) is not None}
        return Budgets(**{**defaults, **own})

    @property
    def needs_latency(self) -> bool:
        """Whether a limit is one of time."""
        times = (self.mean_latency_ms, self.p95_latency_ms, self.p99_latency_ms)
        return any(limit is not None for limit in times)

    @property
    def any(self) -> bool:
        """Whether there is any limit."""
        return any(getattr(self, limit.name) is not None for limit in fields(self))


def limits_of(budgets: Budgets) -> dict[str, float]:
    """Return the limits that are set, by name."""
    values = {one.name: getattr(budgets, one.name) for one in fields(budgets)}
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Targets:
    """All that is asked of a calibration.

    Attributes:
        method: how thresholds are found.
        max_drop_points: points that may be lost; None leaves the decision to the budgets alone, and
            is 0.5 where there are none.
        budgets: limits on cost.
        objective: what is best; None takes the least MACs, accuracy where nothing bounds the drop.
        confidence: 1 - δ, how surely the bound is kept, for methods that promise it.
        reference: whose answer is the right one.
        score: name of the score, or ``"all"`` to try every one; None leaves it to the method.
        fusion: name of the fusion, likewise.
        max_stages: how many models a cascade may have, the large one included.

    Raises:
        InputError: a field is out of its range, or does not fit another; the message names it.
    """

    method: Method = Method.CERTIFIED
    max_drop_points: float | None = DEFAULT_MAX_DROP_POINTS
    budgets: Budgets = field(default_factory=Budgets)
    objective: Objective | None = None
    confidence: float = 0.9
    reference: Reference = Reference.LABELS
    score: str | None = None
    fusion: str | None = None
    max_stages: int = DEFAULT_MAX_STAGES

    def __post_init__(self) -> None:
        if not 2 <= self.max_stages <= MOST_STAGES:
            raise InputError(f"--max-stages {self.max_stages}: a number from 2 to {MOST_STAGES}")
        if self.reference is Reference.QUESTIONS:
            self._check_askable()
        if not 0 < self.confidence < 1:
            raise InputError(
                f"--confidence {self.confidence}: a probability between 0 and 1, as 0.9 for 90 %"
            )
        drop = self.max_drop_points
        if drop is not None and not (math.isfinite(drop) and 0 <= drop <= 100):
            raise InputError(f"--max-drop {drop}: a number of points from 0 to 100")

    def _check_askable(self) -> None:
        """Refuse what takes labels of all samples, where people are asked about some."""
        if self.method is not Method.CERTIFIED:
            raise InputError(f"--method {self.method.value} needs labels: questions certify")
        if self.score == ALL:
            raise InputError("--score all needs labels to choose by: name a score, or leave it out")

    @property
    def allowed_drop_points(self) -> float | None:
        """The bound on the drop in force, or None where only budgets limit."""
        if self.max_drop_points is None and not self.budgets.any:
            return DEFAULT_MAX_DROP_POINTS
        return self.max_drop_points

    @property
    def searches(self) -> bool:
        """Whether the score or the fusion is to be searched for, by labels."""
        return self.reference is not Reference.QUESTIONS and ALL in (self.score, self.fusion)

    @property
    def risk(self) -> float:
        """δ, one minus the confidence."""
        return round(1 - self.confidence, 12)

    @property
    def needs_latency(self) -> bool:
        """Whether a choice can only be made from measured latency."""
        return self.budgets.needs_latency or self.objective is Objective.LATENCY

    @property
    def aim(self) -> Objective:
        """The objective in force."""
        if self.objective is not None:
            return self.objective
        return Objective.ACCURACY if self.allowed_drop_points is None else Objective.MACS
