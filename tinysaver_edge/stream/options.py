"""How a stream escalates, and how much it may hold at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from tinysaver_edge.errors import InputError
from tinysaver_edge.reuse import ReuseRule

LIVE_DEADLINE_MS = 1000.0
"""Deadline of live sources where none is given: what comes later is of no use, or never comes."""


@dataclass(frozen=True, slots=True)
class CameraPreset:
    """What suits one kind of camera, for whoever has calibrated nothing for it.

    Attributes:
        reuse: when earlier answers are repeated, where the bundle does not say; not certified.
        hold: frames that must agree before another class is announced.
    """

    reuse: ReuseRule
    hold: int


PRESETS: Mapping[str, CameraPreset] = MappingProxyType(
    {
        "static-camera": CameraPreset(ReuseRule(still=2.0, same=0.1), hold=3),
        "moving-camera": CameraPreset(ReuseRule(still=0.5, same=0.1), hold=5),
    }
)
"""Of a camera that rests, what it sees changes here and there; of one that moves, all of it."""


class Escalation(str, Enum):
    """What happens to a frame that the saver is unsure about.

    Attributes:
        WAIT: one final decision a frame, in order; frames behind it wait for it.
        REVISE: the saver's answer at once, and a second decision on the same frame, with
            ``revision`` 1, when the large model has answered or will not.
        LOCAL: the saver's answer; the large model is never asked.
    """

    WAIT = "wait"
    REVISE = "revise"
    LOCAL = "local"


MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the large model may be asked about one source, audits included.

    Attributes:
        pause_s: least time between two times.
        a_minute: in any 60 seconds; None for no limit.
    """

    pause_s: float = 0.0
    a_minute: int | None = None

    def allows(self, asked_s: deque[float], now_s: float) -> bool:
        """Whether it may be asked now, by the times when it was, oldest first; forgets old ones."""
        keep_s = max(self.pause_s, MINUTE_S)
        while asked_s and now_s - asked_s[0] >= keep_s:
            asked_s.popleft()
        soon = bool(asked_s) and now_s - asked_s[-1] < self.pause_s
        recent = sum(now_s - one < MINUTE_S for one in asked_s) if self.a_minute is not None else 0
        return not soon and (self.a_minute is None or recent < self.a_minute)

    @property
    def limits(self) -> bool:
        """Whether there is any limit."""
        return self.pause_s > 0 or self.a_minute is not None

    def __str__(self) -> str:
        told = []
        if self.pause_s > 0:
            told.append(f"once in {self.pause_s:g} s")
        if self.a_minute is not None:
            told.append(f"{self.a_minute} times a minute")
        return " and ".join(told)


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream escalates, and how much it may hold at once.

    Attributes:
        escalation: wait, revise or local.
        deadline_ms: how long after a frame was taken its final decision may come; then the saver's
            answer goes out, degraded. None gives live sources `LIVE_DEADLINE_MS`, and files and
            iterables all the time they take: they then run at the large model's pace, and no
            frame is degraded for want of time or room.
        max_in_flight: frames that wait for the large model at once, of all sources. Beyond it, the
            saver's answer goes out, degraded; files without a deadline wait instead.
        window: frames of one source that are read but not given out.
        together: frames of several sources that the saver is asked about at once, where so many
            wait: 1, 2 or 4. None times all three when a stream of several sources starts, and
            takes the quickest.
        min_time_between_escalations_s: of one source; frames that come sooner get the saver's
            answer, degraded.
        escalations_per_minute: of one source, in any 60 seconds, audits included; None for no
            limit.

    Raises:
        InputError: a figure is out of range.
    """

    escalation: Escalation = Escalation.WAIT
    deadline_ms: float | None = None
    max_in_flight: int = 4
    window: int = 64
    together: int | None = None
    min_time_between_escalations_s: float = 0.0
    escalations_per_minute: int | None = None

    def __post_init__(self) -> None:
        if self.deadline_ms is not None and not self.deadline_ms > 0:
            raise InputError(f"deadline_ms {self.deadline_ms}: must be above 0")
        if self.max_in_flight < 1:
            raise InputError(f"max_in_flight {self.max_in_flight}: must be at least 1")
        pause_s, a_minute = self.min_time_between_escalations_s, self.escalations_per_minute
        if not 0 <= pause_s < float("inf"):
            raise InputError(f"min_time_between_escalations_s {pause_s}: must be at least 0")
        if a_minute is not None and a_minute < 1:
            raise InputError(
                f"escalations_per_minute {a_minute}: must be at least 1; escalation 'local' never "
                "asks the large model"
            )
        if self.window < 1:
            raise InputError(f"window {self.window}: must be at least 1")
        if self.together not in (None, 1, 2, 4):
            raise InputError(f"together {self.together}: must be 1, 2 or 4, or None to find out")

    def deadline_s(self, *, live: bool) -> float | None:
        """Return the deadline of a source, in seconds after a frame was taken; None for none."""
        milliseconds = LIVE_DEADLINE_MS if self.deadline_ms is None and live else self.deadline_ms
        return None if milliseconds is None else milliseconds / 1e3


def escalation_from(value: Escalation | str) -> Escalation:
    """Return an escalation by its name.

    Raises:
        InputError: there is none of that name.
    """
    try:
        return Escalation(value)
    except ValueError as error:
        names = ", ".join(one.value for one in Escalation)
        raise InputError(f"escalation {value!r}: expected one of {names}") from error
