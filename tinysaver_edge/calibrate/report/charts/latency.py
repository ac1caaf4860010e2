"""Chart: share of frames answered within a time, the cascade beside the large model alone."""

from __future__ import annotations

from tinysaver_edge.calibrate.report import numbers
from tinysaver_edge.calibrate.report.charts.svg import (
    LEFT,
    Panel,
    Place,
    Size,
    document,
    polyline,
    ticks,
)
from tinysaver_edge.calibrate.report.latency import Distribution, LatencyFacts


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
    return document(
        size.width,
        panel.bottom + 44,
        parts,
        label="Share of frames answered within a time",
        kind=size.kind,
    )


def _steps(one: Distribution, panel: Panel) -> list[Place]:
    places: list[Place] = [panel.at(0, 0)]
    share = 0.0
    for time, next_share in one.steps:
        places += [panel.at(time, share), panel.at(time, next_share)]
        share = next_share
    return [*places, panel.at(panel.xs[1], share)]
