"""The plan as a page: one file in the report's looks, with what-if curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.files import write_text
from tinysaver_edge._version import __version__
from tinysaver_edge.calibrate.report import numbers
from tinysaver_edge.calibrate.report.charts.svg import (
    LEFT,
    NARROW,
    WIDE,
    Panel,
    Size,
    document,
    dot,
    polyline,
    ticks,
)
from tinysaver_edge.calibrate.report.write import page_style
from tinysaver_edge.plan.fleet import Fleet, FleetLimits, say_rate
from tinysaver_edge.plan.forecast import CurvePoint, Forecast, Remedy
from tinysaver_edge.plan.simulation import Figure

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """All that a plan has to say.

    Attributes:
        title: the models, in turn.
        forecast: the figures.
        limits: that are asked for.
        remedies: what keeps them; none where no limit was given.
        notes: what the user should know at once.
        said: where what is known is from.
        assumed: what nobody has measured.
        by_profile: whether energy is that of profiles' power, and not all of it was counted.
    """

    title: str
    forecast: Forecast
    limits: FleetLimits
    remedies: tuple[Remedy, ...]
    notes: tuple[str, ...]
    said: tuple[str, ...]
    assumed: tuple[str, ...]
    by_profile: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            **self.forecast.to_dict(),
            "limits": self.limits.set,
            "kept": self.forecast.keeps(self.limits),
            "broken": self.forecast.broken(self.limits),
            "remedies": [
                {name: getattr(one, name) for name in Remedy.__slots__} for one in self.remedies
            ],
            "notes": list(self.notes),
            "said": list(self.said),
            "assumed": list(self.assumed),
            "energy_by_profile": self.by_profile,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One figure as people read it."""

    name: str
    value: str
    interval: str
    limit: str
    broken: bool


def lede(fleet: Fleet) -> str:
    """Say what the fleet is, in a sentence."""
    devices = f"{fleet.devices} devices" if fleet.devices > 1 else "one device"
    hosts = "one host" if fleet.hosts == 1 else f"{fleet.hosts} hosts"
    cameras = f"{fleet.cameras} cameras" if fleet.cameras > 1 else "one camera"
    return (
        f"{cameras} of {fleet.fps:g} frames/s on {devices}, {hosts} of the large "
        f"model, uplink {say_rate(fleet.uplink_bps)}, round trip {fleet.rtt_ms:.3g} ms, deadline "
        f"{fleet.deadline_ms:g} ms, {fleet.max_in_flight} frames of a device in flight"
    )


_NAMES = {
    "escalations_per_s": "escalations a second, mean",
    "escalations_p99_second": "… in 99 % of the seconds at most",
    "escalations_p99_minute": "… in 99 % of the minutes at most, a second",
    "uplink_bps": "sent on average",
    "uplink_load": "uplink in use",
    "uplink_kbit": "sent of a frame, on average",
    "host_load": "hosts at work",
    "host_queue": "frames left waiting when a host begins a run",
    "answer_ms": "the large model's answer, from the saver's on, mean",
    "mean_latency_ms": "final decision, mean",
    "p50_latency_ms": "… of 50 % of the frames within",
    "p95_latency_ms": "… of 95 % of the frames within",
    "p99_latency_ms": "… of 99 % of the frames within",
    "degraded": "degraded: the saver's answer for want of the large model's",
    "degraded_deadline": "… its deadline passed",
    "degraded_in_flight": "… as many frames as may were waiting",
    "degraded_failed": "… refused by hosts that are full, or by a breaker",
    "mean_energy_mj": "energy of a frame, on average",
    "energy_wh_day": "energy a day",
}


def rows(plan: FleetPlan) -> list[Row]:
    """Return all figures, in the order people read them."""
    broken, limits = plan.forecast.broken(plan.limits), plan.limits.set
    found = plan.forecast.figures
    return [
        Row(
            f"{words}, by profiles' power" if plan.by_profile and "energy" in name else words,
            write(name, found[name].value) if name in found else "none: it is unlimited",
            _interval(name, found[name]) if name in found else "",
            f"≤ {write(name, limits[name])}" if name in limits else "",
            name in broken,
        )
        for name, words in _NAMES.items()
        if name in found or name in limits  # the latter: uplink_load of one that nothing fills
    ]


