"""The two widths a chart is drawn at, so that its words stay readable on a phone."""

from __future__ import annotations

from dataclasses import dataclass


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


WIDE = Size("wide", 530.0)
NARROW = Size("narrow", 344.0)
