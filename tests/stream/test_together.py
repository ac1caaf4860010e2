"""Asking the saver about several cameras' frames at once, where that is quicker."""

import time

import numpy as np
import pytest

from tests.stream.slow import Answers, cascade_of
from tinysaver_edge.deciding.policy import Case
from tinysaver_edge.decision import FrameId
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.stream.options import StreamOptions
from tinysaver_edge.stream.pipeline import Stream
from tinysaver_edge.stream.telemetry.metrics import Counter, Tally
from tinysaver_edge.testing import FakeSource, frame_numbers, numbered_frame


class Counted(Answers):
    """Remembers how many frames the saver was asked about at a time."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.sizes = []
        self.refuses = None

    def saver(self, batch):
        self.sizes.append(len(batch))
        if self.refuses is not None and (frame_numbers(batch) == self.refuses).any():
            raise EngineError("not this one")
        return super().saver(batch)


def asked_together(cascade, numbers):
    batch = cascade.stages[0].prepare_many([numbered_frame(number) for number in numbers])
    cases = [Case(FrameId("frame", number), 0.0) for number in numbers]
    cascade.decider.ask(0, batch, cases, since_s=0.0)
    return cases


def test_a_batch_answers_what_its_frames_would_have_got_alone():
    with cascade_of(Counted()) as cascade:
        for case in asked_together(cascade, [3, 7, 4, 12]):
            (alone,) = asked_together(cascade, [case.frame_id.sequence])
            np.testing.assert_array_equal(case.outputs.logits, alone.outputs.logits)


def test_a_frame_that_fails_does_the_others_no_harm():
    answers = Counted()
    answers.refuses = 7
    with cascade_of(answers) as cascade:
        found = asked_together(cascade, [3, 7, 4, 12])
    assert [case.failure is not None for case in found] == [False, True, False, False]
    assert found[3].outputs.logits.argmax() == 2


def test_an_engine_that_fails_on_frame_after_frame_is_not_asked_about_the_rest():
    answers = Counted()
    answers.saver_broken = True
    with cascade_of(answers) as cascade:
        found = asked_together(cascade, range(8))
    assert all("broken" in str(case.failure) for case in found)
    assert answers.sizes == [8, 1, 1]


@pytest.mark.parametrize("together", [1, 2, 4])
def test_several_sources_get_the_same_answers_at_any_size(together):
    answers = Counted(saver_s=0.002)
    with cascade_of(answers) as cascade:
        sources = [FakeSource(60, source_id=name) for name in "abc"]
        stream = Stream(cascade.decider, sources, options=StreamOptions(together=together))
        got = {name: [] for name in "abc"}
        for decision in stream:
            assert decision.degraded is None  # room at the large model was kept for each of them
            got[decision.frame_id.source_id].append((decision.frame_id.sequence, decision.index))
    for decisions in got.values():
        assert decisions == [(n, (n + n % 2) % 10) for n in range(60)]
    assert set(answers.sizes) <= {1, 2, 4}
    assert max(answers.sizes) == together


def test_a_stream_of_several_sources_finds_out_and_one_of_one_does_not():
    answers = Counted(saver_s=0.002)  # a call takes as long for four as for one
    with cascade_of(answers) as cascade:
        assert len(list(cascade.stream(FakeSource(30)))) == 30
        assert set(answers.sizes) == {1}
        sources = [FakeSource(60, source_id=name) for name in "ab"]
        assert len(list(cascade.stream(*sources))) == 120
        frames_a_call = 120 / (len(answers.sizes) - 30 - 26)
    assert frames_a_call > 1.3


def test_a_saver_that_fails_at_the_start_is_not_the_streams_end():
    answers, tally = Answers(unsure=lambda n: False), Tally()
    answers.saver_broken = True
    with cascade_of(answers) as cascade:
        sources = [FakeSource(5, source_id=name) for name in "ab"]
        decisions = list(cascade.stream(*sources, metrics=tally))
    assert len(decisions) == 10
    assert tally.total(Counter.ESCALATED) == 10


def test_the_first_of_a_batch_tells_the_time_it_waited():
    with cascade_of(Counted(saver_s=0.01, unsure=lambda n: False)) as cascade:
        sources = [FakeSource(20, source_id=name) for name in "ab"]
        begun = time.monotonic()
        decisions = list(Stream(cascade.decider, sources, options=StreamOptions(together=4)))
        spent_ms = (time.monotonic() - begun) * 1e3
    assert all(9 < one.timings_ms["saver"] < spent_ms for one in decisions)


@pytest.mark.parametrize("together", [0, 3, 8])
def test_other_sizes_are_refused(together):
    with pytest.raises(InputError, match=f"together {together}: must be 1, 2 or 4"):
        StreamOptions(together=together)
