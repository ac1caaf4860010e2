"""One piece of metal on the belt: what it is, how it lies, and how it is painted into a frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import opencv
from tinysaver_edge.demo.parts import part_patches

_MARGIN_PX: Final = 8
_SUBPIXEL_BITS: Final = 4
_SHADOW_PX: Final = (3, 4)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one kind, with its own proportions, lying on the belt.

    Attributes:
        label: its kind, an index into ``CLASS_NAMES``.
        shape_seed: where its own proportions come from.
        radius_px: radius of the disc that it fits into.
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
