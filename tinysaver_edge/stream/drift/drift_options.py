"""How to watch for drift, and what a watch has seen: values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tinysaver_edge.errors import InputError


class Action(str, Enum):
    """What an alarm leads to.

    Attributes:
        WARN: nothing but the event and the metric.
        RAISE: the next stricter threshold of the bundle, at each alarm; after the last, ESCALATE.
        ESCALATE: the saver accepts nothing any more.
    """

    WARN = "warn"
    RAISE = "raise"
    ESCALATE = "escalate"


@dataclass(frozen=True, slots=True)
class DriftOptions:
    """How to watch.

    Attributes:
        share: of the accepted frames that are audited, 0..1.
        level: bound on the probability that an alarm is ever raised while the field is as it was
            calibrated.
        action: what an alarm leads to.
        seed: decides which frames are audited.

    Raises:
        InputError: share or level is out of range.
    """

    share: float = 0.01
    level: float = 0.05
    action: Action = Action.RAISE
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"audit share {self.share}: must be above 0 and at most 1")
        if not 0 < self.level < 1:
            raise InputError(f"drift level {self.level}: must be within 0..1")


DEFAULT_DRIFT = DriftOptions()


@dataclass(frozen=True, slots=True)
class DriftState:
    """What a drift watch has seen of its sources together.

    Attributes:
        audited: frames that were audited.
        disagreed: how many of them the large model answered otherwise.
        promised: rate of disagreement that is tested against, 0..1.
        evidence: largest value of the e-processes, relative to the alarm: 1 is the alarm.
        alarms: how many were raised.
        threshold: the stricter threshold in force; None while it is the bundle's own.
        accepting: whether the saver may still accept anything.
        last_alarm: what raised the last alarm, in words; None while there was none. The sums above
            are of all sources, and of all that was audited since.
    """

    audited: int
    disagreed: int
    promised: float
    evidence: float
    alarms: int
    threshold: float | None
    accepting: bool
    last_alarm: str | None = None
