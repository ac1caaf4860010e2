"""The codec: what frames pass on their way to a large model, the same wherever they pass it.

A device encodes, its host decodes. Calibration, and a large model that runs on the device itself,
do both, so that all of them show the model the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.limits import JPEG_ROOM_BYTES
from tinysaver_edge._support.packages import opencv
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.preprocess import Batch, Preprocess


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) as the first frame header tells them; None where there is none."""
    if data[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        if kind == 0xFF:  # padding
            place += 1
            continue
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height = data[place + 5] << 8 | data[place + 6]
            return height, data[place + 7] << 8 | data[place + 8]
        if kind in (0xD8, 0xD9, 0xDA):
            return None
        place += 2 + (data[place + 2] << 8 | data[place + 3])
    return None


@dataclass(frozen=True, slots=True)
class Jpeg:
    """JPEG files in place of pixels.

    Colours keep all their pixels (4:4:4). Halved, as OpenCV does by itself, they cost 2.2 points on
    CIFAR-10 at quality 95 in place of 1.2, for 10 % fewer bytes (benchmarks/bench_uplink.py).

    Attributes:
        quality: 1 to 100.

    Raises:
        InputError: the quality is none.
    """

    quality: int

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise InputError(f"JPEG quality {self.quality}: must be from 1 to 100")

    def encode(self, batch: Batch) -> NDArray[np.object_]:
        """Return a file a frame, ``(n,)`` objects that hold bytes.

        Args:
            batch: ``(n, height, width, 3)`` BGR uint8.

        Raises:
            EngineError: the batch is something else.
        """
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
            raise EngineError(
                f"JPEG holds uint8 (height, width, 3) pictures, and this model takes "
                f"{batch.dtype} {batch.shape[1:]}: send it pixels"
            )
        cv2 = opencv("Encoding JPEG")
        settings = [cv2.IMWRITE_JPEG_QUALITY, self.quality]
        settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        files = np.empty(len(batch), object)
        for index, picture in enumerate(batch):
            good, data = cv2.imencode(".jpg", picture, settings)
            if not good:
                raise EngineError("a frame could not be encoded as JPEG")
            files[index] = data.tobytes()
        return files

    def through(self, batch: Batch) -> Batch:
        """Return a batch as the model at the other end sees it, in a new array."""
        return decode(self.encode(batch), batch.shape[1:])

    def __str__(self) -> str:
        return f"JPEG of quality {self.quality}"


def decode(files: NDArray[Any], shape: Sequence[int]) -> Batch:
    """Return the frames that files hold, ``(n, height, width, 3)`` BGR uint8.

    Args:
        files: JPEG files as bytes, an array of any shape.
        shape: height, width and channels that each must have.

    Raises:
        EngineError: one is no such file.
    """
    cv2 = opencv("Decoding JPEG")
    wanted = tuple(shape)
    longest = 2 * math.prod(wanted) + JPEG_ROOM_BYTES
    for data in files.reshape(-1):  # all of them before one is decoded: a header costs nothing
        if not isinstance(data, bytes) or jpeg_size(data) != wanted[:2] or len(data) > longest:
            raise _no_such_file(wanted)
    batch = np.empty((files.size, *wanted), np.uint8)
    for place, data in zip(batch, files.reshape(-1), strict=True):
        try:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            picture = None
        if picture is None or picture.shape != place.shape:
            raise _no_such_file(wanted)
        place[...] = picture
    return batch


def _no_such_file(shape: Sequence[int]) -> EngineError:
    return EngineError(f"expected JPEG files of {shape[0]} x {shape[1]} pixels")


def check_carries(preprocess: Preprocess, *, model: str) -> None:
    """Refuse JPEG before a model that takes anything but a frame's own pixels.

    Raises:
        InputError: it does; names what it takes.
    """
    form = preprocess.format
    if not form.is_device_format:
        raise InputError(
            f"{model} takes {form.dtype} {form.layout.value} {form.color.value}: JPEG is for "
            "models that take the frame's own pixels (calibrate folds the rest into the graph)"
        )
