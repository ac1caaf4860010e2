"""What is sent of a batch: its pixels, or each picture as a JPEG file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.errors import EngineError
from tinysaver_edge.opencv import opencv
from tinysaver_edge.preprocess import Batch


def to_tensor(batch: Batch, jpeg_quality: int | None) -> NDArray[Any]:
    """Return what is sent of a batch.

    Args:
        batch: model input ``(n, …)``.
        jpeg_quality: 1 to 100, or None for the batch as it is.

    Returns:
        The batch, contiguous, or ``(n,)`` objects that hold JPEG files.

    Raises:
        EngineError: JPEG is asked for, and the batch is not uint8 ``(n, height, width, 3)``.
    """
    if jpeg_quality is None:
        return np.ascontiguousarray(batch)
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
        raise EngineError(
            f"JPEG holds uint8 (height, width, 3) pictures, and this model takes {batch.dtype} "
            f"{batch.shape[1:]}: send it pixels"
        )
    cv2 = opencv("Encoding JPEG")
    # Colours keep all their pixels (4:4:4). Halved, as OpenCV does by itself, they cost 2.0 points
    # on CIFAR-10 at quality 95 in place of 0.7, for 12 % fewer bytes (benchmarks/bench_uplink.py).
    settings = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
    settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    files = np.empty(len(batch), object)
    for index, picture in enumerate(batch):
        good, data = cv2.imencode(".jpg", picture, settings)
        if not good:
            raise EngineError("a frame could not be encoded as JPEG")
        files[index] = data.tobytes()
    return files
