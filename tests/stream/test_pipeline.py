"""Streams: what comes out, in which order, in what time, whatever the large model does."""

import asyncio
import itertools
import math
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest

from tests.stream.events import Heard
from tests.stream.slow import Answers, cascade_of
from tinysaver_edge.decision import AnswerSource, Reason
from tinysaver_edge.errors import EngineError, InputError, SourceError
from tinysaver_edge.stream.drift.watch import NoWatch
from tinysaver_edge.stream.sources.live import DeviceError, LiveSource
from tinysaver_edge.stream.telemetry.metrics import Counter, Gauge, Measure, Tally
from tinysaver_edge.testing import FakeSource, numbered_frame


def numbers(decisions):
    return [decision.frame_id.sequence for decision in decisions]


def without_times(decision):
    return replace(decision, timings_ms={})


class Paced:
    """A live device: numbered frames at a steady rate, as a camera gives them."""

    live_wait_s = None

    def __init__(self, frames, *, fps=100.0, first=0):
        self._frames, self._period_s, self._first = frames, 1 / fps, first

    def connect(self, options, stopping):
        self._numbers = itertools.count()
        self._next_s = time.monotonic()
        return self

    def read(self, into):
        number = next(self._numbers)
        if number >= self._frames:
            return None
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s += self._period_s
        return numbered_frame(self._first + number)

    def close(self):
        pass


def camera(frames, *, fps=100.0, source_id="camera", first=0):
    return LiveSource(Paced(frames, fps=fps, first=first), source_id=source_id)


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self, *, wants_frames=False, name="kept"):
        self.name, self.wants_frames = name, wants_frames
        self.got = []
        self.open = None

    def write(self, decision, frame):
        assert self.open
        self.got.append((decision, frame))

    def __enter__(self):
        self.open = True
        return self

    def __exit__(self, *exception):
        self.open = False


@pytest.mark.parametrize("large_size", [8, 12])
@pytest.mark.parametrize("max_in_flight", [1, 4])
def test_a_file_gets_the_answers_of_decide_in_order(large_size, max_in_flight):
    with cascade_of(Answers(large_s=0.001), large_size=large_size) as cascade:
        alone = [
            cascade.decide(frame.image, frame_id=frame.frame_id, timestamp_s=frame.timestamp_s)
            for frame in FakeSource(100, lost={7})
        ]
        stream = cascade.stream(FakeSource(100, lost={7}), max_in_flight=max_in_flight)
        decisions = list(stream)
    assert [without_times(one) for one in decisions] == [without_times(one) for one in alone]
    assert {one.source for one in decisions} == {AnswerSource.SAVER, AnswerSource.LARGE}
    assert all(one.timings_ms["total"] > 0 for one in decisions)


def test_a_file_waits_for_a_slow_large_model_rather_than_be_degraded():
    answers = Answers(large_s=0.02, unsure=lambda n: True)
    with cascade_of(answers) as cascade:
        decisions = list(cascade.stream(FakeSource(30), max_in_flight=2))
    assert [one.index for one in decisions] == [(n + 1) % 10 for n in range(30)]
    assert not any(one.degraded for one in decisions)


def test_wait_gives_one_final_decision_a_frame_in_order_within_the_deadline():
    answers = Answers(unsure=lambda n: n % 3 == 0)
    answers.gate.clear()
    tally = Tally()
    with cascade_of(answers) as cascade:
        stream = cascade.stream(camera(60), deadline_ms=100, max_in_flight=2, metrics=tally)
        came = [(one, time.monotonic()) for one in stream]
        answers.gate.set()
    decisions = [one for one, _ in came]
    assert numbers(decisions) == sorted(set(numbers(decisions)))
    assert len(decisions) + tally.total(Counter.DROPPED) == 60
    assert all(one.revision == 0 for one in decisions)
    for one, moment in came:
        assert moment - one.timestamp_s < 0.4
        if one.frame_id.sequence % 3:
            assert (one.source, one.degraded) == (AnswerSource.SAVER, None)
        else:
            assert one.source is AnswerSource.FALLBACK
            assert not one.certified
    reasons = {one.degraded for one in decisions} - {None}
    assert reasons == {
        "large had not answered within 100 ms",
        "2 frames wait for large already",
    }
    degraded = tally.total(Counter.DEGRADED)
    assert degraded == sum(one.degraded is not None for one in decisions)
    assert tally.total(Counter.DECISIONS) == len(decisions)


