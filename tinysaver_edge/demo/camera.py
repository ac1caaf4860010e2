"""The simulated camera: parts on a conveyor belt, with the right answer to every frame.

Also as a live source: `demo://?fps=30&seed=1&frames=300`.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator
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
from tinysaver_edge.demo.parts import CLASS_NAMES, Piece, paint_piece
from tinysaver_edge.errors import InputError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.sources.live import Connection, LiveOptions, LiveSource
from tinysaver_edge.stream.sources.opening import float_option, int_option, need_known
from tinysaver_edge.stream.sources.source import Clock
from tinysaver_edge.stream.sources.uri import SourceUri

__all__ = [
    "CLASS_NAMES",
    "FRAME_HEIGHT",
    "FRAME_WIDTH",
    "DemoDevice",
    "LabelledFrame",
    "SimulatedCamera",
    "draw",
    "open_demo",
]

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


class DemoDevice:
    """The simulated camera, at its own pace.

    Args:
        fps: frames a second.
        seed: which camera.
        frames: how many it takes; None for no end.
        clock: seconds, to keep the pace with.
    """

    def __init__(
        self,
        *,
        fps: float = 30.0,
        seed: int = 0,
        frames: int | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._camera = SimulatedCamera(seed=seed, fps=fps)
        self._frames = frames
        self._clock = clock

    def connect(self, options: LiveOptions, stopping: threading.Event) -> Connection:
        """Start the camera anew."""
        return _Running(iter(self._camera), self._camera.fps, self._frames, self._clock, stopping)


FPS = (0.01, 1000.0)
"""What `demo://` takes: a part's passage is laid out in steps of one frame."""


class _Running:
    """The camera while it runs; a frame that is drawn too late is taken late, not left out."""

    live_wait_s: float | None = None

    def __init__(
        self,
        drawn: Iterator[LabelledFrame],
        fps: float,
        frames: int | None,
        clock: Clock,
        stopping: threading.Event,
    ) -> None:
        self._drawn, self._period_s, self._left = drawn, 1 / fps, frames
        self._clock, self._stopping = clock, stopping
        self._next_s = clock()

    def read(self, into: Picture | None) -> Picture | None:
        """Wait for the next frame."""
        if self._left == 0:
            return None
        if self._left is not None:
            self._left -= 1
        frame, _ = next(self._drawn)
        wait_s = self._next_s - self._clock()
        if wait_s > 0:
            self._stopping.wait(wait_s)
        self._next_s = max(self._next_s, self._clock() - self._period_s) + self._period_s
        return frame

    def close(self) -> None:
        """Let go of nothing."""


def open_demo(uri: SourceUri) -> LiveSource:
    """Open the simulated camera.

    Raises:
        InputError: an option is unknown or out of range.
    """
    need_known(uri, "fps", "seed", "frames")
    seed = uri.options.get("seed", "0")
    if not (seed.isascii() and seed.isdigit()):
        raise InputError(f"source demo: seed {seed!r} is no whole number")
    fps = float_option(uri, "fps") or 30.0
    if not FPS[0] <= fps <= FPS[1]:
        raise InputError(f"source demo: fps {fps:g} is not from {FPS[0]:g} to {FPS[1]:g}")
    device = DemoDevice(fps=fps, seed=int(seed), frames=int_option(uri, "frames"))
    return LiveSource(device, source_id=uri.source_id)


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything about one part's passage that does not change while it moves by.

    Attributes:
        difficulty: 0 (clean) to 1.
        piece: the part that is inspected.
        before: the part that went ahead of it, further along the belt.
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
