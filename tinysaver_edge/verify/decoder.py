"""Decoder: do pictures come out of this machine's image decoder as they did when calibrating?

JPEG leaves decoders some freedom, above all in how they spread colour over pixels: two of them may
be 30 grey levels apart on the same file. Golden frames are lossless, so they cannot show that; a
small JPEG beside them can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.opencv import opencv
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.bundle.manifest import GoldenEntry
from tinysaver_edge.data import decode_image
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.verify.check import Check

NAME = "image decoder"

LARGEST_DIFFERENCE = 2
"""Grey levels that two builds of one decoder may differ by."""

_SIZE, _PATCHES, _QUALITY = 64, 8, 90


def write_decoder_sample(path: Path) -> None:
    """Write a JPEG of many colours side by side: where decoders differ most. The same each time."""
    cv2 = opencv("Writing the decoder's sample")

    patches = np.random.default_rng(0).integers(0, 256, (_PATCHES, _PATCHES, 3), dtype=np.uint8)
    picture = cv2.resize(patches, (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    path.write_bytes(data.tobytes())


def decoded(sample: bytes, frames: Sequence[Frame]) -> dict[str, NDArray[Any]]:
    """Return what tells one decoder from another.

    Returns:
        ``decoded`` ``(height, width, 3)`` uint8, the sample's pixels, and ``frame_sha256``
        ``(n,)``, a hash of each golden frame's.
    """
    pixels = decode_image(sample)
    return {
        "decoded": np.zeros((0, 0, 3), np.uint8) if pixels is None else pixels,
        "frame_sha256": np.array([_hash(frame) for frame in frames]),
    }


def check_decoder(
    bundle: Bundle, golden: GoldenEntry, kept: dict[str, NDArray[Any]], frames: Sequence[Frame]
) -> Check:
    """Compare the pixels that come out of this machine's decoder with those that were kept."""
    if golden.decoder is None or not {"decoded", "frame_sha256"} <= kept.keys():
        return Check(NAME, None, "the bundle was made without a sample for it")
    here = decoded(bundle.file(golden.decoder).read_bytes(), frames)
    if kept["decoded"].shape != here["decoded"].shape:
        return Check(NAME, False, "the sample JPEG is of another size here: another decoder")
    apart = np.abs(kept["decoded"].astype(np.int16) - here["decoded"].astype(np.int16))
    worst = int(apart.max(initial=0))
    same = worst <= LARGEST_DIFFERENCE
    detail = (
        f"pixels of a JPEG differ by up to {worst} of 255 (allowed: {LARGEST_DIFFERENCE}): "
        f"{'same' if same else 'another'} decoder"
    )
    if same and not np.array_equal(kept["frame_sha256"], here["frame_sha256"]):
        return Check(NAME, False, "golden frames have other pixels here: another decoder of PNG")
    return Check(NAME, same, detail)


def _hash(frame: Frame) -> str:
    return hashlib.sha256(repr(frame.shape).encode() + frame.tobytes()).hexdigest()