def test_the_saver_never_waits_for_the_large_model():
    """With the large model stuck, accepted answers go on coming at once (revise)."""
    answers = Answers(unsure=lambda n: n % 5 < 2)
    answers.gate.clear()
    with cascade_of(answers) as cascade:
        stream = cascade.stream(camera(100), escalation="revise", deadline_ms=500)
        ages = []
        for one in stream:
            if one.source is AnswerSource.SAVER:
                ages.append(time.monotonic() - one.timestamp_s)
        answers.gate.set()
    assert len(ages) > 40
    assert sorted(ages)[int(0.9 * len(ages))] < 0.1  # stuck, it would be 0.5


def test_revise_gives_a_provisional_answer_at_once_and_one_revision():
    with cascade_of(Answers(large_s=0.005)) as cascade:
        decisions = list(cascade.stream(FakeSource(40), escalation="revise"))
    first = [one for one in decisions if one.revision == 0]
    revised = [one for one in decisions if one.revision == 1]
    assert numbers(first) == list(range(40))
    assert sorted(numbers(revised)) == list(range(1, 40, 2))
    for one in first:
        if one.frame_id.sequence % 2:
            assert one.degraded == "provisional: large has been asked"
            assert one.reason is Reason.PROVISIONAL
            assert (one.source, one.certified) == (AnswerSource.FALLBACK, False)
    for one in revised:
        assert (one.source, one.degraded) == (AnswerSource.LARGE, None)
        assert one.index == (one.frame_id.sequence + 1) % 10
        place = decisions.index(one)
        assert any(other.frame_id == one.frame_id for other in decisions[:place])


def test_a_revision_that_does_not_come_in_time_is_said_once():
    answers = Answers(unsure=lambda n: n == 0)
    answers.gate.clear()
    tally = Tally()
    with cascade_of(answers) as cascade:
        stream = cascade.stream(FakeSource(3), escalation="revise", deadline_ms=50, metrics=tally)
        decisions = list(stream)
        answers.gate.set()
    assert [(one.frame_id.sequence, one.revision) for one in decisions] == [
        (0, 0), (1, 0), (2, 0), (0, 1),
    ]  # fmt: skip
    assert decisions[-1].degraded == "large had not answered within 50 ms"


def test_local_never_asks_the_large_model():
    answers = Answers()
    with cascade_of(answers) as cascade:
        decisions = list(cascade.stream(FakeSource(20), escalation="local"))
    assert answers.asked_large == []
    assert [one.index for one in decisions] == [n % 10 for n in range(20)]
    assert decisions[1].degraded == "large is not asked: the stream is local"
    assert decisions[0].degraded is None


@pytest.mark.parametrize("escalation", ["wait", "revise"])
def test_a_large_model_that_fails_and_recovers(escalation):
    answers = Answers(unsure=lambda n: True)
    answers.broken = True
    tally = Tally()

    def frames():
        for number in range(20):
            answers.broken = number < 10
            time.sleep(0.01)
            yield numbered_frame(number)

    with cascade_of(answers) as cascade:
        decisions = list(cascade.stream(frames(), escalation=escalation, metrics=tally))
    final = {one.frame_id.sequence: one for one in decisions}
    assert len(final) == 20
    assert final[5].degraded == "large failed: the large model is broken"
    assert final[5].source is AnswerSource.FALLBACK
    assert (final[15].degraded, final[15].source) == (None, AnswerSource.LARGE)
    assert 8 <= tally.total(Counter.DEGRADED, detail="failed") <= 11


def test_a_frame_that_no_model_can_answer():
    answers = Answers()
    answers.broken = answers.saver_broken = True
    with cascade_of(answers) as cascade:
        with pytest.raises(EngineError, match="frame 0 of fake: the large model is broken"):
            list(cascade.stream(FakeSource(5)))
        heard, tally = Heard(), Tally()
        decisions = list(cascade.stream(camera(10), listener=heard, metrics=tally))
    assert decisions == []
    assert len(heard.of("undecided")) == tally.total(Counter.UNDECIDED) > 0
    assert heard.kinds[-1] != "failed"


def test_a_saver_that_fails_leaves_the_frame_to_the_large_model():
    answers = Answers()
    answers.saver_broken = True
    with cascade_of(answers) as cascade:
        decisions = list(cascade.stream(FakeSource(5)))
    assert [one.index for one in decisions] == [1, 2, 3, 4, 5]
    assert {one.degraded for one in decisions} == {"saver failed: the saver is broken"}


