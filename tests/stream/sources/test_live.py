"""Live sources on devices that do what a test tells them to."""

import gc
import queue
import subprocess
import sys
import threading
import time

import pytest

from tests.stream.events import listening
from tinysaver_edge.errors import InputError, SourceError
from tinysaver_edge.stream.sources.live import DeviceError, LiveOptions, LiveSource, Slot
from tinysaver_edge.stream.telemetry.metrics import Counter, Gauge
from tinysaver_edge.testing import numbered_frame

QUICK = LiveOptions(open_s=1, read_s=0.3, shortest_s=0.01, longest_s=0.02, first_attempts=None)


def number_of(frame):
    blue, green, red = (int(value) for value in frame.image[0, 0])
    return blue | green << 8 | red << 16


class Script:
    """A device that a test feeds: numbers become frames, exceptions are raised, None ends it."""

    live_wait_s = None

    def __init__(self):
        self.items = queue.SimpleQueue()
        self.connections = 0
        self.open = 0
        self.refusals = 0

    def connect(self, options, stopping):
        if self.refusals:
            self.refusals -= 1
            raise DeviceError("refused")
        self.connections += 1
        self.open += 1
        return self

    def read(self, into):
        item = self.items.get()
        if isinstance(item, Exception):
            raise item
        if item is None:
            return None
        image = numbered_frame(item, height=4, width=4)
        if into is None:
            return image
        into[:] = image
        return into

    def close(self):
        self.open -= 1


def put(script, *items):
    for item in items:
        script.items.put(item)


@pytest.mark.parametrize("reuse", [False, True])
def test_a_slow_consumer_gets_the_newest_frame_and_gaps(reuse):
    script = Script()
    source = LiveSource(script, source_id="door", options=QUICK)
    heard, tally = listening(source)
    frames = source.frames(reuse=reuse)
    put(script, 0)
    assert number_of(next(frames)) == 0
    put(script, 1, 2, 3)
    while tally.total(Counter.DROPPED) < 2:
        time.sleep(0.001)
    third = next(frames)
    assert (third.sequence, number_of(third), third.source_id) == (3, 3, "door")
    put(script, 4, None)
    assert [(frame.sequence, number_of(frame)) for frame in frames] == [(4, 4)]
    assert tally.total(Counter.DROPPED) == 2
    assert tally.total(Counter.FRAMES) == 3
    assert sum(event.frames for event in heard.of("dropped")) == 2
    assert heard.kinds[0] == "connected"
    assert heard.kinds[-1] == "ended"
    assert heard.of("ended")[0].frames == 3
    assert script.open == 0


def test_reused_pictures_are_never_written_while_they_are_looked_at():
    """Whatever the reader does meanwhile, the frame in hand stays what it is."""
    script = Script()
    source = LiveSource(script, source_id="door", options=QUICK)
    _, tally = listening(source)
    frames = source.frames(reuse=True)
    sent = 0
    for turn in range(50):
        burst = 1 + turn % 5
        put(script, *range(sent, sent + burst))
        sent += burst
        frame = next(frames)
        while tally.total(Counter.DROPPED) + tally.total(Counter.FRAMES) + 1 < sent - 1:
            time.sleep(0.0005)
        assert number_of(frame) == frame.sequence
        assert (frame.image == frame.image[0, 0]).all()
    source.close()


def test_a_lost_device_is_opened_again_and_told():
    script = Script()
    source = LiveSource(script, source_id="door", options=QUICK)
    heard, tally = listening(source)
    frames = source.frames()
    put(script, 0)
    next(frames)
    script.refusals = 3
    put(script, DeviceError("unplugged"), 1, None)
    assert [frame.sequence for frame in frames] == [1]
    assert heard.kinds == [
        "connected", "lost", "retrying", "retrying", "retrying", "reconnected", "ended",
    ]  # fmt: skip
    assert heard.of("lost")[0].reason == "unplugged"
    assert heard.of("reconnected")[0].attempts == 4
    assert heard.of("reconnected")[0].down_s > 0
    assert tally.total(Counter.LOST) == tally.total(Counter.RECONNECTED) == 1
    assert script.connections == 2
    assert script.open == 0


