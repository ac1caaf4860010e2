"""One frame on its way through the dispatcher."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinysaver_edge.deciding.verdict import Case
from tinysaver_edge.decision import Decision
from tinysaver_edge.preprocess import Batch
from tinysaver_edge.stream.sources.frame import Frame

if TYPE_CHECKING:
    from tinysaver_edge.stream.lane import Lane


@dataclass(slots=True, eq=False)
class Item:
    """One frame on its way.

    Attributes:
        lane: where it belongs.
        case: what is known of it.
        arrived_s: when it was taken, or read from a file, on the stream's clock.
        due_s: when its decision must be out; infinity for never.
        batch: input of the first stage asked; None once that has answered.
        prepared: input of later stages, by position, where it is made already.
        frame: the frame with its picture, where a sink or a later stage wants it.
        shown: whether sinks get the frame.
        saved_s: when the first stage had answered.
        stand_in: the saver's answer, to go out if the large model's does not come.
        decision: what is given out in the lane's order; None while it is open.
        awaiting: whether the large model's answer may still become the final decision.
        audited: the accepted decision that an audit compares with, or None.
    """

    lane: Lane
    case: Case
    arrived_s: float
    due_s: float
    batch: Batch | None
    prepared: dict[int, Batch] = field(default_factory=dict)
    frame: Frame | None = None
    shown: bool = False
    saved_s: float = 0.0
    stand_in: Decision | None = None
    decision: Decision | None = None
    awaiting: bool = False
    audited: Decision | None = None

    def left_s(self, now_s: float) -> float | None:
        """How long somebody waits for the large model's answer; None for as long as it takes."""
        forever = self.audited is not None or self.due_s == float("inf")
        return None if forever else max(0.0, self.due_s - now_s)

    @property
    def picture(self) -> Frame | None:
        """What sinks get."""
        return self.frame if self.shown else None