def test_a_slow_loop_gets_fresh_frames():
    with cascade_of(Answers()) as cascade:
        taken_s, came_s = [], []
        for one in cascade.stream(camera(200, fps=200)):
            taken_s.append(time.monotonic())
            came_s.append(one.timestamp_s)
            time.sleep(0.05)
    assert len(taken_s) < 30
    # None is older than the loop's last three turns, as long as the machine made these, and a bit.
    begun_s = [taken_s[0]] * 3 + taken_s[:-3]
    late_s = sorted(begun - came for begun, came in zip(begun_s, came_s, strict=True))
    assert late_s[int(0.8 * len(late_s))] < 0.05


def test_sources_take_turns():
    with cascade_of(Answers(saver_s=0.002, unsure=lambda n: False)) as cascade:
        sources = [FakeSource(50, source_id=name) for name in "abc"]
        names = [one.frame_id.source_id for one in cascade.stream(*sources)]
    for window in range(10, 90, 10):
        part = names[window : window + 30]
        assert all(5 <= part.count(name) <= 15 for name in "abc")
    assert len(names) == 150


def test_a_source_that_is_always_unsure_leaves_room_to_the_others():
    answers = Answers(unsure=lambda n: n < 10_000 or n % 10 == 0, large_s=0.05)
    with cascade_of(answers) as cascade:
        greedy = camera(150, fps=75, source_id="greedy")
        modest = camera(150, fps=75, source_id="modest", first=10_000)
        decisions = list(cascade.stream(greedy, modest))
    unsure = [
        one
        for one in decisions
        if one.frame_id.source_id == "modest" and one.source is not AnswerSource.SAVER
    ]
    assert len(unsure) > 8
    assert np.mean([one.source is AnswerSource.LARGE for one in unsure]) > 0.7
    assert any(one.source is AnswerSource.LARGE for one in decisions if one not in unsure)
    for name in ("greedy", "modest"):
        mine = [one for one in decisions if one.frame_id.source_id == name]
        assert numbers(mine) == sorted(set(numbers(mine)))


def test_equal_names_are_told_apart():
    with cascade_of(Answers()) as cascade:
        stream = cascade.stream([numbered_frame(0)], [numbered_frame(1)])
        assert stream.source_ids == ("frames", "frames#2")
        assert sorted(one.frame_id.source_id for one in stream) == ["frames", "frames#2"]


def test_one_source_fails_and_the_others_go_on():
    class Gone:
        def connect(self, options, stopping):
            raise DeviceError("unplugged")

    with cascade_of(Answers()) as cascade:
        heard = Heard()
        stream = cascade.stream(
            LiveSource(Gone(), source_id="gone"), FakeSource(20), listener=heard
        )
        decisions = []
        with pytest.raises(SourceError, match="source gone: unplugged"):
            decisions.extend(stream)
    assert numbers(decisions) == list(range(20))
    assert {event.source_id: event.reason for event in heard.of("ended")} == {
        "gone": "source gone: unplugged",
        "frames": None,
    }


@pytest.mark.parametrize("escalation", ["wait", "revise"])
def test_few_pictures_are_kept_however_long_the_large_model_takes(escalation, monkeypatch):
    """Frames wait in order behind one that waits, but not at their full size."""
    monkeypatch.setattr("tinysaver_edge.stream.lane.PICTURES", 5)
    alive, most = set(), 0

    class Counted(FakeSource):
        def __iter__(self):
            nonlocal most
            for frame in super().__iter__():
                alive.add(frame.sequence)
                weakref.finalize(frame.image, alive.discard, frame.sequence)
                most = max(most, len(alive))
                yield frame

    answers = Answers(unsure=lambda n: n % 10 == 0, large_s=0.03)
    with cascade_of(answers, large_size=12) as cascade:
        hungry = Forgetful(wants_frames=True)
        stream = cascade.stream(Counted(100), escalation=escalation, sinks=[hungry])
        assert sum(not one.revision for one in stream) == 100
    assert most <= 5 + 3  # and what the source and the sink have in hand


class Forgetful(Kept):
    """Looks at frames and keeps none."""

    def write(self, decision, frame):
        assert frame.image is not None


