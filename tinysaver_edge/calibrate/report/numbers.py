"""Numbers as the report prints them: with a true minus sign, and never parted from the unit."""

from __future__ import annotations

import math

from tinysaver_edge._support import numbers

_SPACE = "\u00a0"
_MINUS = "\u2212"


def percent(fraction: float | None, digits: int = 2) -> str:
    """Write a fraction as a percentage: ``0.9338`` becomes ``93.38 %``; nothing for None."""
    return "" if fraction is None else _set(numbers.percent(fraction, digits))


def points(drop_points: float) -> str:
    """Write a number of points with its unit: ``0.37 points``."""
    return _set(f"{drop_points:.2f} points")


def short_points(drop_points: float | None) -> str:
    """Write a drop for a table's column whose head names the unit: ``+0.37``."""
    if drop_points is None:
        return ""
    return _signed(f"{drop_points:+.2f}")


def lost_points(drop_points: float | None) -> str:
    """Write a drop below a head that names the unit: ``0.37``, or ``gains 0.20``."""
    if drop_points is None:
        return ""
    size = f"{abs(drop_points):.2f}"
    return f"gains{_SPACE}{size}" if drop_points < 0 and float(size) else size


def ratio(value: float | None) -> str:
    """Write a cost relative to the large model alone: ``0.517``."""
    return numbers.ratio(value)


def score(value: float | None) -> str:
    """Write a score or a threshold: four significant digits, or ``none``."""
    if value is None or math.isinf(value):
        return "none"
    if 0 < 1 - value < 5e-5:
        return _signed(f"1 - {1 - value:.0e}")
    return _signed(f"{value:.4g}")


def about(value: float) -> str:
    """Write a score for an axis: three decimals at most."""
    return _signed(f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 100 else f"{value:.0f}")


def count(value: int) -> str:
    """Write a whole number with thousands parted: ``50,000``."""
    return _signed(f"{value:,}")


def macs(value: float | None) -> str:
    """Write multiply-accumulates with a unit: ``12.5e6`` becomes ``12.5 MMACs``."""
    return _set(numbers.macs(value))


def milliseconds(value: float) -> str:
    """Write a latency with three significant digits: ``4.21 ms``."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 2
    return _set(f"{value:.{min(digits, 4)}f} ms")


def formed(value: float, form: str) -> str:
    """Write a number without its unit, as ``%`` forms it."""
    return _signed(form % value)


def _set(text: str) -> str:
    """Put a true minus sign in, and keep the number and its unit on one line."""
    number, space, unit = text.partition(" ")
    return _signed(number) + (_SPACE + unit if space else "")


def _signed(text: str) -> str:
    """Put a true minus sign in, and none before a number that reads as zero."""
    if text[0] in "-+" and not text.strip("-+0.,"):
        return text[1:]
    return text.replace("-", _MINUS)
