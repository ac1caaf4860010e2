"""The two widths a chart is drawn at, so that its words stay readable on a phone."""

from __future__ import annotations

from dataclasses import dataclass

LEFT = 52.0
"""Room for the numbers of the left axis, in pixels."""

RIGHT = 20.0
"""Room for half of the last number of the bottom axis, in pixels."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a chart is drawn.

    Attributes:
        kind: ``wide`` or ``narrow``; the page shows one of them.
        width: in pixels.
    """

    kind: str
    width: float

    @property
    def is_narrow(self) -> bool:
        """Whether it is the phone's."""
        return self.kind == "narrow"

    @property
    def inner(self) -> float:
        """Width that is left for the plot, in pixels."""
        return self.width - LEFT - RIGHT


WIDE = Size("wide", 530.0)
NARROW = Size("narrow", 330.0)