def write(name: str, value: float) -> str:
    """Write a figure with its unit."""
    if name.endswith("_ms"):
        return numbers.milliseconds(value)
    if name == "uplink_bps":
        return say_rate(value)
    if name in ("mean_energy_mj", "uplink_kbit"):
        return f"{value:.3g} {name.rpartition('_')[2].replace('mj', 'mJ')}"
    if name == "energy_wh_day":
        return f"{value:.3g} Wh" if value < 1000 else f"{value / 1000:.3g} kWh"
    if name == "uplink_load" or name == "host_load" or name.startswith("degraded"):
        return numbers.percent(value)
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _interval(name: str, figure: Figure) -> str:
    if figure.low is None:
        return "too short to tell"
    if figure.high is None:
        return f"at least {write(name, figure.low)}; too short to tell more"
    return f"{write(name, figure.low)} to {write(name, figure.high)}"


def simulated(forecast: Forecast) -> str:
    """Say what was simulated, and what its intervals do not tell."""
    hours, asked = forecast.simulated_s / 3600, forecast.asked_s / 3600
    spread = (
        f", which stand for all {asked:.3g} h" if forecast.simulated_s < forecast.asked_s else ""
    )
    return (
        f"Simulated event by event: {hours:.3g} h{spread}, in stretches. At the start of each the "
        "cameras fall into another step with each other: a fleet of few at a low load may keep one "
        "that is better or worse. The intervals tell what more simulated time would change, and "
        "nothing of what the times and assumptions below are worth."
    )


def formula_words(forecast: Forecast) -> str:
    """Set the formula beside the simulation."""
    formula, found = forecast.formula, forecast.figures
    share = numbers.percent(formula.uplink_load, 0)
    used = f", {share} of the uplink" if formula.uplink_load else ""
    said = (
        f"Cameras × frames/s × share make {formula.escalations_per_s:.3g} escalations a second "
        f"(simulated: {found['escalations_per_s'].value:.3g}). One by one they would keep the "
        f"hosts {numbers.percent(formula.host_load, 0)} busy, in full batches "
        f"{numbers.percent(formula.host_load_batched, 0)} "
        f"(simulated: {numbers.percent(found['host_load'].value, 0)}). To send they are "
        f"{say_rate(formula.uplink_bps)}{used} "
        f"(simulated: {say_rate(found['uplink_bps'].value)}). "
    )
    if formula.answer_ms is None or formula.answer_bursts_ms is None:
        full = [
            *(["Hosts that run one by one"] if formula.host_load >= 1 else []),
            *(
                ["The uplink" if formula.host_load < 1 else "the uplink"]
                * (formula.uplink_load >= 1)
            ),
        ]
        return said + (
            f"{' and '.join(full)} would never catch up, and queueing theory has no mean wait: "
            "batches, deadlines and limits keep the queues short."
        )
    low, high = sorted((formula.answer_ms, formula.answer_bursts_ms))
    seen = found.get("answer_ms")
    answer = "none came" if seen is None else f"{seen.value:.3g} ms"
    return said + (
        f"By M/G/c (Allen and Cunneen) an answer takes {low:.3g} ms where escalations are "
        f"independent of each other and {high:.3g} ms with the bursts' dispersion in the long run, "
        f"which is more than a short queue ever sees (simulated: {answer}). No deadline, batch or "
        "limit is in the formula."
    )


