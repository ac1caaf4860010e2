"""A scene: the part that is inspected, its neighbours, what disturbs, and the frame they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import opencv
from tinysaver_edge.demo.disturbances import (
    FRAME_HEIGHT,
    FRAME_WIDTH,
    Line,
    Spot,
    Textures,
    View,
    random_clutter,
    random_occluder,
    random_view,
)
from tinysaver_edge.demo.parts import CLASS_NAMES
from tinysaver_edge.demo.pieces import Piece, paint_piece

#: Distance between two parts on the belt.
SPACING_PX: Final = 260
#: A frame is taken while the part's centre is within this distance of the frame's centre.
WINDOW_PX: Final = 45

#: (B, G, R) of zinc, steel, brass, black oxide and copper.
_METALS: Final = (
    (205, 200, 192),
    (165, 163, 160),
    (105, 175, 205),
    (72, 70, 70),
    (92, 125, 190),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything about one part's passage that does not change while it moves by.

    Attributes:
        difficulty: 0 (clean) to 1.
        piece: the part that is inspected.
        before: the part that went ahead of it, further along the belt.
        after: the part that follows.
        belt: index of the belt among the textures.
        belt_px: where along the belt's loop the part lies.
        clutter: what lies on the belt, relative to the part.
        occluder: what is in the way, relative to the frame, or None.
        view: light, blur and noise.
    """

    difficulty: float
    piece: Piece
    before: Piece
    after: Piece
    belt: int
    belt_px: int
    clutter: tuple[Line | Spot, ...]
    occluder: Line | None
    view: View

    @property
    def label(self) -> int:
        """The kind of the inspected part, an index into ``CLASS_NAMES``."""
        return self.piece.label


def random_piece(rng: np.random.Generator, difficulty: float) -> Piece:
    """Draw a part of any kind; the harder, the smaller, more inclined and duller it lies."""
    metal = np.array(_METALS[int(rng.integers(len(_METALS)))]) * rng.uniform(0.9, 1.15)
    blue, green, red = (metal + rng.normal(0, 6, 3)).tolist()
    return Piece(
        label=int(rng.integers(len(CLASS_NAMES))),
        shape_seed=int(rng.integers(2**31)),
        radius_px=rng.uniform(64, 82) - difficulty * rng.uniform(0, 30),
        angle=rng.uniform(0, 2 * math.pi),
        squeeze=1 - difficulty * rng.uniform(0, 0.4),
        squeeze_angle=rng.uniform(0, math.pi),
        y_px=FRAME_HEIGHT / 2 + rng.uniform(-14, 14),
        colour=(blue, green, red),
        relief=rng.uniform(0.9, 1.5) - 0.5 * difficulty,
    )


def random_scene(
    rng: np.random.Generator,
    pieces: tuple[Piece, Piece, Piece],
    *,
    difficulty: float,
    belt: int,
    belt_px: int,
    lights: int,
) -> Scene:
    """Draw what surrounds a part that passes by.

    Args:
        rng: where it comes from.
        pieces: the part ahead, the inspected part, the part that follows.
        difficulty: 0 (clean) to 1.
        belt: index of the belt among the textures.
        belt_px: where along the belt's loop the part lies.
        lights: how many lamps there are.
    """
    before, piece, after = pieces
    return Scene(
        difficulty=difficulty,
        piece=piece,
        before=before,
        after=after,
        belt=belt,
        belt_px=belt_px,
        clutter=random_clutter(rng, difficulty),
        occluder=random_occluder(rng, difficulty, piece.radius_px),
        view=random_view(rng, difficulty, lights=lights),
    )


def compose(
    scene: Scene, textures: Textures, rng: np.random.Generator, *, offset_px: float
) -> NDArray[np.uint8]:
    """Return the frame that the camera takes of a scene.

    Args:
        scene: what there is to see.
        textures: the camera's surfaces.
        rng: flicker and noise of this one frame.
        offset_px: how far right of the frame's centre the part is.

    Returns:
        uint8 ``(240, 320, 3)``, BGR.
    """
    x = FRAME_WIDTH / 2 + offset_px
    roll = round(scene.belt_px - offset_px) % textures.loop
    frame = textures.belts[scene.belt, :, roll : roll + FRAME_WIDTH].copy()
    for thing in scene.clutter:
        thing.paint(frame, shift_px=x)
    for piece, away in ((scene.before, -SPACING_PX), (scene.after, SPACING_PX), (scene.piece, 0)):
        paint_piece(frame, piece, x=x + away, light_angle=scene.view.light_angle)
    if scene.occluder is not None:
        scene.occluder.paint(frame)
    return _expose(frame, scene.view, textures, rng)


def _expose(
    frame: NDArray[np.uint8], view: View, textures: Textures, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return what the sensor makes of a scene: blurred, lit unevenly, with noise."""
    cv2 = opencv("Drawing the demo")

    blurred: Any = cv2.GaussianBlur(frame, (0, 0), view.defocus_px)
    if view.motion_px > 1:
        blurred = cv2.blur(blurred, (view.motion_px, 1))
    flicker = rng.uniform(0.97, 1.03)
    gain = np.diag([flicker * g for g in view.gain])
    light = cv2.transform(textures.lights[view.light], gain)
    lit = cv2.multiply(blurred, light, dtype=cv2.CV_32F)
    left, top = (int(v) for v in rng.integers(0, textures.spare, 2))
    noise = textures.noise[top : top + FRAME_HEIGHT, left : left + FRAME_WIDTH]
    exposed: NDArray[np.uint8] = cv2.addWeighted(
        lit, 1.0, noise, view.noise, view.haze, dtype=cv2.CV_8U
    )
    return exposed
