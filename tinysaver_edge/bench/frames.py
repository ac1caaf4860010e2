"""Frames to measure with: a user's images, a bundle's golden frames, or a made-up picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge._support.files import read_file
from tinysaver_edge._support.packages import opencv
from tinysaver_edge.data.images import decode_image, image_files
from tinysaver_edge.errors import InputError
from tinysaver_edge.preprocess import Frame

if TYPE_CHECKING:
    from tinysaver_edge.bundle.bundle import Bundle

MOST_FRAMES = 64
"""As many of a folder's images are held in memory."""

PICTURE_SIZE = (720, 1280)
"""Height and width of a made-up picture: what many cameras give."""


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """A picture as a file holds it."""

    name: str
    data: bytes

    def decode(self) -> Frame:
        """Return the picture.

        Raises:
            InputError: it cannot be decoded.
        """
        frame = decode_image(self.data)
        if frame is None:
            raise InputError(f"image {self.name}: cannot be decoded")
        return frame


def frames_from(path: Path) -> list[EncodedFrame]:
    """Read an image, or the first images below a folder.

    Raises:
        InputError: there is none.
    """
    files = [path]
    if path.is_dir():
        files = image_files(path)[:MOST_FRAMES]
    if not files or not all(one.is_file() for one in files):
        raise InputError(f"--image {path}: no such image, or no images in this folder")
    return [EncodedFrame(one.name, read_file(one)) for one in files]


def golden_frames(bundle: Bundle) -> list[EncodedFrame]:
    """Return a bundle's golden frames; empty where it was made without."""
    golden = bundle.manifest.golden
    entries = [] if golden is None else golden.frames
    return [EncodedFrame(entry.path, read_file(bundle.file(entry))) for entry in entries]


def made_up_frame(size: tuple[int, int] = PICTURE_SIZE, *, seed: int = 0) -> EncodedFrame:
    """Draw areas of colour with some noise over them, as a JPEG.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = opencv("Encoding images")
    height, width = size
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 16, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = rng.normal(0, 8, picture.shape)
    picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    data = cv2.imencode(".jpg", picture)[1]
    return EncodedFrame(f"made-up picture of {width}x{height}", bytes(data.tobytes()))
