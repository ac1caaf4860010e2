"""One source's way through the dispatcher: its buffers, its frames in order, and its bounds."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import EngineError
from tinysaver_edge.preprocess import Batch
from tinysaver_edge.stream.item import Item
from tinysaver_edge.stream.options import Escalation

PICTURES = 16
"""Frames of one source that are kept at their full size at once, for sinks or later stages."""


class Taker(Protocol):
    """Takes what becomes of a lane's frames, and returns at once.

    Called by one thread at a time, unless the lane has no order.
    """

    def deliver(self, item: Item, decision: Decision) -> None:
        """Take a decision on a frame; it may not be the last one."""

    def give_up(self, item: Item, error: EngineError) -> None:
        """Hear that a frame gets no decision."""

    def drained(self) -> None:
        """Hear that every frame of the lane, which has ended, is decided."""


@dataclass(frozen=True, slots=True)
class LaneRules:
    """What holds for every frame of a lane.

    Attributes:
        source_id: the source's name in metrics and events.
        escalation: wait, revise or local.
        window: frames that may be taken in and not given out yet.
        patient: frames wait for room at the large model, rather than be degraded.
        ordered: decisions are given out in the order of the frames.
        fresh: frames are taken in only when whoever asks for decisions has taken the last one, so
            that none grows old waiting for him.
    """

    source_id: str
    escalation: Escalation
    window: int
    patient: bool = False
    ordered: bool = True
    fresh: bool = False


class Lane:
    """One source's frames on their way. Guarded by the dispatcher's lock throughout.

    Attributes:
        rules: what holds for all its frames.
        free: buffers for the first stage's input that nobody uses.
        ready: frames that wait for the first stage.
        order: frames taken in and not given out, oldest first.
        open: frames without their final decision.
        pictures: frames that are kept at their full size.
        untaken: decisions that nobody has taken yet.
        ended: whether no more frames come.
        room: told whenever a frame may be taken in again.
    """

    def __init__(
        self, rules: LaneRules, taker: Taker, *, buffers: list[Batch], lock: threading.Lock
    ) -> None:
        self.rules = rules
        self.taker = taker
        self.free = deque(buffers)
        self.ready: deque[Item] = deque()
        self.order: deque[Item] = deque()
        self.open = self.pictures = 0
        self.untaken = 0
        self.ended = False
        self.room = threading.Condition(lock)

    @property
    def has_room(self) -> bool:
        """Whether one more frame may be taken in."""
        if not self.free or len(self.order) + self.untaken >= self.rules.window:
            return False
        if self.pictures >= PICTURES:
            return False
        return not (self.rules.fresh and self.untaken)

    @property
    def finished(self) -> bool:
        """Whether every frame that came has its final decision."""
        return self.ended and not self.open
