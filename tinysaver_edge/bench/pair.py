"""Time a saver together with its large model, in one process and in turns, as a cascade runs them.

Times taken of each model alone, again and again, come out too short: the large model drives the
saver's weights out of the processor's caches, so that the next frame's saver takes up to twice as
long, and the engines' threads get in each other's way.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tinysaver_edge.bench.timing import DEFAULT_EFFORT, Clock, Effort, measure, measure_with
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.errors import EngineError
from tinysaver_edge.latency import CascadeLatency, LatencySamples
from tinysaver_edge.latency.samples import Samples
from tinysaver_edge.outputs import FloatArray, Outputs
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.score import Margin, Score

if TYPE_CHECKING:
    from tinysaver_edge.fusion import Fusion

ESCALATED_SHARE = 0.25
"""Share of the frames that are escalated while timing. The saver's time depends a little on how
long ago the large model ran, so it should be near to what cascades worth having do."""


class _Dictated(Score):
    """A score that does another's work and then says what it was told to."""

    name: ClassVar[str] = "dictated"

    def __init__(self, score: Score) -> None:
        self._score = score
        self.accept = False

    def __call__(self, outputs: Outputs) -> FloatArray:
        self._score(outputs)
        return np.array([1.0 if self.accept else -1.0])


def measure_pair(
    saver: Stage,
    large: Stage,
    frames: Sequence[Frame],
    *,
    fusion: Fusion | None = None,
    clock: Clock = time.perf_counter,
    effort: Effort = DEFAULT_EFFORT,
    seed: int = 0,
) -> CascadeLatency:
    """Decide frames one after the other, some of them escalated at random whatever their score.

    Args:
        saver: asked on every frame; where it has no score yet, the margin's work is timed.
        large: asked on the escalated ones.
        frames: ``(height, width, 3)`` BGR uint8, at least one, that take turns.
        fusion: combines both answers after an escalation.
        clock: seconds.
        effort: how long to measure. Each way a frame may take is timed at least once.
        seed: of the order.

    Raises:
        InputError: a frame is of another shape or type.
        EngineError: a model fails.
    """
    score = _Dictated(saver.policy.score or Margin())
    policy = replace(saver.policy, score=score, threshold=0.0)
    cascade = Cascade([saver.with_policy(policy), large], fusion=fusion)
    chance = random.Random(seed)
    turns = itertools.cycle(frames)
    went: list[bool] = []

    def run() -> None:
        # The first three go every way that there is, however little time there is for more.
        escalate = not went or (len(went) >= 3 and chance.random() < ESCALATED_SHARE)
        went.append(escalate)
        score.accept = not escalate
        degraded = cascade.decide(next(turns)).degraded
        if degraded is not None:  # a cascade answers without a model that fails
            raise EngineError(degraded)

    some = measure(run, clock=clock, warm_up=0, min_runs=3, min_seconds=0, max_seconds=math.inf)
    more = measure_with(effort, run, clock=clock)
    found = _by_way(more.samples_ms, went[-len(more) :], before=went[-len(more) - 1])
    for way, samples_ms in _by_way(some.samples_ms, went[:3], before=False).items():
        found.setdefault(way, samples_ms)
    return CascadeLatency(
        saver=LatencySamples(found[False, False]),
        escalated=LatencySamples(np.concatenate([found[way] for way in found if way[1]])),
        saver_after=LatencySamples(found[True, False]),
    )


def _by_way(
    took_ms: Samples, went: Sequence[bool], *, before: bool
) -> dict[tuple[bool, bool], Samples]:
    """Sort runs by whether the one before and they themselves were escalated."""
    ways = list(zip([before, *went], went, strict=False))
    return {way: took_ms[[one == way for one in ways]] for way in set(ways)}


def measure_alone(
    stage: Stage,
    frames: Sequence[Frame],
    *,
    clock: Clock = time.perf_counter,
    effort: Effort = DEFAULT_EFFORT,
) -> LatencySamples:
    """Decide frames one after the other with one model, as if there were no cascade.

    Raises:
        InputError: a frame is of another shape or type.
        EngineError: the model fails.
    """
    cascade = Cascade([stage.with_policy(StagePolicy(stage.policy.model))])
    turns = itertools.cycle(frames)
    return measure_with(effort, lambda: cascade.decide(next(turns)), clock=clock)
