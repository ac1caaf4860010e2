"""Names beside the points of a chart, each where it hides nothing, or left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinysaver_edge.calibrate.report.charts.svg import CHARACTER, Panel, Place, text

HEIGHT = 13.0
GAP = 8.0

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Label:
    """A name for a point.

    Attributes:
        place: the point, in pixels.
        words: the name.
        class_: how it is written.
    """

    place: Place
    words: str
    class_: str = "note"


def place_labels(
    wanted: Sequence[Label], panel: Panel, *, avoid: Sequence[Place], taken: Sequence[Box] = ()
) -> str:
    """Write as many of the names as find room, the first ones first.

    Args:
        wanted: names by falling importance.
        panel: they stay within.
        avoid: points that no name may hide.
        taken: boxes (left, top, right, bottom) that are written on already.
    """
    boxes = [*taken, *((x - 4, y - 4, x + 4, y + 4) for x, y in avoid)]
    written = []
    for label in wanted:
        for anchor, x, y in _around(label.place):
            box = _box(anchor, x, y, len(label.words) * _character(label))
            inside = (
                box[0] >= panel.left - 2
                and box[2] <= panel.right + 4
                and box[1] >= panel.top - 4
                and box[3] <= panel.bottom
            )
            if inside and not any(_overlap(box, other) for other in boxes):
                boxes.append(box)
                written.append(text((x, y), label.words, anchor=anchor, class_=label.class_))
                break
    return "".join(written)


def _around(place: Place) -> list[tuple[str, float, float]]:
    x, y = place
    return [
        ("start", x + GAP, y + 4),
        ("end", x - GAP, y + 4),
        ("start", x + GAP - 2, y + 15),
        ("end", x - GAP + 2, y + 15),
        ("start", x + GAP - 2, y - 7),
        ("end", x - GAP + 2, y - 7),
        ("middle", x, y + 19),
        ("middle", x, y - 10),
    ]


def _box(anchor: str, x: float, y: float, width: float) -> Box:
    left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
    return (left, y - HEIGHT + 2, left + width, y + 3)


def _character(label: Label) -> float:
    return 1.15 * CHARACTER if "strong" in label.class_ else CHARACTER


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
