"""How many samples at once a model takes least time for, each; measured, since machines differ."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from tinysaver_edge.preprocess import Batch

SIZES = (2, 4)
"""Samples at once that are tried, beside one: the first of a batch waits for all of them."""

TURNS = 9
"""How often each size is timed."""

GAIN = 0.9
"""What a sample of a batch may take at most, of what it takes alone: less is within the noise."""

SLOW_S = 0.25
"""A model that takes longer for one sample is not tried: it fills the processor by itself."""


def quickest_size(
    ask: Callable[[Batch], object],
    sample: Batch,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Return at how many samples a call takes least time for each; 1 where that is no gain.

    It asks `TURNS` times for each size, in turns, after a call that compiles what it needs.

    Args:
        ask: runs a batch of any length, and raises what the model raises.
        sample: a batch of one.
        clock: seconds.
    """
    ask(sample)
    started_s = clock()
    ask(sample)
    if clock() - started_s > SLOW_S:
        return 1
    batches = {size: np.repeat(sample, size, axis=0) for size in (1, *SIZES)}
    spent: dict[int, list[float]] = {size: [] for size in batches}
    for turn in range(1 + TURNS):
        for size, batch in batches.items():
            started_s = clock()
            ask(batch)
            if turn:
                spent[size].append((clock() - started_s) / size)
    each = {size: min(times) for size, times in spent.items()}  # other programs only ever add
    best = min(each, key=each.__getitem__)
    return best if each[best] <= GAIN * each[1] else 1


def most_at_once(waiting: int, limit: int) -> int:
    """Return how many of the samples that wait are asked about at once: a size that was timed.

    Args:
        waiting: how many.
        limit: what `quickest_size` has found.
    """
    return max((size for size in SIZES if size <= min(waiting, limit)), default=min(1, waiting))
