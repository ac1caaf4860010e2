"""Numbers as the report prints them: with a true minus sign, and never parted from the unit."""

from __future__ import annotations

import math

_SPACE = "\u00a0"
_MINUS = "\u2212"


def percent(fraction: float | None, digits: int = 2) -> str:
    """Write a fraction as a percentage: ``0.9338`` becomes ``93.38 %``; nothing for None."""
    if fraction is None:
        return ""
    return _signed(f"{100 * fraction:.{digits}f}") + f"{_SPACE}%"


def points(drop_points: float) -> str:
    """Write a number of points with its unit: ``0.37 points``."""
    return _signed(f"{drop_points:.2f}") + f"{_SPACE}points"


def short_points(drop_points: float | None) -> str:
    """Write a drop for a table's column whose head names the unit: ``+0.37``."""
    if drop_points is None:
        return ""
    return _signed(f"{drop_points:+.2f}")


def ratio(value: float | None) -> str:
    """Write a cost relative to the large model alone: ``0.517``."""
    return "?" if value is None else f"{value:.3f}"


def score(value: float | None) -> str:
    """Write a score or a threshold: four significant digits, or ``none``."""
    if value is None or math.isinf(value):
        return "none"
    return _signed(f"{value:.4g}")


def about(value: float) -> str:
    """Write a score for an axis: three decimals at most."""
    return _signed(f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 100 else f"{value:.0f}")


def count(value: int) -> str:
    """Write a whole number with thousands parted: ``50,000``."""
    return _signed(f"{value:,}")


def macs(value: float | None) -> str:
    """Write multiply-accumulates with a unit: ``12.5e6`` becomes ``12.5 MMACs``."""
    if value is None:
        return "?"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{_SPACE}{unit}MACs"
    return f"{value:.0f}{_SPACE}MACs"


def milliseconds(value: float) -> str:
    """Write a latency with three significant digits: ``4.21 ms``."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 2
    return f"{value:.{min(digits, 4)}f}{_SPACE}ms"


def _signed(text: str) -> str:
    """Put a true minus sign in, and none before a number that reads as zero."""
    if text[0] in "-+" and not text.strip("-+0.,"):
        return text[1:]
    return text.replace("-", _MINUS)
