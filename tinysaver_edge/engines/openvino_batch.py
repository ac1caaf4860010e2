"""Run several samples at once through a graph that was written for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.engines.openvino_compile import Graph
from tinysaver_edge.preprocess import Batch

TOLERANCE = 1e-4
"""How far an answer may move, as a share of the largest: what another order of sums comes to."""


def reshaped(graph: Graph, shape: Sequence[int]) -> Graph | None:
    """Return the graph for another input shape, where -1 is any; None where it keeps to its own.

    Args:
        graph: left as it is.
        shape: of the input.
    """
    other = graph.clone()
    try:
        other.reshape(list(shape))
    except RuntimeError:
        return None
    return other


def same_answers(
    single: Callable[[Batch], NDArray[Any]],
    several: Callable[[Batch], NDArray[Any]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> bool:
    """Whether some samples get the same answers at once as one by one.

    A graph may mix its samples up where a constant of its own tells their number.

    Args:
        single: runs one sample.
        several: runs as many as ``shape`` has.
        shape: of the samples.
        dtype: of the samples.
    """
    noise = np.random.default_rng(0).integers(0, 128, shape).astype(dtype)
    alone = [np.array(single(noise[place : place + 1])).ravel() for place in range(len(noise))]
    expected = np.stack(alone).astype(np.float64)
    try:
        found = np.array(several(noise), np.float64)
    except RuntimeError:
        return False
    if found.shape[0] != len(noise) or found.size != expected.size:
        return False
    moved = np.abs(found.reshape(expected.shape) - expected).max()
    return bool(moved <= TOLERANCE * np.abs(expected).max())