def test_a_frame_from_before_the_loss_is_never_given():
    script = Script()
    source = LiveSource(script, source_id="door", options=QUICK)
    heard, tally = listening(source)
    frames = source.frames()
    put(script, 0)
    next(frames)
    put(script, 1, DeviceError("gone"))
    heard.wait_for("lost")
    put(script, 2)
    assert next(frames).sequence == 2
    assert tally.total(Counter.DROPPED) == 1
    source.close()
    put(script, None)


def test_silence_is_a_loss_told_once_and_heals():
    script = Script()
    source = LiveSource(script, source_id="door", options=QUICK)
    heard, tally = listening(source)
    frames = source.frames()
    put(script, 0)
    next(frames)
    threading.Timer(0.8, put, (script, 1)).start()
    assert next(frames).sequence == 1
    assert heard.kinds == ["connected", "lost", "reconnected"]
    assert heard.of("lost")[0].reason == "no frame for 0.3 s"
    assert tally.level(Gauge.CONNECTED, "door") == 1
    source.close()
    put(script, None)


def test_frames_that_have_piled_up_are_thrown_away():
    """While it was being opened, and while it stalled: only those that one waits for are fresh."""
    script = Script()
    script.live_wait_s = 0.02
    source = LiveSource(script, source_id="door", options=LiveOptions(read_s=5))
    _, tally = listening(source)
    frames = source.frames()

    def camera():
        put(script, 0, 1, 2)  # piled up
        time.sleep(0.1)
        put(script, 3)
        time.sleep(0.1)
        put(script, 4)
        time.sleep(0.7)  # the network stalls
        put(script, 5, 6, 7)
        time.sleep(0.1)
        put(script, 8)
        put(script, 9)  # a little early, as frames come: that is no pile
        put(script, None)

    threading.Thread(target=camera).start()
    seen = [frame.sequence for frame in frames]
    assert seen[:2] == [3, 4]
    assert seen[2:] in ([8, 9], [9])
    assert len(seen) + tally.total(Counter.DROPPED) == 10


def test_a_source_that_was_never_there_is_told_at_once():
    script = Script()
    script.refusals = 1
    source = LiveSource(script, source_id="door")
    heard, _ = listening(source)
    with pytest.raises(SourceError, match="source door: refused"):
        next(source.frames())
    assert heard.kinds == ["ended"]
    assert heard.of("ended")[0].reason == "source door: refused"


def test_a_source_given_up_ends_the_stream_with_a_reason():
    script = Script()
    options = LiveOptions(shortest_s=0.001, longest_s=0.001, attempts=3)
    source = LiveSource(script, source_id="door", options=options)
    heard, _ = listening(source)
    frames = source.frames()
    put(script, 0)
    next(frames)
    script.refusals = 9
    put(script, DeviceError("unplugged"))
    with pytest.raises(SourceError, match="refused"):
        next(frames)
    assert heard.kinds == ["connected", "lost", "retrying", "retrying", "ended"]


def test_an_error_of_the_callers_own_device_reaches_him():
    script = Script()
    source = LiveSource(script, source_id="door", options=QUICK)
    put(script, ZeroDivisionError("mine"))
    with pytest.raises(ZeroDivisionError, match="mine"):
        next(source.frames())
    assert script.open == 0


class Stuck:
    """Blocks in `connect` or `read` until the test lets it go, as OpenCV does."""

    live_wait_s = None

    def __init__(self, *, where):
        self.where = where
        self.entered = threading.Event()
        self.release = threading.Event()
        self.open = 0

    def _block(self, place):
        if place == self.where:
            self.entered.set()
            self.release.wait(10)

    def connect(self, options, stopping):
        self._block("connect")
        self.open += 1
        return self

    def read(self, into):
        self._block("read")
        return numbered_frame(1)

    def close(self):
        self.open -= 1


@pytest.mark.parametrize("where", ["connect", "read"])
def test_close_is_prompt_while_the_device_is_stuck_and_nothing_stays(where):
    device = Stuck(where=where)
    source = LiveSource(device, source_id="door", options=LiveOptions(read_s=60))
    got, threads = [], set(threading.enumerate())
    consumer = threading.Thread(target=lambda: got.extend(source.frames()))
    consumer.start()
    assert device.entered.wait(5)
    started = time.monotonic()
    source.close()
    source.close()
    consumer.join(5)
    assert time.monotonic() - started < 3
    assert not consumer.is_alive()
    device.release.set()
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
    assert set(threading.enumerate()) <= threads
    assert device.open == 0
    assert got == []


