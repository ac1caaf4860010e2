"""Draws a decision onto its picture."""

from __future__ import annotations

import numpy as np

from tinysaver_edge._support.packages import opencv
from tinysaver_edge.decision import AnswerSource, Decision
from tinysaver_edge.preprocess import Frame as Picture

COLOURS = {
    AnswerSource.SAVER: (96, 174, 39),
    AnswerSource.LARGE: (219, 152, 52),
    AnswerSource.FUSED: (219, 152, 52),
    AnswerSource.FALLBACK: (15, 150, 241),
    AnswerSource.REUSED: (150, 150, 150),
}
"""BGR colour of the bar, by where the answer comes from."""


def annotated(picture: Picture, decision: Decision) -> Picture:
    """Return a copy with the answer in a bar at its lower edge.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = opencv("Drawing on pictures")
    drawn = np.array(picture)
    height, width = drawn.shape[:2]
    bar = max(14, height // 16)
    top = height - bar
    drawn[top:] = drawn[top:] // 4
    drawn[top:, : max(4, bar // 3)] = COLOURS[decision.source]
    text = _plain(caption(decision))
    scale = bar / 34
    (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    scale *= min(1.0, (width - bar) / max(1, wide))
    place = (bar // 2 + 4, height - bar // 3)
    thick = max(1, round(bar / 30))
    cv2.putText(
        drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thick, cv2.LINE_AA
    )
    return drawn


def caption(decision: Decision) -> str:
    """Say in one line what was decided, by whom, and what is wrong with it."""
    said = f"{decision.label}  {100 * decision.confidence:.0f} %  {decision.source.value}"
    return f"{said}  degraded: {decision.degraded}" if decision.degraded else said


def _plain(text: str) -> str:
    """OpenCV's font has ASCII only."""
    return text.encode("ascii", "replace").decode()
