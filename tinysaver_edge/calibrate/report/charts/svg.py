"""Scalable pictures as text: elements, scales, axes, two widths; colours are the page's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

LEFT = 58.0
"""Room for the numbers of the left axis, in pixels."""

RIGHT = 20.0
"""Room for half of the last number of the bottom axis, in pixels."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a chart is drawn.

    Attributes:
        kind: ``wide`` or ``narrow``; the page shows one of them.
        width: in pixels.
    """

    kind: str
    width: float

    @property
    def is_narrow(self) -> bool:
        """Whether it is the phone's."""
        return self.kind == "narrow"

    @property
    def inner(self) -> float:
        """Width that is left for the plot, in pixels."""
        return self.width - LEFT - RIGHT


WIDE = Size("wide", 530.0)
NARROW = Size("narrow", 330.0)


Place = tuple[float, float]

CHARACTER = 6.3
"""About how wide a character is at the charts' 12 pixels, for placing labels."""


def number(value: float) -> str:
    """Write a coordinate shortly."""
    return f"{value:.1f}".removesuffix(".0")


def element(name: str, *, inner: str = "", title: str = "", **attributes: object) -> str:
    """Write one element; trailing underscores of names go, inner ones become hyphens."""
    if title:
        inner += f"<title>{escape(title)}</title>"
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{said}>{inner}</{name}>" if inner else f"<{name}{said}/>"


def _attribute(value: object) -> str:
    return number(value) if isinstance(value, float) else escape(str(value))


def text(place: Place, words: str, *, anchor: str = "start", class_: str = "note") -> str:
    """Write words at a place; `anchor` is start, middle or end."""
    return element(
        "text", inner=escape(words), x=place[0], y=place[1], text_anchor=anchor, class_=class_
    )


def polyline(places: Iterable[Place], *, class_: str) -> str:
    """Draw a line through places."""
    joined = " ".join(f"{number(x)},{number(y)}" for x, y in places)
    return element("polyline", points=joined, class_=class_)


def dot(place: Place, radius: float, *, class_: str, title: str = "") -> str:
    """Draw a filled circle."""
    return element("circle", cx=place[0], cy=place[1], r=radius, class_=class_, title=title)


def diamond(place: Place, radius: float, *, class_: str, title: str = "") -> str:
    """Draw a square on its corner."""
    x, y = place
    corners = ((x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y))
    joined = " ".join(f"{number(a)},{number(b)}" for a, b in corners)
    return element("polygon", points=joined, class_=class_, title=title)


def document(size: Size, height: float, parts: Iterable[str], *, label: str) -> str:
    """Wrap elements into one picture, which shrinks with the page and never grows.

    `label` says what it shows, for those who cannot see it.
    """
    return element(
        "svg",
        inner="".join(parts),
        viewBox=f"0 0 {number(size.width)} {number(height)}",
        width=float(size.width),
        height=float(height),
        role="img",
        aria_label=label,
        class_=f"chart {size.kind}",
    )


@dataclass(frozen=True, slots=True)
class Panel:
    """A rectangle with a linear scale along each side.

    Attributes:
        left: of the rectangle, in pixels.
        top: likewise.
        width: likewise.
        height: likewise.
        xs: values at its left and right.
        ys: values at its bottom and top.
    """

    left: float
    top: float
    width: float
    height: float
    xs: tuple[float, float]
    ys: tuple[float, float]

    @property
    def right(self) -> float:
        """Its right side."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Its bottom."""
        return self.top + self.height

    def x(self, value: float) -> float:
        """Where a value lies along x."""
        return self.left + self.width * (value - self.xs[0]) / (self.xs[1] - self.xs[0])

    def y(self, value: float) -> float:
        """Where a value lies along y."""
        return self.bottom - self.height * (value - self.ys[0]) / (self.ys[1] - self.ys[0])

    def at(self, x: float, y: float) -> Place:
        """Where a pair of values lies."""
        return self.x(x), self.y(y)

    def holds(self, x: float, y: float) -> bool:
        """Whether a pair of values lies within."""
        return _within(x, self.xs) and _within(y, self.ys)

    def clip(self, parts: Iterable[str], *, name: str) -> str:
        """Cut elements off at the rectangle's sides; `name` must be unique on the page."""
        box = element("rect", x=self.left, y=self.top, width=self.width, height=self.height)
        path = element("clipPath", inner=box, id=name)
        return path + element("g", inner="".join(parts), clip_path=f"url(#{name})")

    def x_axis(
        self,
        ticks: Sequence[float],
        write: Callable[[float], str],
        *,
        title: str,
        grid: bool = False,
    ) -> str:
        """Draw the bottom side with numbers below, and the title below those."""
        parts = [_line((self.left, self.bottom), (self.right, self.bottom), "axis")]
        for tick in ticks:
            x = self.x(tick)
            if grid:
                parts.append(_line((x, self.top), (x, self.bottom), "grid"))
            parts.append(_line((x, self.bottom), (x, self.bottom + 4), "axis"))
            parts.append(text((x, self.bottom + 17), write(tick), anchor="middle", class_="tick"))
        if title:
            middle = (self.left + self.width / 2, self.bottom + 35)
            parts.append(text(middle, title, anchor="middle", class_="title"))
        return "".join(parts)

    def y_axis(self, ticks: Sequence[float], write: Callable[[float], str], *, title: str) -> str:
        """Draw grid lines with numbers to their left, and the title above."""
        parts = []
        for tick in ticks:
            y = self.y(tick)
            parts.append(_line((self.left, y), (self.right, y), "grid"))
            parts.append(text((self.left - 7, y + 4), write(tick), anchor="end", class_="tick"))
        if title:
            parts.append(text((0.0, self.top - 12), title, class_="title"))
        return "".join(parts)

    def vertical(self, value: float, *, class_: str) -> str:
        """Draw a line from bottom to top."""
        return _line((self.x(value), self.top), (self.x(value), self.bottom), class_)

    def horizontal(self, value: float, *, class_: str) -> str:
        """Draw a line from left to right."""
        return _line((self.left, self.y(value)), (self.right, self.y(value)), class_)


def _line(start: Place, end: Place, class_: str) -> str:
    return element("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def _within(value: float, ends: tuple[float, float]) -> bool:
    slack = 1e-9 * (ends[1] - ends[0])
    return ends[0] - slack <= value <= ends[1] + slack


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` round numbers within low..high: multiples of 1, 2 or 5 tens."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [step * i for i in range(first, last + 1)]
    return [low]
