"""Outlines in the plane: the few polygons that all parts of the demo are put together from.

An outline is a float64 array ``(points, 2)`` of x, y in units of the part's radius: a part lies
within the unit disc around (0, 0). Curves are polygons with enough corners for a small camera.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]

_CURVE_POINTS = 36


class Patch(NamedTuple):
    """One polygon of a part and how high its surface lies.

    Attributes:
        outline: the polygon, ``(points, 2)`` in units of the part's radius.
        height: 0 cuts a hole through the part; larger lies nearer to the camera, up to 1.
    """

    outline: Outline
    height: float


def polygon(*corners: tuple[float, float]) -> Outline:
    """Return the outline with these corners."""
    return np.array(corners, dtype=np.float64)


def regular(corners: int, radius: float, *, turn: float = 0.0) -> Outline:
    """Return a regular polygon around the origin; ``turn`` in radians."""
    angles = turn + 2 * math.pi * np.arange(corners) / corners
    return radius * np.column_stack((np.cos(angles), np.sin(angles)))


def circle(radius: float, *, x: float = 0.0, y: float = 0.0) -> Outline:
    """Return a circle around (x, y)."""
    around: Outline = regular(_CURVE_POINTS, radius) + np.array((x, y))
    return around


def box(left: float, top: float, right: float, bottom: float) -> Outline:
    """Return an upright rectangle."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def arc_band(inner: float, outer: float, start: float, stop: float) -> Outline:
    """Return the piece of a ring between two angles (radians)."""
    angles = np.linspace(start, stop, _CURVE_POINTS)
    ray = np.column_stack((np.cos(angles), np.sin(angles)))
    return np.concatenate((outer * ray, inner * ray[::-1]))


def toothed(teeth: int, root: float, tip: float, *, foot: float, crown: float) -> Outline:
    """Return a wheel's rim.

    Args:
        teeth: how many teeth.
        root: radius between the teeth.
        tip: radius at the teeth's ends.
        foot: width of a tooth at the root, as a fraction of the pitch.
        crown: the same at the tip; near 0 gives points.
    """
    pitch = 2 * math.pi / teeth
    offsets = pitch * np.array([-foot / 2, -crown / 2, crown / 2, foot / 2])
    radii = np.array([root, tip, tip, root])
    angles = (pitch * np.arange(teeth)[:, None] + offsets).ravel()
    rays = np.column_stack((np.cos(angles), np.sin(angles)))
    rim: Outline = np.tile(radii, teeth)[:, None] * rays
    return rim


def ring_of_holes(count: int, radius: float, hole: float, *, height: float = 0.0) -> list[Patch]:
    """Return ``count`` equal discs evenly around the origin, holes unless a height is given."""
    return [Patch(circle(hole, x=x, y=y), height) for x, y in regular(count, radius, turn=0.4)]


def stroke(start: tuple[float, float], stop: tuple[float, float], width: float) -> Outline:
    """Return a straight line of the given width as a rectangle."""
    a, b = np.array(start), np.array(stop)
    along = (b - a) / np.linalg.norm(b - a)
    across = np.array([-along[1], along[0]]) * (width / 2)
    return np.stack((a + across, b + across, b - across, a - across))


def thread(
    left: float, right: float, half: float, pitch: float, *, tip: float = 1.0
) -> list[Patch]:
    """Return the grooves of a screw thread along the x axis.

    Args:
        left: where the thread starts.
        right: where it ends.
        half: half the shaft's width at ``left``.
        pitch: distance between grooves.
        tip: the shaft's width at ``right`` relative to that at ``left``.
    """
    grooves = []
    for x in np.arange(left, right - pitch, pitch):
        reach = half * (1 + (tip - 1) * (x - left) / (right - left))
        grooves.append(Patch(stroke((x, -reach), (x + 0.7 * pitch, reach), 0.45 * pitch), 0.25))
    return grooves
