import threading
import time

import pytest

from tests.stream.decisions import Events, decision, frame
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream import CallbackSink, Queued
from tinysaver_edge.stream.telemetry.metrics import Counter, Tally


class Recorder:
    """A sink that does what it is told and remembers the threads it was called in."""

    name = "recorder"

    def __init__(self, *, refuse=None, fail=(), gate=None, fail_to_close=None):
        self.taken, self.threads, self.left = [], set(), False
        self._refuse, self._fail, self._gate = refuse, set(fail), gate
        self._fail_to_close = fail_to_close
        self.wants_frames = False

    def __enter__(self):
        self.threads.add(threading.get_ident())
        if self._refuse is not None:
            raise self._refuse
        return self

    def write(self, decision, frame):
        self.threads.add(threading.get_ident())
        if self._gate is not None:
            self._gate.wait()
        if decision.frame_id.sequence in self._fail:
            raise OSError(28, "No space left on device", "out.jsonl")
        self.taken.append(decision.frame_id.sequence)

    def __exit__(self, *exception):
        self.threads.add(threading.get_ident())
        self.left = True
        if self._fail_to_close is not None:
            raise self._fail_to_close


def queued(sink, **options):
    events, tally = Events(), Tally()
    wrapped = Queued(sink, clock=time.monotonic, listener=events, metrics=tally, **options)
    return wrapped, events, tally


def test_everything_taken_is_written_in_order_by_one_thread_that_is_not_the_callers():
    sink = Recorder()
    wrapped, events, _ = queued(sink)
    with wrapped as one:
        for number in range(500):
            one.write(decision(number), None)
    assert sink.taken == list(range(500))
    assert sink.left
    assert len(sink.threads) == 1
    assert threading.get_ident() not in sink.threads
    assert events.all == []


def test_a_sink_that_stands_still_drops_and_counts_and_never_blocks():
    gate = threading.Event()
    sink = Recorder(gate=gate)
    wrapped, _, tally = queued(sink, capacity=10)
    with wrapped as one:
        started = time.monotonic()
        for number in range(1000):
            one.write(decision(number, source_id="door"), None)
        assert time.monotonic() - started < 1.0
        gate.set()
    dropped = tally.total(Counter.SINK_DROPPED, source_id="door", detail="recorder")
    assert dropped + len(sink.taken) == 1000
    assert 10 <= len(sink.taken) <= 11
    assert sink.taken == sorted(sink.taken)


def test_pictures_are_bounded_on_their_own():
    gate = threading.Event()
    sink = Recorder(gate=gate)
    wrapped, _, tally = queued(sink, pictures=3)
    with wrapped as one:
        for number in range(100):
            one.write(decision(number), frame(number))
        assert tally.total(Counter.SINK_DROPPED) >= 96
        gate.set()


def test_with_patience_every_decision_of_a_file_is_written():
    class Slow(Recorder):
        def write(self, decision, frame):
            time.sleep(0.002)
            super().write(decision, frame)

    sink = Slow()
    wrapped, _, tally = queued(sink, capacity=2, pictures=1, patience_s=10)
    with wrapped as one:
        for number in range(200):
            one.write(decision(number), frame(number) if number % 3 else None)
    assert sink.taken == list(range(200))
    assert tally.total(Counter.SINK_DROPPED) == 0


def test_patience_runs_out_once_and_comes_back_when_the_sink_moves_on():
    gate = threading.Event()
    sink = Recorder(gate=gate)
    wrapped, _, tally = queued(sink, capacity=2, patience_s=0.2)
    with wrapped as one:
        started = time.monotonic()
        for number in range(100):
            one.write(decision(number), None)
        assert 0.2 <= time.monotonic() - started < 1.0
        dropped = tally.total(Counter.SINK_DROPPED)
        assert dropped >= 97
        gate.set()
        while sink.taken == []:
            time.sleep(0.01)
        for number in range(100, 200):
            one.write(decision(number), None)
    assert sink.taken[-100:] == list(range(100, 200))
    assert tally.total(Counter.SINK_DROPPED) == dropped


