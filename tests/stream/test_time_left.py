"""The large model's engine hears how long a frame's answer is waited for."""

from __future__ import annotations

import pytest

from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.score import Margin
from tinysaver_edge.testing import FakeEngine, FakeSource


class Listening(FakeEngine):
    """Remembers how long it was given."""

    def __init__(self, answers) -> None:
        super().__init__(answers)
        self.given_s: list[float | None] = []

    def infer(self, batch, *, timeout_s=None):
        self.given_s.append(timeout_s)
        return super().infer(batch, timeout_s=timeout_s)


def escalating(frames: int) -> tuple[Cascade, Listening, Listening]:
    """A cascade that escalates every frame, and its engines."""
    saver, large = (Listening([[0.1, 0.0]] * frames) for _ in range(2))
    policies = StagePolicy("saver", score=Margin(), threshold=0.5), StagePolicy("large")
    stages = [
        Stage(engine, preprocess=engine.preprocess, policy=policy)
        for engine, policy in zip((saver, large), policies, strict=True)
    ]
    return Cascade(stages), saver, large


def test_it_is_what_is_left_until_the_deadline() -> None:
    cascade, saver, large = escalating(4)
    with cascade:
        assert len(list(cascade.stream(FakeSource(4), deadline_ms=60_000))) == 4
    assert saver.given_s == [None] * 4
    assert len(large.given_s) == 4
    assert all(50 < one <= 60 for one in large.given_s)


def test_without_a_deadline_there_is_no_limit() -> None:
    cascade, _, large = escalating(3)
    with cascade:
        assert len(list(cascade.stream(FakeSource(3)))) == 3
    assert large.given_s == [None] * 3


def test_a_frame_that_is_submitted_has_its_own() -> None:
    cascade, _, large = escalating(1)
    with cascade:
        frame = next(iter(FakeSource(1))).image
        cascade.submit(frame, deadline_ms=30_000).result(10)
        cascade.submit(frame).result(10)
    assert large.given_s == [pytest.approx(30, abs=5), None]
