"""The industrial parts that the simulated camera sees: sixteen kinds, each a little different.

Every kind is one function from a random generator to patches, painted in order. Proportions vary
from piece to piece; what tells the kinds apart (a slit, the shape of teeth, a point) does not.
Several kinds resemble each other on purpose: a small picture of them is hard to tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import opencv

Outline = NDArray[np.float64]
_CURVE_POINTS = 36
Rng = np.random.Generator
_TURN: Final = 2 * math.pi
_MARGIN_PX: Final = 8
_SUBPIXEL_BITS: Final = 4
_SHADOW_PX: Final = (3, 4)


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


def _bolt(rng: Rng) -> list[Patch]:
    head, half = rng.uniform(0.36, 0.46), rng.uniform(0.17, 0.23)
    bare = rng.uniform(-0.3, 0.1)
    return [
        Patch(box(-0.6, -half, 0.93, half), 0.7),
        *thread(bare, 0.93, half, 0.13),
        Patch(box(-0.93, -head, -0.58, head), 0.7),
        Patch(box(-0.93, -0.5 * head, -0.58, 0.5 * head), 1.0),
    ]


def _screw(rng: Rng) -> list[Patch]:
    head, half = rng.uniform(0.36, 0.46), rng.uniform(0.17, 0.22)
    shaft = polygon(
        (-0.7, -half), (0.55, -0.85 * half), (0.96, 0), (0.55, 0.85 * half), (-0.7, half)
    )
    return [
        Patch(shaft, 0.8),
        *thread(rng.uniform(-0.45, -0.2), 0.75, half, 0.17, tip=0.6),
        Patch(polygon((-0.93, -head), (-0.86, -head), (-0.55, -half), (-0.55, half), (-0.86, head),
                      (-0.93, head)), 0.9),
    ]  # fmt: skip


def _rivet(rng: Rng) -> list[Patch]:
    head, half, length = rng.uniform(0.42, 0.55), rng.uniform(0.18, 0.26), rng.uniform(0.6, 0.93)
    angles = np.linspace(math.pi / 2, 3 * math.pi / 2, 18)
    dome = np.column_stack((-0.45 + 0.48 * np.cos(angles), head * np.sin(angles)))
    return [Patch(box(-0.47, -half, length, half), 0.7), Patch(dome, 1.0)]


def _eye_bolt(rng: Rng) -> list[Patch]:
    hole, half = rng.uniform(0.2, 0.26), rng.uniform(0.13, 0.18)
    return [
        Patch(box(-0.25, -half, 0.95, half), 0.7),
        *thread(rng.uniform(-0.05, 0.15), 0.95, half, 0.13),
        Patch(circle(0.43, x=-0.52), 0.9),
        Patch(circle(hole, x=-0.52), 0.0),
    ]


def _nut(rng: Rng) -> list[Patch]:
    bore = rng.uniform(0.38, 0.5)
    return [
        Patch(regular(6, 0.95), 0.75),
        Patch(circle(0.8), 1.0),
        Patch(circle(bore + 0.08), 0.6),
        Patch(circle(bore), 0.0),
    ]


def _square_nut(rng: Rng) -> list[Patch]:
    bore = rng.uniform(0.36, 0.48)
    return [
        Patch(regular(4, 0.98), 0.75),
        Patch(circle(0.67), 1.0),
        Patch(circle(bore + 0.07), 0.6),
        Patch(circle(bore), 0.0),
    ]


def _wing_nut(rng: Rng) -> list[Patch]:
    lift, wing = rng.uniform(0.05, 0.2), rng.uniform(0.24, 0.32)
    wings = [
        Patch(polygon((0.2 * s, 0.2), (0.55 * s, 0.3 - lift), (0.92 * s, 0.1 - lift),
                      (0.96 * s, -0.15 - lift), (0.8 * s, -wing - lift), (0.5 * s, -0.2 - lift),
                      (0.2 * s, -0.2)), 0.75)
        for s in (-1, 1)
    ]  # fmt: skip
    return [*wings, Patch(circle(0.37), 1.0), Patch(circle(rng.uniform(0.17, 0.23)), 0.0)]


def _washer(rng: Rng) -> list[Patch]:
    return [Patch(circle(0.93), 0.7), Patch(circle(rng.uniform(0.42, 0.62)), 0.0)]


def _lock_washer(rng: Rng) -> list[Patch]:
    bore, slit = rng.uniform(0.5, 0.64), rng.uniform(0.1, 0.16)
    return [
        Patch(circle(0.93), 0.7),
        Patch(circle(bore), 0.0),
        Patch(stroke((bore - 0.1, -0.12), (1.05, 0.12), slit), 0.0),
    ]


def _retaining_ring(rng: Rng) -> list[Patch]:
    inner, gap = rng.uniform(0.6, 0.7), rng.uniform(0.3, 0.45)
    x, y = 0.72 * math.cos(gap), 0.72 * math.sin(gap)
    lugs = [Patch(circle(0.2, x=x, y=s * y), 0.7) for s in (-1, 1)]
    holes = [Patch(circle(0.085, x=x, y=s * y), 0.0) for s in (-1, 1)]
    return [Patch(arc_band(inner, 0.93, gap, _TURN - gap), 0.7), *lugs, *holes]


def _bearing(rng: Rng) -> list[Patch]:
    bore, balls = rng.uniform(0.3, 0.4), int(rng.integers(8, 11))
    return [
        Patch(circle(0.95), 0.9),
        Patch(circle(0.76), 0.2),
        *ring_of_holes(balls, 0.66, 0.13, height=0.9),
        Patch(circle(0.55), 0.9),
        Patch(circle(bore), 0.0),
    ]


def _gear(rng: Rng) -> list[Patch]:
    teeth, bore = int(rng.integers(14, 21)), rng.uniform(0.18, 0.3)
    return [
        Patch(toothed(teeth, 0.8, 0.96, foot=0.58, crown=0.36), 0.8),
        Patch(circle(0.66), 0.55),
        Patch(circle(bore + 0.14), 0.9),
        Patch(circle(bore), 0.0),
    ]


def _sprocket(rng: Rng) -> list[Patch]:
    teeth, bore = int(rng.integers(11, 16)), rng.uniform(0.16, 0.24)
    return [
        Patch(toothed(teeth, 0.73, 0.97, foot=0.85, crown=0.12), 0.7),
        *ring_of_holes(int(rng.integers(4, 6)), 0.48, 0.12),
        Patch(circle(bore), 0.0),
    ]


def _bracket(rng: Rng) -> list[Patch]:
    width, short = rng.uniform(0.42, 0.52), rng.uniform(0.25, 0.6)
    edge = -0.68 + width
    arm = polygon((-0.68, -0.72), (edge, -0.72), (edge, 0.72 - width), (short, 0.72 - width),
                  (short, 0.72), (-0.68, 0.72))  # fmt: skip
    middle = -0.68 + width / 2
    return [
        Patch(arm, 0.7),
        Patch(circle(0.1, x=middle, y=-0.5), 0.0),
        Patch(circle(0.1, x=short - 0.22, y=0.72 - width / 2), 0.0),
        Patch(circle(0.1, x=middle, y=0.72 - width / 2), 0.0),
    ]


def _chain_link(rng: Rng) -> list[Patch]:
    lobe, bore = rng.uniform(0.38, 0.44), rng.uniform(0.16, 0.22)
    waist = rng.uniform(0.5, 0.75) * lobe
    patches = [Patch(box(-0.52, -waist, 0.52, waist), 0.6)]
    for x in (-0.53, 0.53):
        patches += [Patch(circle(lobe, x=x), 0.75), Patch(circle(bore, x=x), 0.0)]
    return patches


def _spring(rng: Rng) -> list[Patch]:
    coils, half, wire = int(rng.integers(6, 10)), rng.uniform(0.28, 0.4), rng.uniform(0.07, 0.1)
    x = np.linspace(-0.88, 0.88, 2 * coils + 1)
    y = np.where(np.arange(x.size) % 2 == 0, half, -half)
    knots = list(zip(x.tolist(), y.tolist(), strict=True))
    turns = [
        Patch(stroke(knots[i], knots[i + 1], wire), 0.45 if i % 2 else 0.95)
        for i in range(len(knots) - 1)
    ]
    return turns[1::2] + turns[::2]


_PARTS: Final[dict[str, Callable[[Rng], list[Patch]]]] = {
    "bolt": _bolt,
    "screw": _screw,
    "rivet": _rivet,
    "eye_bolt": _eye_bolt,
    "nut": _nut,
    "square_nut": _square_nut,
    "wing_nut": _wing_nut,
    "washer": _washer,
    "lock_washer": _lock_washer,
    "retaining_ring": _retaining_ring,
    "bearing": _bearing,
    "gear": _gear,
    "sprocket": _sprocket,
    "bracket": _bracket,
    "chain_link": _chain_link,
    "spring": _spring,
}


#: What the demo's labels mean, in the order of the models' outputs.
CLASS_NAMES: Final[tuple[str, ...]] = tuple(_PARTS)


def part_patches(label: int, rng: np.random.Generator) -> list[Patch]:
    """Return one piece of a kind as patches in painting order."""
    return _PARTS[CLASS_NAMES[label]](rng)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one kind, with its own proportions, lying on the belt.

    Attributes:
        label: its kind, an index into ``CLASS_NAMES``.
        shape_seed: where its own proportions come from.
        radius_px: of the disc that it fits into.
        angle: how it is turned, radians.
        squeeze: how much it is foreshortened, 1 seen straight from above, less when it leans.
        squeeze_angle: the direction in which it leans, radians.
        y_px: where its centre lies across the belt, from the frame's top.
        colour: (B, G, R) of its metal, 0 to 255.
        relief: how strongly its edges catch the light, about 0.5 (dull) to 1.5 (polished).
    """

    label: int
    shape_seed: int
    radius_px: float
    angle: float
    squeeze: float
    squeeze_angle: float
    y_px: float
    colour: tuple[float, float, float]
    relief: float

    def pose(self) -> NDArray[np.float64]:
        """Return the 2 × 2 matrix from the part's units to pixels."""
        turn = _rotation(self.angle)
        lean = _rotation(self.squeeze_angle)
        squeezed: NDArray[np.float64] = lean @ np.diag((1.0, self.squeeze)) @ lean.T @ turn
        return self.radius_px * squeezed


