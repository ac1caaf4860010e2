"""Small labelled images on disk, for tests: colours that stand for classes, and damaged files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def picture(seed: int, *, size: int = 16) -> np.ndarray:
    """A seeded picture with large areas of one colour."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((size // 4, size // 4, 1), np.uint8))


def encoded(seed: int, suffix: str = ".png", *, size: int = 16) -> bytes:
    """The same as the bytes of a file."""
    good, data = cv2.imencode(suffix, picture(seed, size=size))
    assert good
    return bytes(data.tobytes())


def class_folders(
    folder: Path, *, classes: Sequence[str], each: int, suffix: str = ".png", size: int = 16
) -> Path:
    """Write `each` pictures into a folder a class; every picture has its own seed."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            data = encoded(number * each + index, suffix, size=size)
            (folder / name / f"{index:04d}{suffix}").write_bytes(data)
    return folder
