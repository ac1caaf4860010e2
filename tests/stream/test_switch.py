"""Another cascade takes over a running stream between two frames; none is lost or mixed."""

from __future__ import annotations

import threading
import time

import numpy as np

from tests.stream.slow import Answers
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.decision import AnswerSource, BundleIdentity
from tinysaver_edge.preprocess import Preprocess, Resize
from tinysaver_edge.reuse import ReuseRule
from tinysaver_edge.score import Margin
from tinysaver_edge.stream.sources.source import limited
from tinysaver_edge.testing import FakeEngine, FakeSource, frame_numbers, numbered_frame

CLASSES = 10
SWITCHES = 1000


class Shifted(Answers):
    """Answers frame n with class (n + shift) % 10, and one more where the large model is asked."""

    def __init__(self, shift: int) -> None:
        super().__init__(unsure=lambda n: n % 3 == 0)
        self.shift = shift

    def _logits(self, numbers, shift):
        return np.roll(super()._logits(numbers, shift), self.shift, axis=1)


def bundle(number: int, answers: Answers | None = None, **settings) -> Cascade:
    """A cascade that can be told by its answers, its models' names and its identity."""
    answers = answers or Shifted(number % CLASSES)
    size = 8 if number % 2 else 16
    saver = FakeEngine(answers.saver, preprocess=Preprocess(Resize(size, size)))
    large = FakeEngine(answers.large, preprocess=Preprocess(Resize(8, 8)))
    score = StagePolicy(f"saver-{number}", score=Margin(), threshold=0.5)
    return Cascade(
        [
            Stage(saver, preprocess=saver.preprocess, policy=score),
            Stage(large, preprocess=large.preprocess, policy=StagePolicy(f"large-{number}")),
        ],
        identity=BundleIdentity(f"{number:064x}"),
        **settings,
    )


def test_a_thousand_switches_lose_no_frame_and_mix_none():
    """Three sources, two input sizes, a third of the frames at the large model."""
    first = bundle(0)
    frames = [numbered_frame(n) for n in range(300)]
    stop, done = threading.Event(), [0]

    def pictures():
        number = 0
        while done[0] < SWITCHES or number % 300:
            yield frames[number % 300]
            number += 1

    stream = first.stream(pictures(), pictures(), pictures(), max_in_flight=3)

    def switch() -> None:
        former, closing = first, []
        while done[0] < SWITCHES and not stop.is_set():
            done[0] += 1
            following = bundle(done[0])
            closing.append((following.take_over(stream), former))
            former = following
            while closing and closing[0][0].is_set():
                closing.pop(0)[1].close()
            stop.wait(0.001)

    switching = threading.Thread(target=switch)
    seen: dict[str, list[int]] = {name: [] for name in stream.source_ids}
    numbers: list[int] = []
    switching.start()
    with stream:
        for decision in stream:
            number = int(decision.bundle.sha256, 16)
            n = decision.frame_id.sequence
            seen[decision.frame_id.source_id].append(n)
            numbers.append(number)
            by_large = decision.source is AnswerSource.LARGE
            kind = "large" if by_large else "saver"
            assert decision.stage.model == f"{kind}-{number}"
            assert decision.index == (n + number + by_large) % CLASSES
            assert decision.escalated is (n % 3 == 0)
            assert decision.degraded is None
            steps = {step for step in decision.timings_ms if "-" in step}
            assert steps <= {f"saver-{number}", f"large-{number}"}
    stop.set()
    switching.join(10)
    assert all(order == list(range(len(order))) for order in seen.values())
    assert all(len(order) % 300 == 0 for order in seen.values())
    assert done[0] == SWITCHES
    assert len(set(numbers)) > SWITCHES / 10


def test_what_waits_for_the_large_model_is_answered_by_its_own():
    old, new = Shifted(0), Shifted(5)
    old.gate.clear()
    with bundle(0, old) as first, bundle(5, new) as second:
        ready = threading.Event()

        def pictures():
            for n in range(40):
                if n == 20:
                    ready.wait(10)
                yield numbered_frame(n)

        decisions = []
        stream = first.stream(pictures(), max_in_flight=30)
        reading = threading.Thread(target=lambda: decisions.extend(stream))
        reading.start()
        while len(old.asked_large) < 1:
            time.sleep(0.002)
        time.sleep(0.1)
        over = second.take_over(stream)
        ready.set()
        time.sleep(0.1)
        assert not over.is_set()
        old.gate.set()
        reading.join(10)
        assert over.wait(5)
    by = [int(one.bundle.sha256, 16) for one in decisions]
    assert by == sorted(by)
    assert set(by) == {0, 5}
    assert all(
        one.index == (n + number + one.escalated) % CLASSES
        for n, (one, number) in enumerate(zip(decisions, by, strict=True))
    )


def test_the_former_may_be_closed_and_the_stream_goes_on():
    first, second = bundle(0), bundle(1)
    stream = first.stream(FakeSource(3000))
    by = []
    with stream:
        for decision in stream:
            by.append(int(decision.bundle.sha256, 16))
            if len(by) == 100:
                over = second.take_over(stream)
            if len(by) == 400:
                assert over.wait(5)
                first.close()
    second.close()
    assert len(by) == 3000
    assert by[-1] == 1


def test_memory_begins_anew():
    rule = ReuseRule(still=5.0, same=0.0, epoch_s=1000.0, max_age_s=1000.0)
    first, second = bundle(0, reuse=rule), bundle(1, reuse=rule)
    still = numbered_frame(1)
    ready = threading.Event()

    def camera():
        for n in range(20):
            if n == 10:
                ready.wait(10)
            yield still

    with first, second:
        stream = first.stream(limited([_opened(camera())], 20)[0])
        decisions = []
        for decision in stream:
            decisions.append(decision)
            if len(decisions) == 10:
                second.take_over(stream)
                ready.set()
    reused = [one.source is AnswerSource.REUSED for one in decisions]
    by = [int(one.bundle.sha256, 16) for one in decisions]
    change = by.index(1)
    assert reused == [n not in (0, change) for n in range(20)]
    assert decisions[change + 1].bundle.sha256 == f"{1:064x}"


def _opened(pictures):
    from tinysaver_edge.stream.sources.opening import open_source

    return open_source(pictures)


def test_a_stream_that_has_not_begun_is_taken_over():
    with bundle(0) as first, bundle(1) as second:
        stream = first.stream(FakeSource(5))
        assert second.take_over(stream).is_set()
        assert {one.bundle.sha256 for one in stream} == {f"{1:064x}"}


def test_numbers_are_told_at_both_sizes():
    for size in (8, 16):
        engine = FakeEngine(Shifted(0).saver, preprocess=Preprocess(Resize(size, size)))
        stage = Stage(engine, preprocess=engine.preprocess, policy=StagePolicy("x"))
        assert frame_numbers(stage.prepare(numbered_frame(777))).tolist() == [777]
