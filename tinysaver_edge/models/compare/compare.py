"""Hold one form of a model's answers against another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.data import DataSource, open_data
from tinysaver_edge.engines.base import Engine
from tinysaver_edge.errors import DataError
from tinysaver_edge.preprocess import Frame, Preprocess, Preprocessor

COUNT = 16
"""How many pictures a comparison takes unless it is told otherwise."""

_SIDE = 256


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures and where they are from.

    Attributes:
        frames: the pictures, BGR uint8.
        origin: in a few words, for reports.
    """

    frames: tuple[Frame, ...]
    origin: str


def read_pictures(path: Path, *, count: int = COUNT) -> Pictures:
    """Take pictures from a user's images, at even distances.

    Args:
        path: folder of class folders, .zip, .csv or .jsonl.
        count: how many at most.

    Raises:
        DataError: there are no images, or none of those taken can be read.
    """
    with open_data(path) as data:
        return pictures_of(data, count=count)


def pictures_of(data: DataSource, *, count: int = COUNT) -> Pictures:
    """Take pictures from a user's images, at even distances.

    Args:
        data: the images.
        count: how many at most.

    Raises:
        DataError: none of those taken can be read.
    """
    frames = tuple(frame for frame in _taken(data, count) if frame is not None)
    if not frames:
        raise DataError(f"data {data.path}: none of the images that were tried can be read")
    return Pictures(frames, f"{len(frames)} images of {data.path.name}")


def _taken(data: DataSource, count: int) -> list[Frame | None]:
    places = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)
    return [data.frame(int(place)) for place in places]


def draw_pictures(*, count: int = COUNT, seed: int = 0) -> Pictures:
    """Draw pictures whose detail falls off with its fineness, as it does in photographs.

    Args:
        count: how many.
        seed: decides what they look like.
    """
    rng = np.random.default_rng(seed)
    rows = np.fft.fftfreq(_SIDE)[:, None]
    columns = np.fft.rfftfreq(_SIDE)[None, :]
    fineness = np.sqrt(rows**2 + columns**2)
    fineness[0, 0] = 1 / _SIDE
    frames = []
    for _ in range(count):
        noise = rng.normal(size=(3, _SIDE, _SIDE))
        colours = np.fft.irfft2(np.fft.rfft2(noise) / fineness, s=(_SIDE, _SIDE))
        mixed = np.einsum("dc,chw->hwd", rng.normal(0, 0.3, (3, 3)) + 0.7, colours)
        scaled = mixed / mixed.std() * rng.uniform(30, 70) + rng.uniform(90, 160)
        frames.append(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))
    return Pictures(tuple(frames), f"{count} drawn pictures")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far two sets of answers to the same pictures lie apart.

    Attributes:
        samples: how many pictures.
        max_difference: largest absolute difference between two logits; NaN where one is NaN.
        largest_logit: largest absolute value among the reference's logits, for scale.
        top1_agreement: share of pictures with the same best class, 0..1.
    """

    samples: int
    max_difference: float
    largest_logit: float
    top1_agreement: float

    def within(self, tolerance: float) -> bool:
        """Whether no logit is further off than that; NaN never is.

        Where all logits are small, as with random weights, so is what they may be off by.
        """
        return self.max_difference <= tolerance * min(1.0, self.largest_logit)


def compare(reference: NDArray[np.float32], found: NDArray[np.float32]) -> Comparison:
    """Compare logits, ``(n, classes)`` each."""
    return Comparison(
        samples=len(reference),
        max_difference=float(np.abs(reference - found).max()),
        largest_logit=float(np.abs(reference).max()),
        top1_agreement=float((reference.argmax(axis=1) == found.argmax(axis=1)).mean()),
    )


def answers(
    engine: Engine, preprocess: Preprocess, frames: Sequence[Frame], *, batch: int = 4
) -> NDArray[np.float32]:
    """Run an engine over pictures.

    Args:
        engine: an open engine.
        preprocess: what it was opened with.
        frames: BGR uint8, of any size.
        batch: how many at a time.

    Returns:
        Logits ``(n, classes)``.

    Raises:
        EngineError: a run failed.
    """
    preprocessor = Preprocessor(preprocess)
    parts = [
        engine.infer(preprocessor.batch(frames[start : start + batch])).copy()
        for start in range(0, len(frames), batch)
    ]
    return np.concatenate(parts)
