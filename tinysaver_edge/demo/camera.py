"""The simulated camera: parts on a conveyor belt, with the right answer to every frame."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.demo.disturbances import FRAME_HEIGHT, FRAME_WIDTH, Textures
from tinysaver_edge.demo.parts import CLASS_NAMES
from tinysaver_edge.demo.pieces import Piece
from tinysaver_edge.demo.scene import (
    SPACING_PX,
    WINDOW_PX,
    Scene,
    compose,
    random_piece,
    random_scene,
)

__all__ = ["CLASS_NAMES", "FRAME_HEIGHT", "FRAME_WIDTH", "LabelledFrame", "SimulatedCamera", "draw"]

#: A frame, uint8 ``(240, 320, 3)`` BGR as OpenCV gives it, and its label.
LabelledFrame = tuple[NDArray[np.uint8], int]

_TEXTURE_SEED: Final = 0
_SPEED_PX_PER_S: Final = 240
_PARTS_A_BELT: Final = 10
# What a random generator is for, so that no two uses share their numbers.
_SINGLE, _PIECE, _PASSAGE, _BELT, _TAKE = range(5)


class SimulatedCamera:
    """A camera over a conveyor belt that brings industrial parts, drawn with OpenCV.

    Every frame shows one part of ``CLASS_NAMES`` near the middle. How hard it is to see varies:
    blur, light, dirt, things in the way, lean, size and noise grow together with a difficulty that
    is drawn anew for every part. All is seeded: the same seed gives the same bytes (with the same
    OpenCV). Iterating gives the stream, endless, as fast as it is drawn; nothing is kept between
    calls, so every iteration starts with the first part.

    Args:
        seed: which camera; frames of different seeds have nothing in common but the belts.
        fps: the rate that the stream stands for; parts pass at 240 pixels a second.
    """

    def __init__(self, *, seed: int = 0, fps: float = 30.0) -> None:
        self.seed = seed
        self.fps = fps
        self._textures = Textures.make(_TEXTURE_SEED)

    def __iter__(self) -> Iterator[LabelledFrame]:
        """Yield the stream: consecutive frames show the same part moving by.

        As with a light barrier, no frame is taken between two parts.
        """
        step = _SPEED_PX_PER_S / self.fps
        offsets = np.arange(WINDOW_PX, -WINDOW_PX, -step).tolist()
        for part in itertools.count():
            scene = self._passage(part)
            for take, offset in enumerate(offsets):
                rng = np.random.default_rng([self.seed, _TAKE, part, take])
                yield compose(scene, self._textures, rng, offset_px=offset), scene.label

    def frames(self, count: int, *, start: int = 0) -> Iterator[LabelledFrame]:
        """Yield independent frames, each of another part.

        Args:
            count: how many.
            start: number of the first; frame ``i`` is the same whatever was asked for before.
        """
        for index in range(start, start + count):
            scene, rng = self.scene(index)
            offset = rng.uniform(-WINDOW_PX, WINDOW_PX)
            yield compose(scene, self._textures, rng, offset_px=offset), scene.label

    def scene(self, index: int) -> tuple[Scene, np.random.Generator]:
        """Return the scene of independent frame ``index`` and the generator to compose it with."""
        rng = np.random.default_rng([self.seed, _SINGLE, index])
        difficulty = random_difficulty(rng)
        before, piece, after = (random_piece(rng, difficulty) for _ in range(3))
        scene = random_scene(
            rng,
            (before, piece, after),
            difficulty=difficulty,
            belt=int(rng.integers(len(self._textures.belts))),
            belt_px=int(rng.integers(self._textures.loop)),
            lights=len(self._textures.lights),
        )
        return scene, rng

    def _passage(self, part: int) -> Scene:
        """Return the scene of the stream's ``part``-th part, between its two neighbours."""
        (before, _), (piece, difficulty), (after, _) = (self._piece(part + i) for i in (-1, 0, 1))
        which_belt = np.random.default_rng([self.seed, _BELT, part // _PARTS_A_BELT])
        return random_scene(
            np.random.default_rng([self.seed, _PASSAGE, part]),
            (before, piece, after),
            difficulty=difficulty,
            belt=int(which_belt.integers(len(self._textures.belts))),
            belt_px=part * SPACING_PX,
            lights=len(self._textures.lights),
        )

    def _piece(self, part: int) -> tuple[Piece, float]:
        # The generator takes no negative numbers, and the part ahead of the first is number -1.
        rng = np.random.default_rng([self.seed, _PIECE, part + 1])
        difficulty = random_difficulty(rng)
        return random_piece(rng, difficulty), difficulty


def random_difficulty(rng: np.random.Generator) -> float:
    """Draw a difficulty in 0..1: most frames are easy, a few are very hard."""
    return float(rng.beta(0.7, 2.2))


def draw(count: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return independent labelled frames in two arrays.

    Args:
        count: how many; 230,400 bytes each.
        seed: which camera.

    Returns:
        Frames, uint8 ``(count, 240, 320, 3)`` BGR, and labels, int64 ``(count,)``.
    """
    frames = np.empty((count, FRAME_HEIGHT, FRAME_WIDTH, 3), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    for index, (frame, label) in enumerate(SimulatedCamera(seed=seed).frames(count)):
        frames[index], labels[index] = frame, label
    return frames, labels
