"""Single frames through futures: the caller goes on, deadlines hold, nothing is left hanging."""

import asyncio
import threading
import time

import pytest

from tests.stream.slow import Answers, cascade_of
from tests.waiting import wait_until
from tinysaver_edge.decision import AnswerSource, FrameId, Reason
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.stream.escalations import Escalations
from tinysaver_edge.stream.submissions import SUBMITTED
from tinysaver_edge.testing import numbered_frame


@pytest.mark.parametrize("large_size", [8, 12])
def test_futures_hold_what_decide_says(large_size):
    with cascade_of(Answers(), large_size=large_size) as cascade:
        frame = numbered_frame(0)
        futures = []
        for number in range(12):
            frame[:] = numbered_frame(number)  # the caller's memory is his own again
            futures.append(cascade.submit(frame, frame_id=FrameId("door", number)))
        decisions = [future.result(5) for future in futures]
        alone = [cascade.decide(numbered_frame(number)) for number in range(12)]
    assert [(one.index, one.source) for one in decisions] == [
        (one.index, one.source) for one in alone
    ]
    assert [one.frame_id.sequence for one in decisions] == list(range(12))


def test_a_deadline_holds_while_the_large_model_is_stuck():
    answers = Answers(unsure=lambda n: True)
    answers.gate.clear()
    with cascade_of(answers) as cascade:
        started = time.monotonic()
        decision = cascade.submit(numbered_frame(3), deadline_ms=60).result(5)
        assert 0.05 < time.monotonic() - started < 0.5
        assert decision.degraded == "large had not answered within 60 ms"
        assert (decision.index, decision.source) == (3, AnswerSource.FALLBACK)
        quick = cascade.submit(numbered_frame(4), deadline_ms=60)
        answers.gate.set()
        assert quick.result(5).source is AnswerSource.LARGE


def test_a_sure_frame_overtakes_one_that_waits():
    answers = Answers()
    answers.gate.clear()
    with cascade_of(answers) as cascade:
        slow, quick = cascade.submit(numbered_frame(1)), cascade.submit(numbered_frame(2))
        assert quick.result(5).source is AnswerSource.SAVER
        assert not slow.done()
        answers.gate.set()
        assert slow.result(5).source is AnswerSource.LARGE


def test_await():
    async def ask(cascade):
        return await asyncio.gather(*(cascade.submit(numbered_frame(n)) for n in range(10)))

    with cascade_of(Answers(large_s=0.01)) as cascade:
        decisions = asyncio.run(ask(cascade))
    assert [one.index for one in decisions] == [(n + n % 2) % 10 for n in range(10)]


def test_closing_answers_what_waits_and_leaves_no_thread():
    before = set(threading.enumerate())
    answers = Answers(unsure=lambda n: True)
    answers.gate.clear()
    cascade = cascade_of(answers)
    futures = [cascade.submit(numbered_frame(n)) for n in range(8)]
    time.sleep(0.1)
    threading.Timer(1.5, answers.gate.set).start()
    cascade.close()
    kinds = []
    for future in futures:
        error = future.exception(5)
        kinds.append(str(error) if error else future.result().degraded)
    assert kinds[0] == "the stream was closed before large answered"
    assert kinds[-1] == "closed before any model answered"
    with pytest.raises(EngineError, match="closed"):
        cascade.submit(numbered_frame(0))
    time.sleep(0.1)
    assert set(threading.enumerate()) <= before


def test_a_frame_that_is_about_to_wait_when_all_is_closed_gets_the_savers_answer(monkeypatch):
    cascade = cascade_of(Answers(unsure=lambda n: True), clock=time.monotonic)
    refusal = Escalations.refusal

    def closed_meanwhile(escalations, item):
        reason = refusal(escalations, item)
        threading.Thread(target=cascade.close).start()
        wait_until(lambda: escalations._stopping)
        return reason

    monkeypatch.setattr(Escalations, "refusal", closed_meanwhile)
    assert cascade.submit(numbered_frame(1)).result(10).reason is Reason.STOPPED


def test_what_no_model_can_answer_is_the_futures_error():
    answers = Answers()
    answers.broken = answers.saver_broken = True
    with cascade_of(answers) as cascade:
        with pytest.raises(EngineError, match="the large model is broken"):
            cascade.submit(numbered_frame(0)).result(5)
        with pytest.raises(EngineError, match="broken"):
            cascade.submit(numbered_frame(0), deadline_ms=50).result(5)
        answers.broken = answers.saver_broken = False
        assert cascade.submit(numbered_frame(0)).result(5).source is AnswerSource.SAVER


def test_too_many_at_once_are_refused_at_once():
    answers = Answers(saver_s=0.2)
    with cascade_of(answers) as cascade:
        futures = []
        with pytest.raises(EngineError, match=f"{SUBMITTED} frames wait for the saver already"):
            futures.extend(cascade.submit(numbered_frame(0)) for _ in range(100))
        assert len(futures) == SUBMITTED
        answers.saver_s = 0
        assert {future.result(5).index for future in futures} == {0}


def test_bad_input_is_told_to_the_caller():
    with cascade_of(Answers()) as cascade:
        with pytest.raises(InputError, match="frame"):
            cascade.submit(numbered_frame(0).astype("float32"))
        with pytest.raises(InputError, match="deadline_ms -1"):
            cascade.submit(numbered_frame(0), deadline_ms=-1)
        for _ in range(3 * SUBMITTED):
            with pytest.raises(InputError):
                cascade.submit(numbered_frame(0).astype("float32"))
        assert cascade.submit(numbered_frame(0)).result(5).index == 0