def test_leaving_does_not_wait_for_ever_and_counts_what_was_left():
    gate = threading.Event()
    sink = Recorder(gate=gate)
    wrapped, _, tally = queued(sink, close_timeout_s=0.2)
    started = time.monotonic()
    with wrapped as one:
        for number in range(20):
            one.write(decision(number), None)
    assert time.monotonic() - started < 2
    assert tally.total(Counter.SINK_DROPPED) >= 19
    gate.set()


def test_failing_is_told_once_counted_each_time_and_mended():
    sink = Recorder(fail=range(3, 8))
    wrapped, events, tally = queued(sink)
    with wrapped as one:
        for number in range(12):
            one.write(decision(number), None)
    assert sink.taken == [0, 1, 2, 8, 9, 10, 11]
    assert tally.total(Counter.SINK_FAILED, source_id="cam", detail="recorder") == 5
    failed, recovered = events.all
    assert (failed.kind, failed.reason) == ("sink_failed", "out.jsonl: No space left on device")
    assert (recovered.kind, recovered.lost) == ("sink_recovered", 5)


def test_what_a_sink_leaves_out_says_nothing_of_whether_it_works():
    """A disk for hard frames is not mended by a frame that was not hard."""

    class Choosy(Recorder):
        def write(self, decision, frame):
            return super().write(decision, frame) if decision.escalated else False

    wrapped, events, _ = queued(Choosy(fail=range(0, 8)))
    with wrapped as one:
        for number in range(12):
            one.write(decision(number, escalated=number % 2 == 0), None)
    failed, recovered = events.all
    assert (failed.kind, recovered.kind) == ("sink_failed", "sink_recovered")
    assert recovered.lost == 4


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (InputError("--video x: no"), "--video x: no"),
        (PermissionError(13, "Permission denied", "/x"), "recorder: /x: Permission denied"),
        (RuntimeError("odd"), "recorder: odd"),
    ],
    ids=["ours", "system", "other"],
)
def test_a_sink_that_cannot_be_opened_says_so_where_the_stream_starts(refusal, words):
    wrapped, _, _ = queued(Recorder(refuse=refusal))
    with pytest.raises(InputError, match=words), wrapped:
        pass


def test_a_sink_that_fails_to_close_is_told():
    wrapped, events, _ = queued(Recorder(fail_to_close=OSError(5, "Input/output error")))
    with wrapped:
        pass
    assert [event.reason for event in events.all] == ["Input/output error"]


def test_leaving_is_legal_in_every_state_and_what_comes_later_is_counted():
    wrapped, _, tally = queued(Recorder())
    wrapped.__exit__(None, None, None)
    wrapped.write(decision(), None)
    assert tally.total(Counter.SINK_DROPPED) == 1
    with queued(Recorder())[0] as one:
        one.__exit__(None, None, None)


def test_it_wants_frames_when_its_sink_does():
    sink = Recorder()
    wrapped, _, _ = queued(sink)
    assert not wrapped.wants_frames
    sink.wants_frames = True
    assert wrapped.wants_frames


def test_a_queue_without_room_is_refused():
    with pytest.raises(InputError, match="holds none"):
        queued(Recorder(), capacity=0)


def test_no_picture_is_held_while_nothing_comes():
    import gc
    import weakref

    wrapped, _, _ = queued(Recorder())
    with wrapped as one:
        picture = frame(1)
        watched = weakref.ref(picture.image)
        one.write(decision(1), picture)
        del picture
        deadline = time.monotonic() + 5
        while watched() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
            gc.collect()
        assert watched() is None


@pytest.mark.parametrize("frames", [False, True])
def test_a_callback_hears_everything_and_sees_what_it_asked_for(frames):
    heard = []
    sink = CallbackSink(lambda *what: heard.append(what), frames=frames)
    assert sink.wants_frames is frames
    with sink as one:
        picture = frame(4)
        one.write(decision(4), picture)
    assert heard == [(decision(4), picture if frames else None)]
