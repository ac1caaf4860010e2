"""Numbers as people read them, in plain text; the report sets some of them otherwise."""

from __future__ import annotations

from datetime import datetime, timezone


def percent(fraction: float | None, digits: int = 2) -> str:
    """Write a fraction as a percentage: ``0.9338`` becomes ``93.38 %``."""
    return "?" if fraction is None else f"{100 * fraction:.{digits}f} %"


def points(drop_points: float | None) -> str:
    """Write a drop in points: ``0.37 pt``, or ``gains 0.20 pt`` where accuracy is won."""
    if drop_points is None:
        return "?"
    size = f"{abs(drop_points):.2f} pt"
    return f"gains {size}" if drop_points < 0 and size != "0.00 pt" else size


def gain(gained_points: float) -> str:
    """Write how much more accurate something is, in points: ``+0.37 pt``, ``-0.20 pt``."""
    size = f"{gained_points:+.2f} pt"
    return "0.00 pt" if size in ("+0.00 pt", "-0.00 pt") else size


def loss(drop_points: float) -> str:
    """Say what becomes of accuracy: ``loses 0.37 points of accuracy``, or gains them."""
    size = f"{abs(drop_points):.2f}"
    if size == "0.00":
        return "loses no accuracy"
    return f"{'loses' if drop_points > 0 else 'gains'} {size} points of accuracy"


def ratio(value: float | None) -> str:
    """Write a cost relative to the large model."""
    return "?" if value is None else f"{value:.3f}"


def macs(value: float | None) -> str:
    """Write multiply-accumulates with a unit: ``12.5e6`` becomes ``12.5 MMACs``."""
    if value is None:
        return "?"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}MACs"
    return f"{value:.0f} MACs"


def milliseconds(value: float | None) -> str:
    """Write a duration."""
    return "?" if value is None else f"{value:.2f} ms"


def score(value: float | None) -> str:
    """Write a score or threshold."""
    if value is None:
        return "none"
    if 0 < 1 - value < 5e-5:
        return f"1 - {1 - value:.0e}"
    return f"{value:.4f}"


def rate(frames_per_second: float) -> str:
    """Write a rate of frames."""
    return (
        f"{frames_per_second:.0f} frames/s"
        if frames_per_second >= 10
        else (f"{frames_per_second:.1f} frames/s")
    )


def time_of_day(seconds: float) -> str:
    """``1769860800.25`` since 1970 → ``"2026-01-31T12:00:00.250Z"``."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
