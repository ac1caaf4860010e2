"""What is sent of a batch: its pixels, or each picture as a JPEG file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.codec import Jpeg
from tinysaver_edge.preprocess import Batch


def to_tensor(batch: Batch, codec: Jpeg | None) -> NDArray[Any]:
    """Return what is sent of a batch.

    Args:
        batch: model input ``(n, …)``.
        codec: what it is encoded with, or None for the batch as it is.

    Returns:
        The batch, contiguous, or ``(n,)`` objects that hold files.

    Raises:
        EngineError: the codec does not carry such batches.
    """
    return np.ascontiguousarray(batch) if codec is None else codec.encode(batch)
