"""Bench a bundle: its stages apart, its models in turns, then from the picture to the decision.

Times taken of each model alone, again and again, come out too short: the large model drives the
saver's weights out of the processor's caches, so that the next frame's saver takes up to twice as
long, and the engines' threads get in each other's way.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tinysaver_edge.artefact import bundled_artefacts
from tinysaver_edge.bench.frames import EncodedFrame
from tinysaver_edge.bench.model import KEPT_SAMPLES, ModelBench, bench_model
from tinysaver_edge.bench.throughput import Sustained, sustain
from tinysaver_edge.bench.timing import DEFAULT_EFFORT, Clock, Effort, measure, measure_with
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.policy import Policy, StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.errors import EngineError
from tinysaver_edge.latency import CascadeLatency, LatencySamples, Samples
from tinysaver_edge.outputs import FloatArray, Outputs
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.score import Margin, Score

if TYPE_CHECKING:
    from tinysaver_edge.fusion import Fusion

ESCALATED_SHARE = 0.25
"""Share of the frames that are escalated while timing. The saver's time depends a little on how
long ago the large model ran, so it should be near to what cascades worth having do."""


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """From the encoded picture to the decision, one frame after the other.

    Attributes:
        frames: how many different pictures took turns.
        escalation_rate: share of the runs that were escalated.
        decode: decoding the picture.
        decide: resize, models and decision.
        total: both.
        accepted: `decide` where the first stage's answer was kept; None where it never was.
        escalated: `decide` where it was not; None where it always was.
    """

    frames: int
    escalation_rate: float
    decode: LatencySamples
    decide: LatencySamples
    total: LatencySamples
    accepted: LatencySamples | None
    escalated: LatencySamples | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        parts = {
            "decode": self.decode,
            "decide": self.decide,
            "total": self.total,
            "accepted": self.accepted,
            "escalated": self.escalated,
        }
        return {
            "frames": self.frames,
            "escalation_rate": self.escalation_rate,
            "frames_per_s": 1e3 / self.total.mean_ms,
            **{
                name: None if one is None else one.thinned(KEPT_SAMPLES).to_dict()
                for name, one in parts.items()
            },
        }


@dataclass(frozen=True, slots=True)
class BundleBench:
    """What a bundle takes on this machine.

    Attributes:
        load_s: loading the cascade whole: hashes, engines, one run each.
        stages: each model apart.
        end_to_end: the cascade.
        sustained: a long run of it, or None where none was asked for.
    """

    load_s: float
    stages: tuple[ModelBench, ...]
    end_to_end: EndToEnd
    sustained: Sustained | None


def bench_bundle(
    bundle: Bundle,
    frames: Sequence[EncodedFrame],
    *,
    threads: int | None = None,
    effort: Effort = DEFAULT_EFFORT,
    throughput_s: float = 0.0,
    sustained_s: float = 0.0,
    clock: Clock = time.perf_counter,
) -> BundleBench:
    """Measure a bundle.

    Args:
        bundle: an open bundle with models.
        frames: pictures that take turns; the first is the one that stages are measured with.
        threads: processor threads for one inference; None leaves it to the engines.
        effort: how long to measure each thing.
        throughput_s: seconds to keep each model busy; 0 for not at all.
        sustained_s: seconds of a long run; 0 for none.
        clock: seconds.

    Raises:
        BundleError: it holds no models.
        EngineError: a model cannot be run here.
        InputError: a picture cannot be decoded.
    """
    policy = Policy.from_manifest(bundle.manifest)
    first = frames[0].decode()
    stages = tuple(
        bench_model(
            artefact,
            first,
            policy=stage,
            effort=effort,
            throughput_s=throughput_s,
            clock=clock,
        )
        for artefact, stage in zip(
            bundled_artefacts(bundle, EngineOptions(threads=threads)), policy.stages, strict=True
        )
    )
    started = clock()
    with Cascade.load(bundle.path, threads=threads, clock=clock) as cascade:
        load_s = clock() - started
        end_to_end = measure_end_to_end(cascade, frames, effort=effort, clock=clock)
        sustained = None
        if sustained_s > 0:
            run = _turns(cascade, frames)
            sustained = sustain(run, seconds=sustained_s, clock=clock)
    return BundleBench(load_s, stages, end_to_end, sustained)


def measure_end_to_end(
    cascade: Cascade,
    frames: Sequence[EncodedFrame],
    *,
    effort: Effort = DEFAULT_EFFORT,
    clock: Clock = time.perf_counter,
) -> EndToEnd:
    """Decode and decide frames one after the other, every one as often as the others.

    Raises:
        EngineError: no stage can answer.
        InputError: a picture cannot be decoded.
    """
    decode_ms: list[float] = []
    escalated: list[bool] = []
    turns = itertools.cycle(frames)

    def run() -> None:
        encoded = next(turns)
        started = clock()
        frame = encoded.decode()
        decode_ms.append((clock() - started) * 1e3)
        escalated.append(cascade.decide(frame).escalated)

    each = replace(
        effort,
        warm_up=max(effort.warm_up, len(frames)),
        min_runs=max(effort.min_runs, len(frames)),
    )
    total = measure_with(each, run, clock=clock)
    decode = np.array(decode_ms[-len(total) :])
    decide = np.clip(total.samples_ms - decode, 0, None)
    went_on = np.array(escalated[-len(total) :])
    return EndToEnd(
        frames=len(frames),
        escalation_rate=float(went_on.mean()),
        decode=LatencySamples(decode),
        decide=LatencySamples(decide),
        total=total,
        accepted=LatencySamples(decide[~went_on]) if not went_on.all() else None,
        escalated=LatencySamples(decide[went_on]) if went_on.any() else None,
    )


def _turns(cascade: Cascade, frames: Sequence[EncodedFrame]) -> Callable[[], object]:
    turns = itertools.cycle(frames)
    return lambda: cascade.decide(next(turns).decode())


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
