"""Time a saver together with its large model, in one process and in turns, as a cascade runs them.

Times taken of each model alone, again and again, come out too short: the large model drives the
saver's weights out of the processor's caches, so that the next frame's saver takes up to twice as
long, and the engines' threads get in each other's way.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tinysaver_edge.cascade import Cascade
from tinysaver_edge.hardware.benchmark.timing import DEFAULT_EFFORT, Clock, Effort, measure
from tinysaver_edge.latency import CascadeLatency, LatencySamples
from tinysaver_edge.outputs import FloatArray, Outputs
from tinysaver_edge.policy import StagePolicy
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.score import Margin, Score
from tinysaver_edge.stage import Stage

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
    first = Stage(saver.engine, preprocess=saver.preprocess, policy=policy)
    cascade = Cascade([first, large], fusion=fusion)
    chance = random.Random(seed)
    turns = itertools.cycle(frames)
    went: list[bool] = []
    took_ms: list[float] = []
    begun = counted = clock()
    while True:
        # The first three go every way that there is, however little time there is for more.
        escalate = len(went) == 0 or (len(went) > 2 and chance.random() < ESCALATED_SHARE)
        score.accept = not escalate
        frame = next(turns)
        started = clock()
        cascade.decide(frame)
        ended = clock()
        went.append(escalate)
        took_ms.append((ended - started) * 1e3)
        if len(went) == effort.warm_up:
            counted = ended
        runs = len(went) - effort.warm_up
        enough = runs >= effort.min_runs and ended - counted >= effort.min_seconds
        if enough or (ended - begun >= effort.max_seconds and len(went) >= 3):
            return _by_way(np.array(went), np.array(took_ms), warm_up=effort.warm_up)


def _by_way(went: np.ndarray, took_ms: np.ndarray, *, warm_up: int) -> CascadeLatency:
    """Sort runs by the way they and the one before took, without those of the warm-up."""
    before = np.concatenate(([False], went[:-1]))
    ways = (~went & ~before, went, ~went & before)
    late = np.arange(len(went)) >= warm_up
    # Of a way that was taken during the warm-up only, those runs are better than none.
    saver, escalated, after = (
        LatencySamples(took_ms[way & late] if (way & late).any() else took_ms[way]) for way in ways
    )
    return CascadeLatency(saver, escalated, after)


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
    policy = StagePolicy(stage.policy.model)
    cascade = Cascade([Stage(stage.engine, preprocess=stage.preprocess, policy=policy)])
    turns = itertools.cycle(frames)
    return measure(
        lambda: cascade.decide(next(turns)),
        clock=clock,
        warm_up=effort.warm_up,
        min_runs=effort.min_runs,
        min_seconds=effort.min_seconds,
        max_seconds=effort.max_seconds,
    )
