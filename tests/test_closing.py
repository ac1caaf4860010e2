"""Closing a cascade from where services close it: signal handlers, other threads, forked children.

Each runs in a process of its own, which has to end by itself.
"""

import gc
import subprocess
import sys
import textwrap
import threading
import time
from datetime import datetime

import pytest

from tests.small_bundle import small_bundle
from tests.test_cascade import pair
from tinysaver_edge.errors import EngineError
from tinysaver_edge.stream import CallbackSink, Queued
from tinysaver_edge.stream.lane import Lane
from tinysaver_edge.stream.telemetry.events import SinkFailed
from tinysaver_edge.testing import FakeClock, FakeSource, numbered_frame

PRELUDE = """
import os, signal, sys, threading, time
from tinysaver_edge import Cascade
from tinysaver_edge.testing import numbered_frame

cascade = Cascade.load(sys.argv[1], threads=1)
frame = numbered_frame(7, height=1080, width=1920)

def soon(what, *, seconds=0.3):
    threading.Thread(target=lambda: (time.sleep(seconds), what()), daemon=True).start()

def on_signal(what):
    signal.signal(signal.SIGTERM, lambda *_: what())
    soon(lambda: os.kill(os.getpid(), signal.SIGTERM))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("closing") / "bundle")


def told(bundle, program):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program), bundle],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0
    return done.stdout.strip()


@pytest.mark.parametrize(
    "call",
    [
        "cascade.decide(frame)",
        "cascade.decide_many([frame] * 4)",
        "cascade.submit(frame).result(9)",
    ],
)
def test_a_handler_that_closes_in_the_middle_of_a_call_does_not_wait_for_it(bundle, call):
    program = f"""
        on_signal(cascade.close)
        try:
            while True:
                {call}
        except Exception as error:
            print(error)
    """
    said = {"the cascade is closed"}
    if "submit" in call:  # a frame may be waiting at that moment
        said.add("closed before any model answered")
    assert told(bundle, program) in said


@pytest.mark.parametrize("how", ["soon", "on_signal"])
@pytest.mark.parametrize("what", ["cascade", "stream"])
def test_a_stream_ends_when_it_or_its_cascade_is_closed(bundle, how, what):
    program = f"""
        stream = cascade.stream("demo://?fps=50")
        {how}({what}.close)
        numbers = [decision.frame_id.sequence for decision in stream]
        print(numbers == sorted(numbers), len(numbers) > 0)
    """
    assert told(bundle, program) == "True True"


@pytest.mark.parametrize("loop", ["for", "async for"])
def test_a_signal_that_comes_while_the_loop_holds_a_lock_ends_it(bundle, loop):
    program = f"""
        import asyncio
        from tinysaver_edge.stream.lane import Lane

        def interrupted(lane, taken=Lane.taken):
            with lane.room:
                signal.raise_signal(signal.SIGTERM)
            taken(lane)

        Lane.taken = interrupted
        stream = cascade.stream(numbered_frame(number) for number in range(100_000))
        signal.signal(signal.SIGTERM, lambda *_: stream.close())

        async def main():
            count = 0
            {loop} decision in stream:
                count += 1
            return count

        print(asyncio.run(main()) < 1000)
    """
    assert told(bundle, program) == "True"


@pytest.mark.parametrize("who", ["sink", "listener", "metrics"])
@pytest.mark.parametrize("what", ["cascade", "stream"])
def test_a_sink_a_listener_or_metrics_may_close_what_calls_them(bundle, who, what):
    program = f"""
        from tinysaver_edge.stream import CallbackSink
        from tinysaver_edge.stream.drift.watch import NoWatch
        from tinysaver_edge.stream.telemetry.metrics import NoMetrics

        class Audits(NoWatch):
            def audits(self, decision):
                return True

        count = iter(range(100_000))

        def third(*told):
            if next(count) == 2:
                {what}.close()

        frames = (numbered_frame(number) for number in range(100_000))
        if {who!r} == "sink":
            stream = cascade.stream(frames, sinks=[CallbackSink(third)])
        elif {who!r} == "metrics":
            metrics = NoMetrics()
            metrics.gauge = third  # told with the dispatcher's lock held
            stream = cascade.stream(frames, metrics=metrics, watch=Audits())
        else:
            sources = ["demo://?fps=50&seed=1"] + ["demo://?fps=50&frames=1"] * 2
            stream = cascade.stream(*sources, listener=third)
        print(sum(1 for decision in stream) < 1000)
    """
    assert told(bundle, program) == "True"


def test_a_forked_process_is_told_to_load_its_own(bundle):
    program = """
        cascade.submit(frame).result(9)
        stream = cascade.stream("demo://?frames=1")
        def refused(call):
            try:
                call()
            except Exception as error:
                return "after the fork" in str(error)
        if not (child := os.fork()):
            signal.alarm(20)
            calls = (
                lambda: cascade.decide(frame), lambda: cascade.decide_many([frame]),
                lambda: cascade.submit(frame), lambda: cascade.stream("demo://"),
                lambda: next(iter(stream)),
            )
            print([refused(call) for call in calls], flush=True)
            stream.close()
            cascade.close()
            os._exit(0)
        print(os.waitpid(child, 0)[1], cascade.decide(frame).index)
    """
    assert told(bundle, program).startswith("[True, True, True, True, True]\n0 ")


def test_a_closed_cascade_makes_no_streams():
    cascade = pair()
    cascade.close()
    with pytest.raises(EngineError, match="the cascade is closed"):
        cascade.stream(FakeSource(1))


def test_a_sink_with_a_queue_may_close_the_stream_that_waits_for_room_in_it():
    heard = []
    stream = None
    sink = Queued(
        CallbackSink(lambda decision, _: decision.frame_id.sequence == 2 and stream.close()),
        clock=time.monotonic, listener=heard.append, capacity=1, patience_s=30,
    )  # fmt: skip
    with pair([[9.0, 0.0, 0.0]] * 300, clock=time.monotonic) as cascade:
        stream = cascade.stream(FakeSource(300), sinks=[sink], listener=heard.append)
        started_s = time.monotonic()
        assert len(list(stream)) < 300
        assert time.monotonic() - started_s < 25
    assert not [event for event in heard if isinstance(event, SinkFailed)]


def test_what_a_listener_raises_at_the_end_leaves_nobody_waiting_and_nothing_open():
    class Full(CallbackSink):
        def __exit__(self, *exception):
            raise OSError("disk full")

    def listener(event):
        if isinstance(event, SinkFailed):
            raise ValueError("nobody listens any more")

    cascade = pair([[9.0, 0.0, 0.0]], clock=time.monotonic)
    read, pictures = threading.Event(), iter([numbered_frame(0)])

    def endless():
        yield from pictures
        read.wait(20)

    stream = cascade.stream(endless(), sinks=[Full(lambda *_: None)], listener=listener)
    given = iter(stream)
    next(given)
    loop = threading.Thread(target=list, args=(given,), daemon=True)
    loop.start()
    threading.Timer(0.2, read.set).start()
    with pytest.raises(ValueError, match="nobody listens"):
        cascade.close()
    loop.join(10)
    assert not loop.is_alive()
    for stage in cascade.stages:
        with pytest.raises(EngineError, match="closed"):
            stage.ask(stage.blank)


def test_a_loop_that_the_garbage_collector_ends_in_the_middle_of_the_streams_own_work(monkeypatch):
    dropped, collected, waiting = threading.Event(), threading.Event(), Lane.waiting

    def collecting(lane, regime):  # with the dispatcher's lock held
        if dropped.is_set() and not collected.is_set():
            collected.set()
            gc.collect()
        return waiting(lane, regime)

    def frames():
        yield numbered_frame(0)
        dropped.wait(20)
        yield from [numbered_frame(0)] * 100

    monkeypatch.setattr(Lane, "waiting", collecting)
    cascade = pair([[9.0, 0.0, 0.0]], clock=time.monotonic)
    ring = [iter(cascade.stream(frames()))]
    gc.disable()  # but for once
    try:
        next(ring[0])
        ring.append(ring)
        del ring
        dropped.set()
        assert collected.wait(10)
    finally:
        gc.enable()
    closer = threading.Thread(target=cascade.close, daemon=True)
    closer.start()
    closer.join(10)
    assert not closer.is_alive()


def test_closing_from_another_thread_waits_for_the_stream_to_end():
    with pair(clock=time.monotonic) as cascade:
        stream = cascade.stream([numbered_frame(0)] * 4)
        given = iter(stream)
        next(given)
        closer = threading.Thread(target=cascade.close)
        closer.start()
        closer.join(10)
        assert not closer.is_alive()
        assert len(list(given)) <= 3


class TestTimeOfDay:
    NOON = 1_769_860_800.25

    def cascade(self, clock):
        return pair(clock=clock, wall=lambda: self.NOON + clock())

    def test_of_a_frame_that_comes_without_a_time_it_is_now(self):
        clock = FakeClock()
        with self.cascade(clock) as cascade:
            clock.advance(0.5)
            assert cascade.decide(numbered_frame(0)).taken_at == "2026-01-31T12:00:00.750Z"
            assert cascade.decide(numbered_frame(0), timestamp_s=3.0).taken_at is None
            text = cascade.decide(numbered_frame(0)).to_dict()["taken_at"]
            assert text == "2026-01-31T12:00:00.750Z"

    def test_of_a_live_frame_it_is_when_it_was_taken(self):
        wall = time.time() - time.monotonic()
        pictures = iter([numbered_frame(number) for number in range(3)])
        with pair(clock=time.monotonic) as cascade:
            taken = list(cascade.stream(lambda: next(pictures, None)))
        assert taken
        for one in taken:
            moment = datetime.fromisoformat(one.taken_at.replace("Z", "+00:00")).timestamp()
            assert moment == pytest.approx(one.timestamp_s + wall, abs=0.05)

    def test_of_files_nobody_knows_it(self, tmp_path):
        cv2 = pytest.importorskip("cv2")
        cv2.imwrite(str(tmp_path / "one.png"), numbered_frame(0))
        with self.cascade(FakeClock()) as cascade:
            assert [one.taken_at for one in cascade.stream(tmp_path)] == [None]


def test_two_sources_of_one_name_are_refused(tmp_path):
    cv2 = pytest.importorskip("cv2")
    from tinysaver_edge.errors import InputError

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in ("one.png", "two.png"):
            cv2.imwrite(str(tmp_path / name / file), numbered_frame(0))
    with pair([[9.0, 0.0, 0.0]] * 4) as cascade:
        with pytest.raises(InputError, match="two sources are called cam"):
            cascade.stream(f"cam={tmp_path}/a", f"cam={tmp_path}/b")
        ids = {one.frame_id for one in cascade.stream(tmp_path / "a", tmp_path / "b")}
        assert {one.source_id for one in ids} == {
            "a/one.png", "a/two.png", "b/one.png", "b/two.png",
        }  # fmt: skip
        alone = {one.frame_id.source_id for one in cascade.stream(tmp_path / "a")}
        assert alone == {"one.png", "two.png"}
