"""Chart: accuracy against cost, for every candidate, every single model and the two bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinysaver_edge.calibrate.report import numbers
from tinysaver_edge.calibrate.report.charts.svg import (
    CHARACTER,
    LEFT,
    Panel,
    Place,
    Size,
    diamond,
    document,
    dot,
    polyline,
    text,
    ticks,
)
from tinysaver_edge.calibrate.report.curves import Point
from tinysaver_edge.calibrate.report.facts import CandidateFacts, ReportFacts, SingleModel

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


def place_labels(wanted: Sequence[Label], panel: Panel, *, avoid: Sequence[Place]) -> str:
    """Write as many of the names as find room, the first ones first.

    Args:
        wanted: names by falling importance.
        panel: they stay within.
        avoid: points that no name may hide.
    """
    boxes = [(x - 4, y - 4, x + 4, y + 4) for x, y in avoid]
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


Window = tuple[tuple[float, float], tuple[float, float]]
"""Ranges of cost and of accuracy that are shown."""

COSTLIEST = 1.25
"""Costs beyond this are cut off: nobody wants them."""


def tradeoff(facts: ReportFacts, size: Size) -> str:
    """Draw all of it."""
    return _draw(facts, size, _whole(facts), name="whole")


def tradeoff_close(facts: ReportFacts, size: Size) -> str:
    """Draw the part around the large model's accuracy, where the choice is made."""
    return _draw(facts, size, _near(facts), name="near")


def _points(facts: ReportFacts) -> list[Point]:
    every = (one for each in facts.candidates for one in (*each.curve, each.point))
    return [one for one in every if one is not None]


def _large(facts: ReportFacts) -> SingleModel:
    return next(one for one in facts.singles if one.is_large)


def _whole(facts: ReportFacts) -> Window:
    accuracies = [one.accuracy for one in facts.singles] + [p.accuracy for p in _points(facts)]
    low, high = min(accuracies), max(accuracies)
    margin = 0.06 * max(high - low, 0.01)
    costs = [1.04, *(p.cost for p in _points(facts)), *(one.cost for one in facts.singles)]
    return (0.0, min(max(costs), COSTLIEST)), (low - margin, high + margin)


def _near(facts: ReportFacts) -> Window:
    large = _large(facts).accuracy
    bound, (_, chosen) = facts.max_drop_points, facts.chosen
    lost = chosen.drop_points
    below = max(0.6, 2.4 * (bound or 0), 1.6 * lost) / 100
    best = max(p.accuracy for p in _points(facts))
    top = max(best, large) + 0.2 * below
    shown = [p.cost for p in _points(facts) if p.accuracy >= large - below]
    left = max(0.0, min([chosen.cost, *shown]) - 0.06)
    return (left, max(1.04, min(max(shown, default=1.04), 1.1))), (large - below, top)


def _draw(facts: ReportFacts, size: Size, window: Window, *, name: str) -> str:
    height = 330.0 if size.is_narrow else 370.0
    panel = Panel(LEFT, 30, size.inner, height - 78, *window)
    most = 5 if size.is_narrow else 7
    digits = 1 if window[1][1] - window[1][0] < 0.05 else 0
    parts = [
        panel.y_axis(
            ticks(*window[1], most), lambda v: numbers.percent(v, digits), title="accuracy"
        ),
        panel.x_axis(
            ticks(*window[0], most), lambda v: f"{v:.1f}", title="cost (large model alone = 1)"
        ),
        panel.clip(_lines(facts, panel), name=f"{name}-{size.kind}"),
        _bound(facts, panel, named=name == "near"),
    ]
    marks, labels, avoid = _marks(facts, panel)
    parts += [*marks, place_labels(labels, panel, avoid=avoid)]
    about = "near the large model" if name == "near" else "of all candidates and single models"
    return document(size, height, parts, label=f"Accuracy against cost, {about}")


def _lines(facts: ReportFacts, panel: Panel) -> list[str]:
    others = [one for one in facts.candidates if one.curve and not one.row.chosen]
    return [
        polyline((panel.at(*end) for end in facts.bounds.random), class_="random"),
        polyline((panel.at(*end) for end in facts.bounds.oracle), class_="oracle"),
        *(_curve(one, panel, "other") for one in others),
        _curve(facts.chosen[0], panel, "chosen"),
    ]


def _curve(candidate: CandidateFacts, panel: Panel, class_: str) -> str:
    return polyline((panel.at(p.cost, p.accuracy) for p in candidate.curve), class_=class_)


def _bound(facts: ReportFacts, panel: Panel, *, named: bool) -> str:
    bound = facts.max_drop_points
    level = _large(facts).accuracy - (bound or 0) / 100
    if not bound or not panel.ys[0] < level < panel.ys[1]:
        return ""
    words = text(
        (panel.right, panel.y(level) + 14),
        f"limit: {numbers.points(bound)} lost",
        anchor="end",
        class_="note",
    )
    return panel.horizontal(level, class_="limit") + (words if named else "")


def _marks(facts: ReportFacts, panel: Panel) -> tuple[list[str], list[Label], list[Place]]:
    """Return the marks, their names by falling importance, and where the marks are."""
    parts: list[str] = []
    labels: list[Label] = []
    avoid: list[Place] = []
    for candidate in facts.candidates:
        point, row = candidate.point, candidate.row
        if row.chosen or row.threshold is None or point is None:
            continue
        if not panel.holds(point.cost, point.accuracy):
            continue
        place = panel.at(point.cost, point.accuracy)
        title = f"{row.saver}, {row.score}: {_title(point)}"
        parts.append(dot(place, 3.2, class_="other-point", title=title))
        avoid.append(place)
    for single in facts.singles:
        if not panel.holds(single.cost, single.accuracy):
            continue
        place = panel.at(single.cost, single.accuracy)
        words = f"{single.name} alone: {numbers.percent(single.accuracy)}"
        parts.append(diamond(place, 5.0, class_="single", title=words))
        labels.append(Label(place, single.name, "strong" if single.is_large else "note"))
        avoid.append(place)
    labels.sort(key=lambda label: label.class_ != "strong")
    _, point = facts.chosen
    if panel.holds(point.cost, point.accuracy):
        place = panel.at(point.cost, point.accuracy)
        parts.append(dot(place, 6.0, class_="chosen-point", title=_title(point)))
        labels.insert(0, Label(place, "chosen", "accent strong"))
        avoid.append(place)
    return parts, labels, avoid


def _title(point: Point) -> str:
    return f"cost {numbers.ratio(point.cost)}, accuracy {numbers.percent(point.accuracy)}"
