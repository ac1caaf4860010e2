"""Scenes: real photos under a camera that rests, pans or zooms, with noise, flicker and cuts.

An epoch is a random photo, or two with a cut between them, under one random motion.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]

SIDE = 224
FRAMES = 40
FRAMES_PER_S = 4.0
"""Forty frames are an epoch of ten seconds."""

MOTIONS = ("rest", "pan", "zoom")


@dataclass(frozen=True, slots=True)
class Scene:
    """One epoch before it is drawn.

    Attributes:
        photos: positions of the photo shown first and of the one shown after the cut; equal where
            there is none.
        cut: the first frame of the second photo; `FRAMES` where there is none.
        motion: rest, pan or zoom.
        speed: of a pan in pixels a frame, of a zoom in its factor a frame less 1.
        direction: of a pan, in radians; of a zoom whether it goes in (< pi) or out.
        noise: standard deviation of a pixel's, in grey levels.
        flicker: amplitude of the light's, as a share.
        flicker_step: by how much its phase moves a frame, in radians.
        seed: of noise, view and phase.
    """

    photos: tuple[int, int]
    cut: int
    motion: str
    speed: float
    direction: float
    noise: float
    flicker: float
    flicker_step: float
    seed: int


def draw(photos: int, rng: np.random.Generator) -> Scene:
    """Draw an epoch: half of the cameras rest, a tenth of the epochs have a cut.

    Args:
        photos: how many there are.
        rng: what decides.
    """
    first, second = rng.integers(photos, size=2).tolist()
    has_cut = rng.random() < 0.1
    motion = str(rng.choice(MOTIONS, p=(0.5, 0.3, 0.2)))
    speed = {
        "rest": 0.0,
        "pan": float(rng.uniform(0.1, 1.0)),
        "zoom": float(rng.uniform(0.001, 0.005)),
    }
    return Scene(
        photos=(first, second if has_cut else first),
        cut=int(rng.integers(4, FRAMES - 4)) if has_cut else FRAMES,
        motion=motion,
        speed=speed[motion],
        direction=float(rng.uniform(0, 2 * np.pi)),
        noise=float(rng.uniform(1.0, 4.0)),
        flicker=float(rng.uniform(0.0, 0.03)),
        flicker_step=float(rng.uniform(0, 2 * np.pi)),
        seed=int(rng.integers(1 << 31)),
    )


def frames_of(scene: Scene, photos: list[Frame]) -> Iterator[Frame]:
    """Yield the frames of an epoch, ``(SIDE, SIDE, 3)`` BGR each.

    The view is a window of 80 to 95 % of the photo, moved at a fraction of a pixel where it moves,
    and mirrored back from the photo's border where it would leave it.
    """
    rng = np.random.default_rng(scene.seed)
    share, phase = rng.uniform(0.8, 0.95), rng.uniform(0, 2 * np.pi)
    offset = rng.uniform(-1, 1, size=2)
    for number in range(FRAMES):
        photo = photos[scene.photos[number >= scene.cut]]
        side = min(photo.shape[:2])
        scale = share * side / SIDE
        moved = np.zeros(2)
        if scene.motion == "pan":
            moved = (
                scene.speed * number * np.array([np.cos(scene.direction), np.sin(scene.direction)])
            )
        elif scene.motion == "zoom":
            scale *= (1 + scene.speed) ** (number if scene.direction < np.pi else -number)
        room = max(0.0, (side - scale * SIDE) / 2)
        centre = np.array([photo.shape[1], photo.shape[0]]) / 2 + _within(
            offset * room + moved, room
        )
        corner = centre - scale * SIDE / 2
        matrix = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
        view = cv2.warpAffine(
            photo,
            matrix,
            (SIDE, SIDE),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        ).astype(np.float32)
        view *= 1 + scene.flicker * np.sin(phase + scene.flicker_step * number)
        view += rng.standard_normal(view.shape, np.float32) * scene.noise
        yield np.clip(np.rint(view), 0, 255).astype(np.uint8)


def _within(place: NDArray[np.float64], room: float) -> NDArray[np.float64]:
    """Reflect a place back into -room..room, as a camera on a rail turns round."""
    if room == 0:
        return np.zeros_like(place)
    around = np.mod(place + room, 4 * room)
    return np.where(around > 2 * room, 4 * room - around, around) - room


def read_photos(folder: Path) -> tuple[list[Frame], NDArray[np.int64]]:
    """Read photos and their classes, from a folder with labels.csv and photos/."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    photos = [cv2.imread(str(folder / "photos" / Path(row["file"]).name)) for row in rows]
    return photos, np.array([int(row["label"]) for row in rows])


def classes_of(scene: Scene, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the true class of each frame, ``(FRAMES,)``."""
    first, second = scene.photos
    return np.where(np.arange(FRAMES) < scene.cut, labels[first], labels[second])
