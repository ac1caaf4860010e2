"""What a third stage adds to `decide` beside its model, where the answers are pooled.

    chrt -r 20 python benchmarks/bench_third_stage.py

The engines look their answers up, 1,000 classes each, and take the same small picture. The engine's
own call is taken off. Of 21 turns the quickest counts: slower ones have waited for other programs.
"""

from __future__ import annotations

import sys
from timeit import timeit

import numpy as np
from imagenet import called_with, save

from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.score import Margin
from tinysaver_edge.testing import FakeEngine, numbered_frame

TARGET_US = 30.0


def main() -> int:
    """Print what it adds; exit 1 where it is too much."""
    called_with(__doc__)
    adds_us = third_stage_us()
    text = f"A pooled third stage adds {adds_us:.1f} µs to `decide` (target ≤ {TARGET_US:g})."
    figures = {"adds_us": adds_us}
    save("bench_third_stage", title="What a third stage adds", text=text, figures=figures)
    return int(adds_us > TARGET_US)


def third_stage_us() -> float:
    """What a pooled third stage adds to `decide` beside its engine's own call, 1,000 classes."""
    table = np.random.default_rng(0).normal(size=(3, 1, 1000)).astype(np.float32)

    def stage(place: int, *, last: bool) -> Stage:
        engine = FakeEngine(lambda _: table[place])
        policy = StagePolicy(str(place), score=Margin(), threshold=None if last else 5.0)
        return Stage(engine, preprocess=engine.preprocess, policy=policy)

    two = Cascade([stage(0, last=False), stage(1, last=True)], pool=(0.3,))
    three = Cascade(
        [stage(0, last=False), stage(1, last=False), stage(2, last=True)], pool=(0.5, 0.3)
    )
    frame, batch = numbered_frame(0), three.stages[0].blank
    calls = (
        lambda: two.decide(frame),
        lambda: three.decide(frame),
        lambda: three.stages[2].engine.infer(batch),
    )
    took = [[timeit(call, number=500) / 500 for call in calls] for _ in range(21)]
    shorter, longer, raw = np.min(took, axis=0) * 1e6
    return float(longer - shorter - raw)


if __name__ == "__main__":
    sys.exit(main())
