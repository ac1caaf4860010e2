"""Charts: scores parted by right and wrong answers, and confidence against what came true."""

from __future__ import annotations

from tinysaver_edge.calibrate.report import numbers
from tinysaver_edge.calibrate.report.charts.svg import (
    LEFT,
    Panel,
    Place,
    Size,
    document,
    dot,
    element,
    number,
    polyline,
    text,
    ticks,
)
from tinysaver_edge.calibrate.report.confidence import ClassRow, Reliability, ScoreHistogram


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
    return document(size, panel.bottom + 44, parts, label="Points that each class loses, sorted")


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
    return document(size, panel.bottom + 44, parts, label="Escalation rate of each class, sorted")


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


def score_histogram(facts: ScoreHistogram, size: Size) -> str:
    """Draw right answers upwards and wrong ones downwards, each as shares of their own number.

    Both on one scale: heights may be compared.
    """
    right, wrong = (_shares(counts) for counts in (facts.right, facts.wrong))
    ends = (facts.edges[0], facts.edges[-1])
    width = size.inner
    top = max(*right, *wrong) * 1.05 or 1.0
    up = Panel(LEFT, 44, width, 120, ends, (0, top))
    down = Panel(LEFT, up.bottom, width, 120, ends, (-top, 0))
    parts = [
        up.y_axis(ticks(0, up.ys[1], 4), lambda v: numbers.percent(v, 0), title=""),
        down.y_axis(ticks(*down.ys, 4)[:-1], lambda v: numbers.percent(abs(v), 0), title=""),
        *_bars(right, facts, up, "bar-right"),
        *_bars([-share for share in wrong], facts, down, "bar-wrong"),
        up.horizontal(0, class_="axis"),
        down.x_axis(ticks(*ends, 6), _tick, title=facts.score),
        text((0.0, 16.0), "share of each", class_="title"),
    ]
    if facts.threshold is not None:
        parts += [panel.vertical(facts.threshold, class_="mark") for panel in (up, down)]
        words = f"accepted from {numbers.score(facts.threshold)}"
        parts.append(_beside(words, up, facts.threshold))
    return document(
        size, down.bottom + 44, parts, label="Scores of the saver's right and wrong answers"
    )


def _beside(words: str, panel: Panel, value: float) -> str:
    """Write above the threshold's line, on the side that has room."""
    x = panel.x(value)
    right = x < panel.left + panel.width / 2
    return text(
        (x + (5 if right else -5), panel.top - 6),
        f"{words} →",
        anchor="start" if right else "end",
        class_="note strong",
    )


def _shares(counts: tuple[int, ...]) -> list[float]:
    return [count / max(sum(counts), 1) for count in counts]


def _bars(shares: list[float], facts: ScoreHistogram, panel: Panel, class_: str) -> list[str]:
    bars = []
    for share, low, high in zip(shares, facts.edges, facts.edges[1:], strict=False):
        if share:
            left, right = panel.x(low) + 0.5, panel.x(high) - 0.5
            start, end = panel.y(max(share, 0)), panel.y(min(share, 0))
            bars.append(
                element(
                    "rect",
                    x=left,
                    y=start,
                    width=max(right - left, 0.5),
                    height=end - start,
                    class_=class_,
                    title=f"{_tick(low)} to {_tick(high)}: {numbers.percent(abs(share), 1)}",
                )
            )
    return bars


def _tick(value: float) -> str:
    return numbers.score(round(value, 6))


def reliability(models: tuple[Reliability, ...], size: Size) -> str:
    """Draw each model's accuracy over its confidence; the diagonal is a model that knows."""
    side = size.inner
    panel = Panel(LEFT, 30, side, min(side, 294), (0, 1), (0, 1))
    steps = ticks(0, 1, 6)
    parts = [
        panel.y_axis(steps, lambda v: numbers.percent(v, 0), title="right"),
        panel.x_axis(steps, lambda v: numbers.percent(v, 0), title="confidence", grid=True),
        polyline((panel.at(0, 0), panel.at(1, 1)), class_="random"),
    ]
    for model, class_ in zip(models, ("chosen", "large"), strict=False):
        total = sum(one.samples for one in model.bins)
        places = [panel.at(one.confidence, one.accuracy) for one in model.bins]
        parts.append(polyline(places, class_=class_))
        for place, one in zip(places, model.bins, strict=True):
            radius = 2.0 + 5.0 * (one.samples / total) ** 0.5
            words = (
                f"{model.model}: {numbers.count(one.samples)} samples of confidence "
                f"{numbers.percent(one.confidence, 1)}, {numbers.percent(one.accuracy, 1)} right"
            )
            parts.append(dot(place, radius, class_=f"{class_}-point", title=words))
    return document(size, panel.bottom + 44, parts, label="Share of right answers over confidence")
