"""Ask a stage about several frames at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge.engines.batching import SIZES, most_at_once
from tinysaver_edge.errors import EngineError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Batch

if TYPE_CHECKING:
    from tinysaver_edge.deciding.stage import Stage


class Together:
    """Asks a stage about the frames that wait. For one thread.

    Args:
        stage: whom to ask.
        limit: frames at once.
    """

    def __init__(self, stage: Stage, *, limit: int) -> None:
        self._stage = stage
        dtype = np.dtype(stage.preprocess.format.dtype)
        self._buffers = {
            size: np.empty(stage.preprocess.shape(size), dtype) for size in SIZES if size <= limit
        }
        self._limit = limit

    def most(self, waiting: int) -> int:
        """Return how many of the frames that wait are asked about at once."""
        return most_at_once(waiting, self._limit)

    def ask(self, inputs: Sequence[Batch]) -> list[Outputs | EngineError]:
        """Return what the stage answers to each frame, or how it failed on it.

        Where a batch fails, each frame is asked about alone: one that the model cannot take does
        the others no harm.

        Args:
            inputs: one prepared frame each, as many as `most` allows.
        """
        if len(inputs) == 1:
            return [self._ask_one(inputs[0])]
        batch = self._buffers[len(inputs)]
        np.concatenate(inputs, out=batch)
        try:
            answered = self._stage.ask(batch)
        except EngineError:
            return [self._ask_one(one) for one in inputs]
        return [answered.subset(slice(place, place + 1)) for place in range(len(inputs))]

    def _ask_one(self, batch: Batch) -> Outputs | EngineError:
        try:
            return self._stage.ask(batch)
        except EngineError as error:
            return error