def _rotation(angle: float) -> NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array(((c, -s), (s, c)))


def paint_piece(frame: NDArray[np.uint8], piece: Piece, *, x: float, light_angle: float) -> None:
    """Paint a piece and its shadow into a frame, in place.

    Args:
        frame: uint8 ``(height, width, 3)``, BGR.
        piece: what to paint.
        x: its centre, in pixels from the left; it may lie outside.
        light_angle: where the light comes from, radians.
    """
    side = 2 * (math.ceil(piece.radius_px) + _MARGIN_PX)
    left, top = math.floor(x) - side // 2, math.floor(piece.y_px) - side // 2
    a, b = max(0, -left), max(0, -top)
    c, d = min(side, frame.shape[1] - left), min(side, frame.shape[0] - top)
    if a >= c or b >= d:
        return
    coverage, height = _outline(piece, side, x - left, piece.y_px - top)
    shade = _shade(piece, height, light_angle)
    window, ground = (slice(b, d), slice(a, c)), frame[top + b : top + d, left + a : left + c]
    ground[...] = _blend(ground, coverage, shade, window, piece.colour)


def _outline(
    piece: Piece, side: int, x: float, y: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return how much of each pixel the piece covers, and how high it is there (0 to 255)."""
    cv2 = opencv("Drawing the demo")

    coverage = np.zeros((side, side), dtype=np.uint8)
    height = np.zeros((side, side), dtype=np.uint8)
    pose, scale = piece.pose().T, 1 << _SUBPIXEL_BITS
    for patch in part_patches(piece.label, np.random.default_rng(piece.shape_seed)):
        corners = np.rint((patch.outline @ pose + (x, y)) * scale).astype(np.int32)
        level = round(255 * patch.height)
        solid = 255 if level else 0
        cv2.fillPoly(height, [corners], level, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
        cv2.fillPoly(coverage, [corners], solid, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return coverage, height


def _shade(piece: Piece, height: NDArray[np.uint8], light_angle: float) -> NDArray[np.float32]:
    """Return the brightness of the surface, about 0 to 2: height, and edges that face the light."""
    cv2 = opencv("Drawing the demo")

    x, y = math.cos(light_angle), math.sin(light_angle)
    kernel = np.array(
        ((x + y, 2 * y, y - x), (2 * x, 0, -2 * x), (x - y, -2 * y, -x - y)), dtype=np.float32
    )
    soft = cv2.GaussianBlur(height, (0, 0), 0.8)
    relief: Any = cv2.filter2D(soft, cv2.CV_32F, kernel * (piece.relief / (6 * 255)))
    shade: NDArray[np.float32] = cv2.scaleAdd(soft.astype(np.float32), 0.6 / 255, relief + 0.4)
    return shade


def _blend(
    ground: NDArray[np.uint8],
    coverage: NDArray[np.uint8],
    shade: NDArray[np.float32],
    window: tuple[slice, slice],
    colour: tuple[float, float, float],
) -> NDArray[np.uint8]:
    """Return the ground with the visible window of the piece over it, its shadow first."""
    cv2 = opencv("Drawing the demo")

    shift = np.array(((1, 0, _SHADOW_PX[0]), (0, 1, _SHADOW_PX[1])), dtype=np.float32)
    moved = cv2.warpAffine(coverage, shift, coverage.shape[::-1], flags=cv2.INTER_NEAREST)
    shadow = cv2.blur(moved, (7, 7))[window].astype(np.float32)
    solid = coverage[window].astype(np.float32) / 255
    kept = cv2.merge([(1 - solid) * (1 - shadow * (0.55 / 255))] * 3)
    lit = shade[window] * solid
    metal = cv2.merge([lit * channel for channel in colour])
    painted: NDArray[np.uint8] = cv2.add(
        cv2.multiply(ground, kept, dtype=cv2.CV_32F), metal, dtype=cv2.CV_8U
    )
    return painted
