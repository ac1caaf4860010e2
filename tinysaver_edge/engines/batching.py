"""How many samples at once a model is better asked about; measured, since machines differ.

A batch saves time, and lets the first of it wait for the last. One after the other, n samples that
came together wait (n + 1) / 2 times what one takes, on average; in a batch, what the batch takes.
So a batch is worth it where it takes no longer than that: then all are answered sooner, on average,
and more of them a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import inf

import numpy as np

from tinysaver_edge.preprocess import Batch

SIZES = (2, 4)
"""Samples at once that are tried, beside one."""

TURNS = 9
"""How often each size is timed."""

SLOW_S = 0.25
"""A model that takes longer for one sample is not tried: it fills the processor by itself."""


def quickest_size(
    ask: Callable[[Batch], object],
    sample: Batch,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Return at how many samples a call takes least time for each, of the sizes that are worth it.

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
    return worth_it(each)


def worth_it(each: Mapping[int, float]) -> int:
    """Return at how many samples a call takes least time for each, of the sizes that are worth it.

    Args:
        each: time for each sample of a call, by how many there are in it; of one at least.
    """
    worth = [size for size in SIZES if each.get(size, inf) * size <= each[1] * (size + 1) / 2]
    return min(worth, key=each.__getitem__, default=1)


def most_at_once(waiting: int, limit: int) -> int:
    """Return how many of the samples that wait are asked about at once: a size that was timed."""
    return max((size for size in SIZES if size <= min(waiting, limit)), default=min(1, waiting))
