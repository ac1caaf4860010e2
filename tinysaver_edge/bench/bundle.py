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
from tinysaver_edge.hardware.energy import EnergyMeter
from tinysaver_edge.latency import CascadeLatency, LatencySamples, Samples
from tinysaver_edge.outputs import BoolArray, FloatArray, Outputs
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.reuse import WHITE, Gate, ReuseRule, Thumbnailer
from tinysaver_edge.score import Margin, Score

if TYPE_CHECKING:
    from tinysaver_edge.fusion import Fusion

LEAST_SHARE = 0.1
"""Share of the frames, before all sum to 1, that each stage settles while timing, so that there are
enough of each; where they count, they are weighted as they occur."""

ESCALATED_SHARE = 0.25
"""Share of the frames that are escalated while timing. The saver's time depends a little on how
long ago the large model ran, so it should be near to what cascades worth having do."""


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """From the encoded picture to the decision, one frame after the other.

    Attributes:
        frames: how many different pictures took turns.
        escalation_rate: share of the runs that the first stage did not settle.
        settled: share that each stage settled, first to last.
        decide: resize, models and decision.
        accepted: `decide` where the first stage's answer was kept; None where it never was.
        escalated: `decide` where it was not; None where it always was.
        ways: `decide` where each stage settled the frame; None where it never did.
    """

    frames: int
    escalation_rate: float
    settled: tuple[float, ...]
    decode: LatencySamples
    decide: LatencySamples
    total: LatencySamples
    accepted: LatencySamples | None
    escalated: LatencySamples | None
    ways: tuple[LatencySamples | None, ...]

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
            "settled": list(self.settled),
            "frames_per_s": 1e3 / self.total.mean_ms,
            **{name: _kept(one) for name, one in parts.items()},
            "ways": [_kept(one) for one in self.ways],
        }


def _kept(one: LatencySamples | None) -> dict[str, Any] | None:
    return None if one is None else one.thinned(KEPT_SAMPLES).to_dict()


@dataclass(frozen=True, slots=True)
class BundleBench:
    """What a bundle takes on this machine.

    Attributes:
        load_s: loading the cascade whole: hashes, engines, one run each.
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
    meters: Sequence[EnergyMeter] = (),
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
        meters: counters of energy.
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
            batches=throughput_s > 0 and stage is policy.stages[-1],
            meters=meters,
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
    ended: list[int] = []
    turns = itertools.cycle(frames)

    def run() -> None:
        encoded = next(turns)
        started = clock()
        frame = encoded.decode()
        decode_ms.append((clock() - started) * 1e3)
        ended.append(cascade.decide(frame).stage.index)

    each = replace(
        effort,
        warm_up=max(effort.warm_up, len(frames)),
        min_runs=max(effort.min_runs, len(frames)),
    )
    total = measure_with(each, run, clock=clock)
    decode = np.array(decode_ms[-len(total) :])
    decide = np.clip(total.samples_ms - decode, 0, None)
    by = np.array(ended[-len(total) :])
    went_on = by > 0
    ways = tuple(_where(decide, by == place) for place in range(len(cascade.stages)))
    return EndToEnd(
        frames=len(frames),
        escalation_rate=float(went_on.mean()),
        settled=tuple(float((by == place).mean()) for place in range(len(cascade.stages))),
        decode=LatencySamples(decode),
        decide=LatencySamples(decide),
        total=total,
        accepted=_where(decide, ~went_on),
        escalated=_where(decide, went_on),
        ways=ways,
    )


def _where(took_ms: Samples, these: BoolArray) -> LatencySamples | None:
    return LatencySamples(took_ms[these]) if these.any() else None


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


class _Driven:
    """A cascade that settles every frame at the stage it is told to, whatever the scores.

    Attributes:
        ended: position of the stage that settled each frame so far.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        frames: Sequence[Frame],
        **combined: Any,  # noqa: ANN401
    ) -> None:
        self._scores = [_Dictated(stage.policy.score or Margin()) for stage in stages[:-1]]
        early = [
            stage.with_policy(replace(stage.policy, score=score, threshold=0.0))
            for stage, score in zip(stages, self._scores, strict=False)
        ]
        self._cascade = Cascade([*early, stages[-1]], **combined)
        self._turns = itertools.cycle(frames)
        self.ended: list[int] = []

    def decide(self, end: int) -> None:
        """Decide a frame by the stage at a position."""
        self.ended.append(end)
        for position, score in enumerate(self._scores):
            score.accept = position >= end
        degraded = self._cascade.decide(next(self._turns)).degraded
        if degraded is not None:  # a cascade answers without a model that fails
            raise EngineError(degraded)


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
    driven = _Driven((saver, large), frames, fusion=fusion)
    chance = random.Random(seed)

    def run() -> None:
        # The first three go every way that there is, however little time there is for more.
        went = driven.ended
        escalate = not went or (len(went) >= 3 and chance.random() < ESCALATED_SHARE)
        driven.decide(int(escalate))

    some = measure(run, clock=clock, warm_up=0, min_runs=3, min_seconds=0, max_seconds=math.inf)
    more = measure_with(effort, run, clock=clock)
    went = driven.ended
    found = _by_way(more.samples_ms, went[-len(more) :], before=went[-len(more) - 1])
    for way, samples_ms in _by_way(some.samples_ms, went[:3], before=0).items():
        found.setdefault(way, samples_ms)
    return CascadeLatency(
        saver=LatencySamples(found[0, 0]),
        escalated=LatencySamples(np.concatenate([found[way] for way in found if way[1]])),
        saver_after=LatencySamples(found[1, 0]),
    )


