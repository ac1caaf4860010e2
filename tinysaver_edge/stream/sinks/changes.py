"""Changes: a source's class is announced once it holds still, not at every frame that differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tinysaver_edge.decision import Decision, Reason
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sources.source import Frame
from tinysaver_edge.stream.telemetry.events import Changed, Listener

if TYPE_CHECKING:
    from typing_extensions import Self

SURE = 0.9
"""Confidence from which one frame alone announces a class."""


class ChangeSink:
    """Tells a listener as `Changed` when a source shows another class, and keeps on showing it.

    A new class is announced after so many frames running that agree on it, or by one that is sure:
    whose answer is what the policy asks for, with a confidence of at least `sure`. An answer that
    is repeated counts as its frame's own. A provisional answer announces nothing: its revision
    does. Decisions themselves stay what they are.

    Args:
        hold: frames that must agree, at least 1.
        listener: hears of it.
        clock: seconds, for the events.
        sure: confidence from which one frame suffices, 0..1; above 1 none does.

    Raises:
        InputError: no frame would have to agree.
    """

    name = "changes"
    wants_frames = False

    def __init__(
        self, hold: int, *, listener: Listener, clock: Callable[[], float], sure: float = SURE
    ) -> None:
        if hold < 1:
            raise InputError(f"hold {hold}: at least 1 frame")
        self._hold, self._sure = hold, sure
        self._listener, self._clock = listener, clock
        self._announced: dict[str, str] = {}
        self._seen: dict[str, tuple[str, int]] = {}

    def write(self, decision: Decision, frame: Frame | None) -> bool | None:
        """Take one decision; announce what it settles."""
        if decision.reason is Reason.PROVISIONAL:
            return False
        source_id, label = decision.frame_id.source_id, decision.label
        before, count = self._seen.get(source_id, (label, 0))
        count = count + 1 if before == label else 1
        self._seen[source_id] = (label, count)
        announced = self._announced.get(source_id)
        certain = decision.degraded is None and decision.confidence >= self._sure
        if label == announced or not (certain or count >= self._hold):
            return None
        self._announced[source_id] = label
        self._listener(
            Changed(
                source_id,
                self._clock(),
                decision.frame_id.sequence,
                announced,
                label,
                decision.confidence,
                decision.source.value,
            )
        )
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass
