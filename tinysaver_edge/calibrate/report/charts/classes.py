"""Charts: what every class loses and how often it is escalated, sorted, for many classes."""

from __future__ import annotations

from tinysaver_edge.calibrate.report import numbers
from tinysaver_edge.calibrate.report.charts.svg import (
    LEFT,
    Panel,
    Place,
    Size,
    document,
    element,
    number,
    ticks,
)
from tinysaver_edge.calibrate.report.classes import ClassRow


def skyline(rows: tuple[ClassRow, ...], size: Size) -> str:
    """Draw the drop of every class, the worst at the left."""
    drops = [row.drop_points for row in rows]
    low, high = min(0.0, *drops), max(0.0, *drops)
    spare = 0.06 * max(high - low, 1.0)
    panel = Panel(LEFT, 30, size.inner, 170, (0, len(drops)), (low - spare, high + spare))
    parts = [
        panel.y_axis(
            ticks(*panel.ys, 6), lambda v: numbers.short_points(v)[:-3], title="drop (points)"
        ),
        panel.x_axis(
            ticks(0, len(drops), 6), lambda v: numbers.count(round(v)), title="classes, worst first"
        ),
        _area([max(drop, 0.0) for drop in drops], panel, "bar-wrong"),
        _area([min(drop, 0.0) for drop in drops], panel, "bar-right"),
        panel.horizontal(0, class_="axis"),
    ]
    return document(
        size.width,
        panel.bottom + 44,
        parts,
        label="Points that each class loses, sorted",
        kind=size.kind,
    )


def escalations(rows: tuple[ClassRow, ...], size: Size) -> str:
    """Draw the escalation rate of every class, the highest at the left."""
    rates = sorted((row.escalation_rate for row in rows), reverse=True)
    panel = Panel(LEFT, 30, size.inner, 170, (0, len(rates)), (0, 1))
    parts = [
        panel.y_axis(ticks(0, 1, 6), lambda v: numbers.percent(v, 0), title="escalated"),
        panel.x_axis(
            ticks(0, len(rates), 6),
            lambda v: numbers.count(round(v)),
            title="classes, most escalated first",
        ),
        _area(rates, panel, "bar-right"),
    ]
    return document(
        size.width,
        panel.bottom + 44,
        parts,
        label="Escalation rate of each class, sorted",
        kind=size.kind,
    )


def _area(values: list[float], panel: Panel, class_: str) -> str:
    """Fill the steps between the values and zero, a corner only where the value changes."""
    places: list[Place] = [panel.at(0, 0)]
    previous = 0.0
    for rank, value in enumerate([*values, 0.0]):
        if value != previous or rank == len(values):
            places += [panel.at(rank, previous), panel.at(rank, value)]
        previous = value
    joined = " ".join(f"{number(x)},{number(y)}" for x, y in places)
    return element("polygon", points=joined, class_=class_)
