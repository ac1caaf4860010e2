"""Charts of the chosen cascade: drop and cost over its accept rate, latency, where frames end."""

from __future__ import annotations

from itertools import groupby

from tinysaver_edge.calibrate.report import numbers
from tinysaver_edge.calibrate.report.charts.svg import (
    CHARACTER,
    LEFT,
    Panel,
    Place,
    Size,
    document,
    dot,
    element,
    polyline,
    text,
    ticks,
)
from tinysaver_edge.calibrate.report.facts import FlowFacts, Mark, MarkKind, SweepFacts
from tinysaver_edge.calibrate.report.latency import Distribution, LatencyFacts

ROW = 54.0
"""Height of one stage of the flow, in pixels."""

BAR = 20.0


def flow(facts: FlowFacts, size: Size) -> str:
    """Draw a row a stage: of 100 frames which end there, and which go on to the next."""
    parts: list[str] = []
    before = 0.0
    for place, stage in enumerate(facts.stages):
        top = 18.0 + ROW * place
        left, middle = size.width * before, size.width * (before + stage.settled)
        said = f"{100 * stage.settled:.1f} of 100 end here"
        title = f"{stage.model}: {said}"
        name = cut(stage.model, size.width - 1.25 * CHARACTER * (len(said) + 2))
        parts += [
            text((0.0, top), name, class_="note strong"),
            text((size.width, top), said, anchor="end", class_="note accent"),
            _bar(0.0, size.width, top + 8, "flow-none", ""),
            _bar(middle, size.width, top + 8, "flow-on", title),
            _bar(left, middle, top + 8, "flow-end", title),
        ]
        before += stage.settled
    height = 18 + ROW * (len(facts.stages) - 1) + BAR + 14
    label = "Of 100 frames, how many each stage settles"
    return document(size, height, parts, label=label)


def cut(words: str, width: float) -> str:
    """Return what of some words fits a width in pixels, with a mark where there is more."""
    most = max(2, int(width / (1.25 * CHARACTER)))
    return words if len(words) <= most else f"{words[: most - 1]}\u2026"


def _bar(left: float, right: float, top: float, class_: str, title: str) -> str:
    wide = max(0.0, right - left)
    return element("rect", x=left, y=top, width=wide, height=BAR, class_=class_, title=title)


def latency(facts: LatencyFacts, size: Size) -> str:
    """Draw both distributions as rising steps."""
    slowest = 1.25 * max(facts.cascade.p99_ms, facts.large.p99_ms)
    panel = Panel(LEFT, 30, size.inner, 220, (0, slowest or 1.0), (0, 1.02))
    parts = [
        panel.y_axis(ticks(0, 1, 6), lambda v: numbers.percent(v, 0), title="answered within"),
        panel.x_axis(ticks(0, panel.xs[1], 6), lambda v: f"{v:g}", title="milliseconds"),
        panel.clip(
            [
                polyline(_steps(facts.large, panel), class_="large"),
                polyline(_steps(facts.cascade, panel), class_="chosen"),
            ],
            name=f"latency-{size.kind}",
        ),
    ]
    return document(size, panel.bottom + 44, parts, label="Share of frames answered within a time")


def _steps(one: Distribution, panel: Panel) -> list[Place]:
    places: list[Place] = [panel.at(0, 0)]
    share = 0.0
    for time, next_share in one.steps:
        places += [panel.at(time, share), panel.at(time, next_share)]
        share = next_share
    return [*places, panel.at(panel.xs[1], share)]


CLASS = {
    MarkKind.CHOSEN: "mark",
    MarkKind.CERTIFIED: "mark certified",
    MarkKind.LIMIT: "mark",
    MarkKind.BUDGET: "mark limit",
}


