"""What a cascade of any length does with a frame, written out as a plain loop with numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.cascade import Cascade

KEPT = 5
"""Classes that a pool looks at."""


class Answer(NamedTuple):
    """What comes of a frame.

    Attributes:
        index: the class.
        stage: position of the stage that settles it.
        confidence: of the class, in the pool.
        every: the class after each stage, had none before it been sure.
    """

    index: int
    stage: int
    confidence: float
    every: tuple[int, ...]


def best(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The likeliest few; the others are none."""
    kept = np.argsort(-probabilities)[:KEPT]
    return np.where(np.isin(np.arange(len(probabilities)), kept), probabilities, 0)


def by_hand(cascade: Cascade, frame: NDArray[np.uint8]) -> Answer:
    """Ask every stage of a cascade with a pool; see who would have settled the frame."""
    policy, pool, settled, every = cascade.policy, None, None, []
    for place, stage in enumerate(cascade.stages):
        logits = stage.engine.infer(stage.prepare_many([frame]))[0].astype(np.float64)
        weights = np.exp(logits - logits.max())
        here = best(weights / weights.sum())
        if pool is not None:
            assert policy.pool is not None
            before = policy.pool[place - 1]
            here = best((1 - before) * here + before * pool)
        pool = here
        every.append(int(pool.argmax()))
        second, first = np.sort(pool)[-2:]
        limit = policy.stages[place].threshold
        last = place + 1 == len(cascade.stages)
        if settled is None and (last or (limit is not None and first - second >= limit)):
            settled = (every[-1], place, float(first))
    assert settled is not None
    return Answer(*settled, tuple(every))