def test_sinks_get_everything_and_the_pictures_they_want():
    plain, hungry = Kept(), Kept(wants_frames=True, name="hungry")
    with cascade_of(Answers()) as cascade:
        decisions = list(cascade.stream(FakeSource(30), escalation="revise", sinks=[plain, hungry]))
        only = Kept()
        cascade.stream(FakeSource(10), sinks=[only]).run()
    assert [one for one, _ in hungry.got] == decisions
    assert [one for one, _ in plain.got] == decisions
    for one, frame in hungry.got:
        assert frame.frame_id == one.frame_id
        assert (frame.image == numbered_frame(frame.sequence)).all()
    assert plain.open is hungry.open is False
    assert numbers(one for one, _ in only.got) == list(range(10))


def test_a_sink_that_fails_stops_nothing():
    class Full(Kept):
        def write(self, decision, frame):
            raise OSError(28, "No space left on device")

        def __exit__(self, *exception):
            raise OSError(28, "No space left on device")

    good, heard, tally = Kept(), Heard(), Tally()
    with cascade_of(Answers()) as cascade:
        sinks = [Full(name="full"), good]
        stream = cascade.stream(FakeSource(5), sinks=sinks, listener=heard, metrics=tally)
        assert len(list(stream)) == 5
    assert len(good.got) == 5
    assert tally.total(Counter.SINK_FAILED, detail="full") == 5
    assert "No space left" in heard.of("sink_failed")[0].reason


def test_a_sink_that_cannot_be_opened_ends_the_stream_before_it_starts():
    class Locked(Kept):
        def __enter__(self):
            raise InputError("sink x: cannot be opened")

    good = Kept()
    with cascade_of(Answers()) as cascade, pytest.raises(InputError, match="cannot be opened"):
        list(cascade.stream(FakeSource(5), sinks=[good, Locked()]))
    assert good.open is False


def test_leaving_the_loop_closes_everything():
    before = set(threading.enumerate())
    answers = Answers(unsure=lambda n: n % 2 == 1)
    answers.gate.clear()
    sink = Kept()
    with cascade_of(answers) as cascade:
        for one in cascade.stream(camera(10_000), sinks=[sink], escalation="revise"):
            if one.frame_id.sequence >= 4:
                break
        answers.gate.set()
    time.sleep(0.05)
    assert sink.open is False
    last = {one.frame_id.sequence: one for one, _ in sink.got}
    assert "closed before large answered" in last[1].degraded
    assert set(threading.enumerate()) <= before


def test_close_from_another_thread_ends_the_loop():
    with cascade_of(Answers()) as cascade:
        stream = cascade.stream(camera(10_000))
        decisions = []
        for one in stream:
            decisions.append(one)
            if len(decisions) == 6:  # a busy machine may take its time until then
                threading.Timer(0.1, stream.close).start()
        stream.close()
    assert 5 < len(decisions) < 100
    with pytest.raises(InputError, match="runs once"):
        list(stream)


def test_a_stream_that_was_never_started_can_be_closed():
    with cascade_of(Answers()) as cascade, cascade.stream(camera(10)) as stream:
        pass
    stream.close()


def test_an_error_in_the_iterable_comes_out():
    def frames():
        yield numbered_frame(0)
        raise ZeroDivisionError("mine")

    with cascade_of(Answers()) as cascade:
        decisions = []
        with pytest.raises(ZeroDivisionError, match="mine"):
            decisions.extend(cascade.stream(frames()))
    assert numbers(decisions) == [0]


def test_an_error_in_a_metric_ends_the_stream_and_is_not_swallowed():
    class Broken(Tally):
        def measure(self, measure, source_id, value_ms, *, detail):
            if measure is Measure.SAVER_MS:
                raise ZeroDivisionError("metrics")

    with cascade_of(Answers()) as cascade, pytest.raises(ZeroDivisionError, match="metrics"):
        list(cascade.stream(FakeSource(100), metrics=Broken()))


def test_leaving_async_for_does_not_hold_up_the_loop_for_a_camera_that_is_stuck():
    freed = threading.Event()

    class Stuck(Paced):
        def read(self, into):
            picture = super().read(into)
            if picture is None:
                freed.wait(20)
            return picture

    async def leave(cascade):
        longest = 0.0

        async def beat():
            nonlocal longest
            last = time.monotonic()
            while True:
                await asyncio.sleep(0.001)
                now = time.monotonic()
                longest, last = max(longest, now - last), now

        async def use():
            async for _ in cascade.stream(LiveSource(Stuck(3), source_id="door")):
                pass

        using = asyncio.create_task(use())
        await asyncio.sleep(0.5)
        heart = asyncio.create_task(beat())
        await asyncio.sleep(0.05)
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        await asyncio.sleep(0.05)
        heart.cancel()
        return longest

    with cascade_of(Answers()) as cascade:
        longest = asyncio.run(leave(cascade))
    freed.set()
    assert longest < 0.7  # closing waits a second for the read


