"""Ask a stage about several frames at once, where that was measured to be quicker."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge.errors import EngineError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Batch

if TYPE_CHECKING:
    from tinysaver_edge.stage import Stage

SIZES = (2, 4)
"""Frames at once that are tried: the first of a batch waits for all of them."""

TURNS = 7
"""How often each size is timed."""

GAIN = 0.9
"""What a frame of a batch may take at most, of what it takes alone: less is within the noise."""


def quickest_size(stage: Stage, *, clock: Callable[[], float] = time.perf_counter) -> int:
    """Return at how many frames a call the stage takes least time a frame; 1 where that is no gain.

    It asks the stage `TURNS` times for each size, in turns, after a call that compiles what it
    needs.

    Args:
        stage: asked about frames that are black.
        clock: seconds.

    Raises:
        EngineError: the stage fails.
    """
    dtype = np.dtype(stage.preprocess.format.dtype)
    batches = {size: np.zeros(stage.preprocess.shape(size), dtype) for size in (1, *SIZES)}
    spent: dict[int, list[float]] = {size: [] for size in batches}
    for turn in range(1 + TURNS):
        for size, batch in batches.items():
            started_s = clock()
            stage.ask(batch)
            if turn:
                spent[size].append((clock() - started_s) / size)
    each = {size: statistics.median(times) for size, times in spent.items()}
    best = min(each, key=each.__getitem__)
    return best if each[best] <= GAIN * each[1] else 1


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

    def most(self, waiting: int) -> int:
        """Return how many of the frames that wait are asked about at once."""
        return max((size for size in self._buffers if size <= waiting), default=min(1, waiting))

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
            logits = self._stage.ask(batch).logits
        except EngineError:
            return [self._ask_one(one) for one in inputs]
        assert logits is not None
        return [Outputs(logits=logits[place : place + 1]) for place in range(len(inputs))]

    def _ask_one(self, batch: Batch) -> Outputs | EngineError:
        try:
            return self._stage.ask(batch)
        except EngineError as error:
            return error
