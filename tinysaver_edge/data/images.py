"""Image files: which there are, and how one is decoded."""

from __future__ import annotations

import numpy as np

from tinysaver_edge._support.opencv import opencv
from tinysaver_edge.preprocess import Frame

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
"""Endings of the files that count as images."""


def decode_image(data: bytes) -> Frame | None:
    """Decode an image file as OpenCV does, turned upright; None when it is damaged.

    A JPEG or PNG whose end is missing counts as damaged, although decoders fill in the rest.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = opencv("Decoding images")
    if _is_truncated(data):
        return None
    try:
        frame: Frame | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return frame


def _is_truncated(data: bytes) -> bool:
    if data.startswith(b"\xff\xd8"):
        return data.find(b"\xff\xd9", _jpeg_scan_start(data)) < 0
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:]
    return not data


def _jpeg_scan_start(data: bytes) -> int:
    """Return where a JPEG's own picture begins, past any thumbnail in its headers."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return place