def _by_way(
    took_ms: Samples, went: Sequence[int], *, before: int
) -> dict[tuple[int, int], Samples]:
    """Sort runs by whether the one before and they themselves were escalated."""
    ways = list(zip([before, *went], went, strict=False))
    return {way: took_ms[[one == way for one in ways]] for way in set(ways)}


def measure_ways(
    stages: Sequence[Stage],
    frames: Sequence[Frame],
    *,
    shares: Sequence[float],
    pool: Sequence[float] | None = None,
    fusion: Fusion | None = None,
    clock: Clock = time.perf_counter,
    effort: Effort = DEFAULT_EFFORT,
    seed: int = 0,
) -> tuple[LatencySamples, ...]:
    """Decide frames one after the other, each settled by a stage drawn at random.

    What a stage takes depends a little on who ran before it, so the stages are drawn as often as
    they settle frames in earnest, if not more rarely than `LEAST_SHARE`.

    Args:
        stages: of a cascade of any length, in order.
        frames: ``(height, width, 3)`` BGR uint8, at least one, that take turns.
        shares: of the frames that each stage settles, summing to 1.
        pool: how the answers are pooled; see `Policy`.
        fusion: or fused.
        clock: seconds.
        effort: how long to measure. Each way a frame may take is timed at least once.
        seed: of the order.

    Returns:
        How long a frame takes that each stage settles, all that are asked before it included.

    Raises:
        InputError: a frame is of another shape or type.
        EngineError: a model fails.
    """
    driven = _Driven(stages, frames, pool=pool, fusion=fusion)
    chance = random.Random(seed)
    drawn = [max(share, LEAST_SHARE) for share in shares]

    def run() -> None:
        went = len(driven.ended)
        end = chance.choices(range(len(stages)), drawn)[0] if went >= len(stages) else went
        driven.decide(end)

    each = len(stages)
    some = measure(run, clock=clock, warm_up=0, min_runs=each, min_seconds=0, max_seconds=math.inf)
    more = measure_with(effort, run, clock=clock)
    ended = np.array(driven.ended[-len(more) :])
    return tuple(
        LatencySamples(
            more.samples_ms[ended == end]
            if (ended == end).any()
            else some.samples_ms[end : end + 1]
        )
        for end in range(each)
    )


def measure_look(frames: Sequence[Frame], *, effort: Effort) -> LatencySamples:
    """Look at frames in turns, as a memory does that finds them still: no model is asked.

    Args:
        frames: ``(height, width, 3)`` BGR uint8, at least one, that take turns.
        effort: how long to measure.
    """
    thumbnail, gate = Thumbnailer(), Gate[int](ReuseRule(WHITE, 0.0, epoch_s=1e9))
    turns, numbers = itertools.cycle(frames), itertools.count()

    def look() -> None:
        number = next(numbers)
        gate.look(number, thumbnail(next(turns)), 1e-3 * number)

    return measure_with(effort, look)


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