def sweep(facts: SweepFacts, size: Size) -> str:
    """Draw the drop above and the cost below, over one accept rate."""
    rows = len(facts.marks)
    top = 28.0 + 17 * rows
    height, gap = (170.0, 34.0)
    width = size.inner
    drop = Panel(LEFT, top, width, height, (0, 1), _drops(facts))
    cost = Panel(LEFT, drop.bottom + gap, width, 120, (0, 1), (0, _costliest(facts)))
    rates = ticks(0, 1, 6)
    parts = [
        drop.y_axis(ticks(*drop.ys, 6), lambda v: numbers.short_points(v), title="drop (points)"),
        cost.y_axis(ticks(*cost.ys, 4), lambda v: f"{v:.1f}", title="cost"),
        cost.x_axis(rates, lambda v: numbers.percent(v, 0), title=""),
        *_threshold_row(facts, cost, rates),
        drop.horizontal(0, class_="axis"),
    ]
    if facts.max_drop_points is not None and drop.holds(0, facts.max_drop_points):
        parts.append(drop.horizontal(facts.max_drop_points, class_="limit"))
    for panel, name in ((drop, "drop"), (cost, "cost")):
        lines = [
            polyline(
                (
                    panel.at(p.accept_rate, p.drop_points if name == "drop" else p.cost)
                    for p in points
                ),
                class_=class_,
            )
            for points, class_ in ((facts.holdout, "held"), (facts.calibration, "chosen"))
            if points
        ]
        parts.append(panel.clip(lines, name=f"sweep-{name}-{size.kind}"))
    parts += _marks(facts, drop, cost)
    return document(
        size,
        cost.bottom + 58,
        parts,
        label="Drop and cost of the chosen cascade over its accept rate",
    )


def _drops(facts: SweepFacts) -> tuple[float, float]:
    """Show what matters: from the best gain to a few times the bound."""
    drops = [p.drop_points for p in facts.calibration]
    marked = max((mark.point.drop_points for mark in facts.marks), default=0.0)
    high = max(0.5, 3 * (facts.max_drop_points or 0), 2 * marked)
    low = min(0.0, *drops)
    return low - 0.08 * (high - low), min(high, max(*drops, 0.1) * 1.08)


def _costliest(facts: SweepFacts) -> float:
    return max(1.05, max(p.cost for p in facts.calibration) * 1.02)


def _threshold_row(facts: SweepFacts, panel: Panel, rates: list[float]) -> list[str]:
    """Write the threshold at each accept rate below it."""
    rows = []
    for rate in rates[1:]:
        point = min(facts.calibration, key=lambda p: abs(p.accept_rate - rate))
        place = (panel.x(rate), panel.bottom + 34)
        rows.append(text(place, numbers.about(point.threshold), anchor="middle", class_="faint"))
    middle = (panel.left + panel.width / 2, panel.bottom + 53)
    return [
        *rows,
        text(middle, f"share accepted / {facts.score} ≥", anchor="middle", class_="title"),
    ]


def _marks(facts: SweepFacts, drop: Panel, cost: Panel) -> list[str]:
    """Draw each marked threshold through both panels, those that coincide as one."""
    parts = []
    marks = sorted(facts.marks, key=lambda mark: mark.point.accept_rate)
    same = [list(group) for _, group in groupby(marks, key=lambda mark: mark.point.threshold)]
    for row, group in enumerate(same):
        point = group[0].point
        classes = " ".join(dict.fromkeys(" ".join(CLASS[one.kind] for one in group).split()))
        words = " = ".join(one.kind.value for one in group)
        parts += [panel.vertical(point.accept_rate, class_=classes) for panel in (drop, cost)]
        if drop.holds(point.accept_rate, point.drop_points):
            place = drop.at(point.accept_rate, point.drop_points)
            parts.append(dot(place, 4.5, class_="chosen-point"))
        parts.append(_name(group, words, row, len(same), drop))
    return parts


def _name(group: list[Mark], words: str, row: int, rows: int, panel: Panel) -> str:
    point = group[0].point
    said = f"{words} {numbers.score(point.threshold)}"
    x = panel.x(point.accept_rate)
    y = panel.top - 8 - 17 * (rows - 1 - row)
    half = len(said) * 1.15 * CHARACTER / 2
    x = min(max(x, half), panel.right + 12 - half)
    return text((x, y), said, anchor="middle", class_="note strong")
