"""Write a report: facts into the page, the page into one file that needs nothing else."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.files import open_regular, write_text
from tinysaver_edge._support.text import without_logins
from tinysaver_edge.calibrate.calibration import Candidate
from tinysaver_edge.calibrate.report import numbers
from tinysaver_edge.calibrate.report.charts.confidence import (
    escalations,
    reliability,
    score_histogram,
    skyline,
)
from tinysaver_edge.calibrate.report.charts.svg import NARROW, WIDE, Size
from tinysaver_edge.calibrate.report.charts.sweep import flow, latency, sweep
from tinysaver_edge.calibrate.report.charts.tradeoff import tradeoff, tradeoff_close
from tinysaver_edge.calibrate.report.facts import ReportFacts
from tinysaver_edge.calibrate.report.tradeoff import rank_of

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_CANDIDATES = 100
"""Rows of the candidates' table."""

TABLE_CLASSES = 24
"""Up to this many classes all stand in one table."""

WORST_CLASSES = 12

_FILTERS: Mapping[str, Callable[..., str]] = {
    name: getattr(numbers, name)
    for name in (
        "percent",
        "points",
        "lost_points",
        "short_points",
        "ratio",
        "score",
        "about",
        "count",
        "macs",
        "milliseconds",
    )
}


def write_report(facts: ReportFacts, path: Path) -> None:
    """Write a report as one HTML file; it loads nothing and asks nobody.

    Raises:
        OSError: the file cannot be written.
    """
    write_text(path, render(facts))


REPORT = "calibration report"
_HEAD = 4096
_MARKS = (b'<meta name="generator" content="tinysaver-edge">', b'<link rel="icon" href="data:,">')
"""The second is what pages of earlier releases have."""


def is_own_page(path: Path, kind: str = REPORT) -> bool:
    """Tell whether a file is a page of one kind that this package wrote.

    Args:
        path: the file.
        kind: what its title ends with.
    """
    with open_regular(path) as file:
        head = file.read(_HEAD)
    return f": {kind}</title>".encode() in head and any(mark in head for mark in _MARKS)


def render(facts: ReportFacts) -> str:
    """Return the page."""
    from jinja2 import Environment, StrictUndefined

    page = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finally,
    )
    page.filters.update(_FILTERS)
    page.filters["breakable"] = _breakable
    source = Path(__file__).with_name("template.html").read_text(encoding="utf-8")
    return page.from_string(source).render(_values(facts) | {"style": page_style()}) + "\n"


def _finally(value: object) -> object:
    """Return what goes into the page: addresses have no logins, whoever wrote them down."""
    return without_logins(value) if type(value) is str else value  # Markup is the page's own


def page_style() -> Markup:
    """Return the looks of the report, and of other pages that are one file."""
    from markupsafe import Markup

    return Markup(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))


def _values(facts: ReportFacts) -> dict[str, Any]:
    rows = facts.classes
    kinds = [one.kind.value for one in facts.pictures]
    best_first = sorted(
        facts.candidates,
        key=lambda one: rank_of(one.row),
    )
    return {
        "facts": facts,
        "result": facts.result,
        "title": " → ".join(stage.model for stage in facts.result.policy.stages),
        "command": _options(facts.origin.command or ""),
        "both": _drawer(facts),
        "meter": _meter,
        "signed": numbers.formed,
        "intervals": any(one.row.drop_interval_points for one in facts.candidates),
        "score_of": _score_of,
        "same_score": _same_score([one.row for one in best_first[:MOST_CANDIDATES]]),
        "limit": bool(facts.max_drop_points),
        "swept": facts.sweep is not None and any(m.within.accept_rate for m in facts.sweep.marks),
        "marked": [] if facts.sweep is None else [mark.kind.value for mark in facts.sweep.marks],
        "shown_candidates": best_first[:MOST_CANDIDATES],
        "many_classes": len(rows) > TABLE_CLASSES,
        "worst": rows[:WORST_CLASSES],
        "timed": any(one.row.mean_latency_ms is not None for one in facts.candidates),
        "counted": any(one.row.energy_mj is not None for one in facts.candidates),
        "sent": any(one.row.uplink_kbit is not None for one in facts.candidates),
        "most_escalated": sorted(rows, key=lambda row: -row.escalation_rate)[:WORST_CLASSES],
        "class_scale": max([abs(row.drop_points) for row in rows] + [1.0]),
        "losing": sum(row.lost > 0 for row in rows),
        "gaining": sum(row.lost < 0 for row in rows),
        "typical": round(statistics.median(row.samples for row in rows)),
        "lost_pictures": kinds.count("lost"),
        "needless_pictures": kinds.count("needless"),
    }


def _breakable(name: str) -> Markup:
    """Let a long name go on in the next line after a point, a hyphen and the like."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(?<=\w)([._@-])(?=\w)", r"\1<wbr>", str(escape(name))))


def _score_of(row: Candidate) -> str:
    """Name a candidate's score, and how answers are fused after an escalation."""
    fused = f", fused by {row.fusion}" if row.fusion and row.fusion != "none" else ""
    return f"{row.score or ''}{fused}"


def _same_score(rows: Sequence[Candidate]) -> str:
    """Return the score and fusion that all candidates share; nothing where they differ."""
    found = {_score_of(row) for row in rows if row.accept_rate is not None}
    return found.pop() if len(found) == 1 else ""


def _drawer(facts: ReportFacts) -> Callable[[str], str]:
    """Return what the template calls to draw a chart at both widths."""
    from markupsafe import Markup

    charts: dict[str, Callable[[Size], str]] = {
        "tradeoff": lambda size: tradeoff(facts, size),
        "tradeoff_close": lambda size: tradeoff_close(facts, size),
        "reliability": lambda size: reliability(facts.reliability, size),
        "escalations": lambda size: escalations(facts.classes, size),
        "skyline": lambda size: skyline(facts.classes, size),
    }
    if (swept := facts.sweep) is not None:
        charts["sweep"] = lambda size: sweep(swept, size)
    if (flowing := facts.flow) is not None:
        charts["flow"] = lambda size: flow(flowing, size)
    if (histogram := facts.histogram) is not None:
        charts["histogram"] = lambda size: score_histogram(histogram, size)
    if (timed := facts.latency) is not None:
        charts["latency"] = lambda size: latency(timed, size)

    def both(name: str) -> str:
        # The charts escape every word they are given themselves.
        return Markup("".join(charts[name](size) for size in (WIDE, NARROW)))

    return both


def _options(command: str) -> list[str]:
    """Part a command line before its options, so that none is broken across two lines."""
    first, *options = command.split(" --")
    return [first, *(f"--{option}" for option in options)]


def _meter(value: float, full: float) -> int:
    """Return how far a bar is filled, in whole percent."""
    return round(100 * min(value / full, 1.0))
