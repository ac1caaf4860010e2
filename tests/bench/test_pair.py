"""Two models timed in turns: exact on a clock that only they move, and real ones for real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bench.test_timing import stage_of
from tests.model_zoo import frames
from tinysaver_edge.bench.bundle import measure_alone, measure_pair, measure_ways
from tinysaver_edge.bench.timing import Effort
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.errors import EngineError
from tinysaver_edge.fusion import LinearFusion
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Batch
from tinysaver_edge.score import Margin, Score
from tinysaver_edge.testing import FakeClock, FakeEngine, numbered_frame

MANY = Effort(warm_up=5, min_runs=400, min_seconds=0, max_seconds=1e6)


class Pair:
    """A saver that takes 2 ms, or 3 ms when the large model, which takes 10, has just run."""

    def __init__(self, *, seconds: float = 0.001) -> None:
        self.clock = FakeClock()
        self.asked: list[str] = []

        def saver(batch: Batch) -> np.ndarray:
            cold = bool(self.asked) and self.asked[-1] == "large"
            self.asked.append("saver")
            self.clock.now_s += seconds * (3 if cold else 2)
            return np.array([[3.0, 1.0, 0.0]], np.float32)

        def large(batch: Batch) -> np.ndarray:
            self.asked.append("large")
            self.clock.now_s += seconds * 10
            return np.array([[0.0, 1.0, 3.0]], np.float32)

        self.saver, self.large = (self._stage(name, run) for name, run in
                                  (("saver", saver), ("large", large)))  # fmt: skip

    @staticmethod
    def _stage(name: str, run: object, score: Score | None = None) -> Stage:
        engine = FakeEngine(run)  # type: ignore[arg-type]
        return Stage(engine, preprocess=engine.preprocess, policy=StagePolicy(name, score=score))


FRAMES = [numbered_frame(number) for number in range(3)]


def test_each_way_has_its_own_samples() -> None:
    pair = Pair()
    found = measure_pair(pair.saver, pair.large, FRAMES, clock=pair.clock, effort=MANY)
    assert found.saver_after is not None
    assert found.saver.samples_ms == pytest.approx(2)
    assert found.saver_after.samples_ms == pytest.approx(3)
    assert set(found.escalated.samples_ms.round(6)) == {12.0, 13.0}
    runs = len(found.saver) + len(found.saver_after) + len(found.escalated)
    assert runs == 400
    # A quarter is escalated, at random: of 400 between 65 and 135, six standard deviations.
    assert 65 <= len(found.escalated) <= 135
    assert len(found.saver_after) == pytest.approx(len(found.escalated) * 0.75, rel=0.25)
    assert pair.asked.count("saver") == 400 + 5 + 3


def test_the_cascades_mean_at_any_rate_is_that_of_a_long_run() -> None:
    """Escalate frames at random with another rate, and add up what they take."""
    pair = Pair()
    found = measure_pair(pair.saver, pair.large, FRAMES, clock=pair.clock, effort=MANY)
    for rate in (0.0, 0.1, 0.3, 0.5):
        went = np.random.default_rng(1).random(20_000) < rate
        cold = np.concatenate(([False], went[:-1]))
        took = np.where(cold, 3, 2) + 10 * went
        assert found.at(rate).mean_ms == pytest.approx(took.mean(), rel=0.02)
        assert found.at(rate).quantile_ms(0.95) == pytest.approx(np.quantile(took, 0.95), abs=1)


def test_the_same_seed_gives_the_same_order() -> None:
    orders = []
    for seed in (0, 0, 1):
        pair = Pair()
        measure_pair(pair.saver, pair.large, FRAMES, clock=pair.clock, effort=MANY, seed=seed)
        orders.append(pair.asked)
    assert orders[0] == orders[1] != orders[2]


def test_however_slow_every_way_is_taken_once() -> None:
    pair = Pair(seconds=100.0)
    effort = Effort(warm_up=0, min_runs=50, min_seconds=0, max_seconds=1)
    found = measure_pair(pair.saver, pair.large, FRAMES, clock=pair.clock, effort=effort)
    assert found.saver_after is not None
    assert found.saver_after.samples_ms == pytest.approx(3e5)
    assert found.saver.samples_ms == pytest.approx(2e5)
    assert found.escalated.samples_ms.min() == pytest.approx(12e5)


def test_what_the_score_and_the_fusion_take_counts() -> None:
    pair = Pair()

    class Slow(Margin):
        def __call__(self, outputs: Outputs) -> np.ndarray:
            pair.clock.now_s += 0.5
            return super().__call__(outputs)

    class SlowFusion(LinearFusion):
        def fuse(self, saver: Outputs, large: Outputs) -> tuple[np.ndarray, np.ndarray]:
            pair.clock.now_s += 7
            return super().fuse(saver, large)

    saver = Stage(
        pair.saver.engine,
        preprocess=pair.saver.preprocess,
        policy=StagePolicy("saver", score=Slow()),
    )
    found = measure_pair(
        saver, pair.large, FRAMES, fusion=SlowFusion(), clock=pair.clock, effort=MANY
    )
    assert found.saver.samples_ms == pytest.approx(502)
    assert found.escalated.samples_ms.min() == pytest.approx(7512)


def test_the_large_model_alone_runs_without_a_saver() -> None:
    pair = Pair()
    found = measure_alone(pair.large, FRAMES, clock=pair.clock, effort=MANY)
    assert found.samples_ms == pytest.approx(10)
    assert set(pair.asked) == {"large"}


def test_every_stage_of_three_settles_its_share() -> None:
    clock, asked = FakeClock(), []

    def stage(name: str, milliseconds: float) -> Stage:
        def run(batch: Batch) -> np.ndarray:
            asked.append(name)
            clock.now_s += milliseconds / 1e3
            return np.array([[3.0, 1.0, 0.0]], np.float32)

        engine = FakeEngine(run)
        return Stage(engine, preprocess=engine.preprocess, policy=StagePolicy(name))

    stages = [stage("first", 2), stage("second", 5), stage("last", 40)]
    ways = measure_ways(
        stages, FRAMES, shares=(0.5, 0.5, 0.0), pool=(0.5, 0.3), clock=clock, effort=MANY
    )
    assert [way.mean_ms for way in ways] == pytest.approx([2, 7, 47])
    assert sum(map(len, ways)) == 400
    assert asked.count("first") == 400 + 5 + 3
    # An eleventh each at least, and the others alike: within six standard deviations.
    assert [len(way) for way in ways] == pytest.approx([182, 182, 36], abs=60)
    few = Effort(warm_up=0, min_runs=1, min_seconds=0, max_seconds=0)
    ways = measure_ways(stages, FRAMES, shares=(1.0, 0.0, 0.0), clock=clock, effort=few)
    assert [way.mean_ms for way in ways] == pytest.approx([2, 7, 47])


def test_real_models_take_turns(tmp_path: Path) -> None:
    saver, large = (stage_of(tmp_path, seed=seed) for seed in (0, 1))
    effort = Effort(warm_up=2, min_runs=60, min_seconds=0, max_seconds=20)
    found = measure_pair(saver, large, frames(2, size=64), fusion=LinearFusion(), effort=effort)
    assert found.saver_after is not None
    assert min(found.saver.samples_ms.min(), found.saver_after.samples_ms.min()) > 0
    assert found.escalated.median_ms > found.saver.median_ms
    saver.close()
    with pytest.raises(EngineError, match="closed"):
        measure_pair(saver, large, frames(1), effort=effort)
