"""What is kept of sources and pictures, and how it is told to the page."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinysaver_edge.decision import Decision
from tinysaver_edge.preprocess import Frame as Picture

THUMBNAIL_WIDTH = 240


@dataclass(slots=True)
class SourceState:
    """The latest about one source.

    Attributes:
        connected: whether it gives frames.
        ended: whether it has come to its end.
        decision: the last one, with a picture or without.
        number: of the picture that is kept; 0 where there is none.
        picture: ``(height, width, 3)`` BGR uint8.
        pictured: what was decided about the picture.
        kept_s: when the picture came.
        written_s: when the last decision came.
        counts: frames and drops.
    """

    connected: bool = False
    ended: bool = False
    decision: Decision | None = None
    number: int = 0
    picture: Picture | None = None
    pictured: Decision | None = None
    kept_s: float = float("-inf")
    written_s: float = float("-inf")
    counts: dict[str, int] = field(default_factory=lambda: {"frames": 0, "dropped": 0})


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture and what was decided about it.

    Attributes:
        number: grows with every picture.
        picture: ``(height, width, 3)`` BGR uint8.
        decision: the answer.
        time_s: when it was kept.
    """

    number: int
    picture: Picture
    decision: Decision
    time_s: float


def small(picture: Picture) -> Picture:
    """Leave out rows and columns: quick, and good enough for a thumbnail."""
    step = max(1, picture.shape[1] // THUMBNAIL_WIDTH)
    return picture[::step, ::step].copy()


def source_told(name: str, source: SourceState) -> dict[str, Any]:
    """Return a source as plain values for the page."""
    return {
        "id": name,
        "connected": source.connected,
        "ended": source.ended,
        "picture": source.number,
        "decision": None if source.decision is None else source.decision.to_dict(),
        **source.counts,
    }


def thumbnail_told(shown: Shown, now: float) -> dict[str, Any]:
    """Return an escalated frame as plain values for the page."""
    decision = shown.decision
    return {
        "number": shown.number,
        "age_s": round(now - shown.time_s, 1),
        "source_id": decision.frame_id.source_id,
        "label": decision.label,
        "confidence": decision.confidence,
        "answered_by": decision.source.value,
        "degraded": decision.degraded,
    }


def percentiles(ages: deque[float]) -> dict[str, float]:
    """Return p50, p95 and p99 of some milliseconds, at least one, and how many there are."""
    p50, p95, p99 = np.percentile(ages, (50, 95, 99))
    return {
        "p50": round(float(p50), 2),
        "p95": round(float(p95), 2),
        "p99": round(float(p99), 2),
        "frames": len(ages),
    }
