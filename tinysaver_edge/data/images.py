"""Image files: which there are, and how one is decoded."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from tinysaver_edge._support.packages import opencv
from tinysaver_edge.preprocess import Frame

IMAGE_SUFFIXES = frozenset(
    {
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".bmp", ".dib", ".webp"),
        *(".gif", ".avif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pam"),
    }
)
"""Endings of the files that count as images: what OpenCV reads; builds without one say unreadable.
"""


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


def decode_small(data: bytes) -> Frame | None:
    """Decode an image file to look at it in small: of large files every few pixels are enough.

    Returns:
        As `decode_image`, of an eighth of the width and height or more.
    """
    cv2 = opencv("Decoding images")
    if _is_truncated(data):
        return None
    scale = cv2.IMREAD_COLOR
    if data.startswith(b"\xff\xd8") and len(data) > 200_000:  # what others gain is little
        scale = cv2.IMREAD_REDUCED_COLOR_4 if len(data) < 2_000_000 else cv2.IMREAD_REDUCED_COLOR_8
    try:
        frame: Frame | None = cv2.imdecode(np.frombuffer(data, np.uint8), scale)
    except cv2.error:
        return None
    return frame


@dataclass(frozen=True, slots=True)
class Depth:
    """What a picture of more than 8 bits a channel holds. `decode_image` keeps the upper 8.

    Attributes:
        bits: of a channel.
        used: bits that its brightest value needs.
    """

    bits: int
    used: int

    @property
    def text(self) -> str:
        """What becomes of such a picture, for people."""
        brightest = 255 >> (self.bits - self.used)
        return (
            f"{self.bits} bits a channel, of which {self.used} are used: models see the upper 8, "
            f"at most {brightest} of 255; spread such pictures over 8 bits before they come here"
        )


def dark_depth(data: bytes) -> Depth | None:
    """Say what a picture of 16 bits holds, where the upper 8 are not what it is about.

    Sensors of 10, 12 or 14 bits (X-ray, thermal) write files of 16 and leave the upper ones empty.

    Returns:
        None for all other pictures.
    """
    if not _may_be_deep(data):
        return None
    cv2 = opencv("Decoding images")
    try:
        whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if whole is None or whole.dtype != np.uint16:
        return None
    pixels = whole[..., :3] if whole.ndim == 3 else whole  # a fourth channel is opacity
    used = int(pixels.max()).bit_length()
    return Depth(16, used) if used <= 14 else None


def _may_be_deep(data: bytes) -> bool:
    if data.startswith(b"\x89PNG"):
        return data[24:25] == b"\x10"
    if data[:2] in (b"P5", b"P6"):
        header = re.match(rb"P[56](?:\s+|#[^\n]*\n)*\d+(?:\s+|#[^\n]*\n)+\d+\s+(\d+)", data[:512])
        return header is not None and int(header[1]) > 255
    return data.startswith((b"II*\0", b"MM\0*", b"P7", b"\0\0\0\x0cjP", b"\xffO\xffQ"))


def _is_truncated(data: bytes) -> bool:
    if data.startswith(b"\xff\xd8"):
        return data.find(b"\xff\xd9", _jpeg_scan_start(data)) < 0
    if data.startswith(b"\x89PNG"):
        return not _png_is_whole(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return not data


def _png_is_whole(data: bytes) -> bool:
    """Whether a PNG's last chunk is there; tools write what they like behind it."""
    place = 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IEND":
            return end <= len(data)
        place = end
    return False


def _jpeg_scan_start(data: bytes) -> int:
    """Return where a JPEG's own picture begins, past any thumbnail in its headers."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return place
