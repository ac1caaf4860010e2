"""Bench a bundle: every stage apart, then from the encoded picture to the decision."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinysaver_edge.artefact import bundled_artefacts
from tinysaver_edge.bench.frames import EncodedFrame
from tinysaver_edge.bench.model import KEPT_SAMPLES, ModelBench, bench_model
from tinysaver_edge.bench.throughput import Sustained, sustain
from tinysaver_edge.bench.timing import DEFAULT_EFFORT, Clock, Effort, measure_with
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.latency import LatencySamples
from tinysaver_edge.latency.samples import Samples
from tinysaver_edge.outputs import BoolArray


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """From the encoded picture to the decision, one frame after the other.

    Attributes:
        frames: how many different pictures took turns.
        escalation_rate: share of the runs that the first stage did not settle.
        settled: share that each stage settled, first to last.
        decode: decoding the picture.
        decide: resize, models and decision.
        total: both.
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