EXITING = """
import sys, threading, time
from tinysaver_edge.stream.sources.live import LiveSource

class Stuck:
    live_wait_s = None
    def connect(self, options, stopping):
        return self
    def read(self, into):
        reading.set()
        time.sleep(2.5)  # longer than `close` waits
        print("the read is over", flush=True)
    def close(self):
        print("let go", flush=True)

reading = threading.Event()
source = LiveSource(Stuck(), source_id="door")
threading.Thread(target=lambda: list(source.frames()), daemon=True).start()
reading.wait()
source.close()
print("closed", flush=True)
sys.exit(7)
"""


def test_python_does_not_end_under_a_read_that_is_stuck():
    """OpenCV would abort the process when it returned to an interpreter that is gone."""
    done = subprocess.run([sys.executable, "-c", EXITING], capture_output=True, text=True)
    assert done.stdout.split("\n") == ["closed", "the read is over", "let go", ""]
    assert (done.returncode, done.stderr) == (7, "")


def test_closing_waits_for_a_thread_that_is_only_just_begun(monkeypatch):
    begun, start = threading.Event(), threading.Thread.start

    def start_slowly(thread):
        start(thread)
        if thread.name == "source door":
            assert begun.wait(5)
            time.sleep(0.2)

    monkeypatch.setattr(threading.Thread, "start", start_slowly)

    class Slow:
        live_wait_s = None

        def connect(self, options, stopping):
            return self

        def read(self, into):
            begun.set()
            time.sleep(0.5)
            return None

        def close(self):
            closed.append(time.monotonic())

    closed = []
    source = LiveSource(Slow(), source_id="door")
    consumer = threading.Thread(target=lambda: list(source.frames()))
    consumer.start()
    assert begun.wait(5)
    source.close()
    assert closed
    consumer.join(5)


def test_close_in_every_state():
    script = Script()
    never_used = LiveSource(script, source_id="a")
    never_used.close()
    with pytest.raises(SourceError, match="source a is closed"):
        never_used.frames()
    source = LiveSource(script, source_id="b", options=QUICK)
    frames = source.frames()
    put(script, 0)
    next(frames)
    frames.close()  # the consumer has gone
    assert source.closed
    waiting = LiveSource(
        script, source_id="c", options=LiveOptions(shortest_s=30, first_attempts=9)
    )
    script.refusals = 5
    heard, _ = listening(waiting)
    thread = threading.Thread(target=lambda: list(waiting.frames()))
    thread.start()
    heard.wait_for("retrying")
    started = time.monotonic()
    waiting.close()
    thread.join(5)
    assert time.monotonic() - started < 2
    put(script, None, None)


def test_two_consumers_are_refused():
    script = Script()
    with LiveSource(script, source_id="door", options=QUICK) as source:
        put(script, 0, 1)
        first = source.frames()
        next(first)
        with pytest.raises(SourceError, match="already gives its frames"):
            next(source.frames())
        put(script, None)


def test_a_source_that_nobody_keeps_is_not_kept_by_its_thread():
    script = Script()
    source = LiveSource(script, source_id="door", options=QUICK)
    frames = source.frames()
    put(script, 0)
    next(frames)
    del frames
    gc.collect()
    assert source.closed
    put(script, None)


def test_pauses_grow_are_bounded_and_jittered():
    options = LiveOptions(shortest_s=1, longest_s=8, factor=2, jitter=0)
    assert [options.pause_s(n, lambda: 0.9) for n in range(1, 6)] == [1, 2, 4, 8, 8]
    assert options.pause_s(10_000, lambda: 0.9) == 8
    jittered = LiveOptions(shortest_s=1, jitter=0.5)
    assert jittered.pause_s(1, lambda: 0.0) == 1
    assert jittered.pause_s(1, lambda: 0.5) == 0.75


@pytest.mark.parametrize(
    "wrong",
    [
        {"open_s": 0},
        {"read_s": -1},
        {"read_s": float("nan")},
        {"open_s": float("inf")},
        {"factor": 0.5},
        {"jitter": 2},
        {"attempts": 0},
    ],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(InputError):
        LiveOptions(**wrong)


def test_a_closed_slot_takes_nothing():
    slot = Slot()
    slot.close(discard=True)
    frame = object()
    assert slot.put(frame) is frame
    assert slot.take(0) is None
    assert slot.closed