def write_page(plan: FleetPlan, curves: Sequence[tuple[str, list[CurvePoint]]], path: Path) -> None:
    """Write the plan as one HTML file; it loads nothing and asks nobody.

    Args:
        plan: the figures.
        curves: what-if curves and their names.
        path: of the file.

    Raises:
        OSError: the file cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    table = rows(plan)
    text = page.from_string(source).render(
        style=page_style(),
        title=plan.title,
        version=__version__,
        lede=f"{lede(plan.forecast.fleet)}.",
        notes=plan.notes,
        tiles=_tiles(plan),
        rows=table,
        limited=bool(plan.limits.set),
        simulated=simulated(plan.forecast),
        remedies=plan.remedies,
        curves=[_curve(name, points) for name, points in curves],
        formula=formula_words(plan.forecast),
        said=plan.said,
        assumed=plan.assumed,
    )
    write_text(path, text + "\n")


def _tiles(plan: FleetPlan) -> list[tuple[str, str, str]]:
    found = plan.forecast.figures

    def told(name: str) -> str:
        return write(name, found[name].value)

    uplink = f"{told('uplink_load')} of it" if "uplink_load" in found else "unlimited"
    p99 = found["escalations_p99_second"].value
    return [
        (
            "Escalations",
            f"{told('escalations_per_s')}/s",
            f"at most {p99:.0f} in 99 % of the seconds",
        ),
        ("Uplink", told("uplink_bps"), uplink),
        ("Hosts", told("host_load"), "of their time at work"),
        ("Decisions", told("p95_latency_ms"), f"p95; {told('degraded')} degraded"),
    ]


def _curve(name: str, points: list[CurvePoint]) -> dict[str, Any]:
    from markupsafe import Markup

    picture: Markup = Markup("".join(_draw(name, points, size) for size in (WIDE, NARROW)))
    busiest = max(points, key=lambda one: one.forecast.figures["host_load"].value)
    least = min(points, key=lambda one: one.forecast.figures["host_load"].value)
    caption = (
        f"Hosts at work: {write('host_load', least.forecast.figures['host_load'].value)} at "
        f"{least.label}, {write('host_load', busiest.forecast.figures['host_load'].value)} at "
        f"{busiest.label}."
    )
    return {"title": f"By {name}", "picture": picture, "caption": caption}


def _draw(name: str, points: list[CurvePoint], size: Size) -> str:
    """Draw two panels over the same places, which stand as far apart whatever they are."""
    p95 = [one.forecast.figures["p95_latency_ms"].value for one in points]
    lost = [one.forecast.figures["degraded"].value for one in points]
    ends = (-0.4, len(points) - 0.6)
    upper = Panel(LEFT, 30, size.inner, 120, ends, (0, max(p95) * 1.08 or 1.0))
    lower = Panel(LEFT, upper.bottom + 46, size.inner, 80, ends, (0, max(max(lost) * 1.08, 0.01)))
    labels = {float(place): one.label for place, one in enumerate(points)}
    every = 2 if size.is_narrow and len(points) > 6 else 1
    shown = [place for place in labels if place % every == 0]
    parts = [
        upper.y_axis(ticks(*upper.ys, 5), lambda v: f"{v:g}", title="p95, ms"),
        lower.y_axis(ticks(*lower.ys, 4), _percent, title="degraded"),
        lower.x_axis(shown, lambda v: labels[v], title=name),
        upper.horizontal(0, class_="axis"),
    ]
    for panel, values, key in ((upper, p95, "p95_latency_ms"), (lower, lost, "degraded")):
        parts.append(polyline([panel.at(x, y) for x, y in enumerate(values)], class_="chosen"))
        for x, (one, value) in enumerate(zip(points, values, strict=True)):
            kind, radius = ("chosen-point", 5.0) if one.now else ("other-point", 3.0)
            words = (
                f"{one.label}: {write(key, value)} ({_interval(key, one.forecast.figures[key])})"
            )
            parts.append(dot(panel.at(x, value), radius, class_=kind, title=words))
    return document(
        size, lower.bottom + 44, parts, label=f"p95 of final decisions and share degraded by {name}"
    )


def _percent(value: float) -> str:
    digits = 0 if value >= 0.01 or not value else -math.floor(math.log10(100 * value))
    return numbers.percent(value, digits)