def test_async_for():
    async def collect(cascade):
        decisions, beats = [], 0

        async def beat():
            nonlocal beats
            while True:
                await asyncio.sleep(0.001)
                beats += 1

        heart = asyncio.create_task(beat())
        async for one in cascade.stream(camera(20)):
            decisions.append(one)
        heart.cancel()
        return decisions, beats

    with cascade_of(Answers(large_s=0.02)) as cascade:
        decisions, beats = asyncio.run(collect(cascade))
    assert len(decisions) > 10
    assert beats > 20  # the event loop was never held up


def test_audits_see_accepted_frames_and_delay_nothing():
    class Watching(NoWatch):
        wants_frames = True

        def __init__(self):
            self.pairs = []

        def audits(self, decision):
            return decision.frame_id.sequence % 4 == 0

        def audited(self, accepted, large, frame):
            self.pairs.append((accepted, large, frame))

    watch, tally = Watching(), Tally()
    with cascade_of(Answers(unsure=lambda n: False, large_s=0.001)) as cascade:
        decisions = list(cascade.stream(FakeSource(40), watch=watch, metrics=tally))
    assert {one.source for one in decisions} == {AnswerSource.SAVER}
    assert len(watch.pairs) >= 5
    for accepted, large, frame in watch.pairs:
        assert accepted.frame_id == large.frame_id == frame.frame_id
        assert large.index == (accepted.index + 1) % 10
        assert large.source is AnswerSource.LARGE
    assert tally.level(Gauge.IN_FLIGHT) == 0


def test_a_watch_may_be_stricter():
    class Strict(NoWatch):
        def in_force(self, threshold):
            return math.inf

    with cascade_of(Answers()) as cascade:
        decisions = list(cascade.stream(FakeSource(10), watch=Strict()))
    assert {one.source for one in decisions} == {AnswerSource.LARGE}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"escalation": "never"}, "escalation 'never': expected one of wait, revise, local"),
        ({"deadline_ms": 0}, "deadline_ms 0"),
        ({"max_in_flight": 0}, "max_in_flight 0"),
    ],
)
def test_options_out_of_range(settings, message):
    with cascade_of(Answers()) as cascade, pytest.raises(InputError, match=message):
        cascade.stream(FakeSource(1), **settings)


def test_a_stream_needs_a_source():
    with cascade_of(Answers()) as cascade, pytest.raises(InputError, match="at least one source"):
        cascade.stream()


def test_decide_and_two_streams_share_the_engines():
    with cascade_of(Answers()) as cascade:
        results = {}

        def run(name):
            results[name] = [one.index for one in cascade.stream(FakeSource(200))]

        threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        direct = [cascade.decide(numbered_frame(n)).index for n in range(200)]
        for thread in threads:
            thread.join()
    expected = [(n + n % 2) % 10 for n in range(200)]
    assert direct == results["a"] == results["b"] == expected


def test_closing_while_it_starts_waits_and_then_closes():
    """A signal may come at any moment: also between a thread's making and its start."""
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Kept):
        def __enter__(self):
            entered.set()
            assert go_on.wait(10)
            return super().__enter__()

    sink, raised = Slow(), []
    with cascade_of(Answers()) as cascade:
        stream = cascade.stream(camera(1000), sinks=(sink,))

        def close():
            entered.wait(10)
            closer.start()
            time.sleep(0.2)
            go_on.set()

        def closing():
            try:
                stream.close()
            except BaseException as error:
                raised.append(error)

        closer = threading.Thread(target=closing)
        helper = threading.Thread(target=close)
        helper.start()
        for _ in stream:
            pass
        helper.join(10)
        closer.join(10)
    assert not closer.is_alive()
    assert raised == []
    assert sink.open is False


def test_closed_before_it_starts_it_cannot_run():
    with cascade_of(Answers()) as cascade:
        stream = cascade.stream(camera(10))
        stream.close()
        with pytest.raises(InputError, match="runs once"):
            list(stream)
