"""Timing follows a clock that the tests turn by hand, and a real stage on the real clock."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.model_zoo import Form, frames, tiny_classifier
from tinysaver_edge.bench.timing import Effort, measure, measure_stage, measure_with
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.engines.registry import create_engine
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.score import get_score
from tinysaver_edge.testing import FakeClock


class Work:
    """Runs that take what the clock is told, one after the other."""

    def __init__(self, clock: FakeClock, seconds: Iterable[float]) -> None:
        self.runs = 0
        self._clock = clock
        self._left = iter(seconds)

    def __call__(self) -> None:
        self._clock.advance(next(self._left))
        self.runs += 1


def test_warm_up_does_not_count_and_the_order_is_kept() -> None:
    clock = FakeClock(100.0)
    run = Work(clock, [9, 8, 0.003, 0.001, 0.002])
    found = measure(run, clock=clock, warm_up=2, min_runs=3, min_seconds=0, max_seconds=60)
    assert found.samples_ms == pytest.approx([3, 1, 2])
    assert run.runs == 5


@pytest.mark.parametrize(
    ("duration_s", "effort", "counted"),
    [
        (0.25, Effort(warm_up=0, min_runs=8, min_seconds=1, max_seconds=60), 8),
        (0.25, Effort(warm_up=0, min_runs=2, min_seconds=1, max_seconds=60), 4),
        (0.25, Effort(warm_up=0, min_runs=100, min_seconds=1, max_seconds=2), 8),
        (8.0, Effort(warm_up=0, min_runs=100, min_seconds=1, max_seconds=2), 1),
        (8.0, Effort(warm_up=10, min_runs=100, min_seconds=1, max_seconds=2), 1),
        (0.25, Effort(warm_up=100, min_runs=2, min_seconds=0, max_seconds=4), 2),
    ],
    ids=["at least N runs", "at least T seconds", "no longer than asked", "one run counts",
         "a slow run warms up once", "warm-up takes half the time at most"],
)  # fmt: skip
def test_how_often_it_runs(duration_s: float, effort: Effort, counted: int) -> None:
    clock = FakeClock(100.0)
    found = measure(
        Work(clock, itertools.repeat(duration_s)),
        clock=clock,
        warm_up=effort.warm_up,
        min_runs=effort.min_runs,
        min_seconds=effort.min_seconds,
        max_seconds=effort.max_seconds,
    )
    assert len(found) == counted
    assert found.mean_ms == pytest.approx(duration_s * 1e3)


def test_warm_up_is_cut_short_when_half_the_time_is_gone() -> None:
    clock = FakeClock(100.0)
    run = Work(clock, itertools.repeat(0.25))
    measure(run, clock=clock, warm_up=100, min_runs=2, min_seconds=0, max_seconds=4)
    assert run.runs == 8 + 2


def test_pauses_do_not_count() -> None:
    clock = FakeClock()
    run = Work(clock, itertools.repeat(0.25))
    found = measure(
        run,
        clock=clock,
        warm_up=1,
        min_runs=3,
        min_seconds=0,
        max_seconds=60,
        pause_s=2,
        sleep=clock.advance,
    )
    assert found.samples_ms == pytest.approx([250] * 3)
    assert clock() == pytest.approx(0.25 + 3 * 2.25)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pause_s": -1.0},
        {"min_runs": 0},
        {"warm_up": -1},
        {"min_seconds": -1.0},
        {"min_seconds": 3, "max_seconds": 2},
    ],
    ids=str,
)
def test_contradicting_numbers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        measure(lambda: None, **wrong)  # type: ignore[arg-type]


class Counting:
    """A score that counts how often it is asked."""

    def __init__(self) -> None:
        self.score = get_score("margin")
        self.calls = 0

    def __call__(self, outputs: object) -> np.ndarray:
        self.calls += 1
        return self.score(outputs)  # type: ignore[arg-type,no-any-return]


def stage_of(folder: Path, *, seed: int = 0, score: object = None) -> Stage:
    form = Form()
    model = tiny_classifier(folder / f"tiny{seed}.onnx", form, seed=seed)
    engine = create_engine("onnxruntime", model, preprocess=form.preprocess, output=form.output)
    policy = StagePolicy(model=model.stem, score=score, threshold=0.5)  # type: ignore[arg-type]
    return Stage(engine, preprocess=form.preprocess, policy=policy)


QUICK = Effort(warm_up=2, min_runs=30, min_seconds=0, max_seconds=20)


def test_a_stage_is_timed_with_its_resize_and_score(tmp_path: Path) -> None:
    score = Counting()
    stage = stage_of(tmp_path, score=score)
    (frame,) = frames(1, size=512)
    whole = measure_stage(stage, frame, effort=QUICK)
    assert score.calls == 32
    batch = stage.prepare(frame)
    alone = measure_with(QUICK, lambda: stage.ask(batch))
    assert len(whole) == len(alone) == 30
    assert alone.samples_ms.min() < whole.samples_ms.min()


def test_a_stage_that_fails_says_so(tmp_path: Path) -> None:
    stage = stage_of(tmp_path)
    stage.close()
    with pytest.raises(EngineError, match="closed"):
        measure_stage(stage, frames(1)[0], effort=QUICK)
