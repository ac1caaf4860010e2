"""How far a reader walks who follows one frame: through `decide`, and through a stream."""

import threading

from tests.stream.slow import Answers, cascade_of
from tests.walking import Walk
from tinysaver_edge.testing import numbered_frame

NOT_OURS = {"testing.py"}  # the stand-in for an engine


def test_a_frame_is_decided_by_ten_files():
    with cascade_of(Answers()) as cascade:
        cascade.decide(numbered_frame(1))
        frame = numbered_frame(1)  # the saver is unsure: the large model is asked
        with Walk() as walk:
            cascade.decide(frame)
    assert len(set(walk.told()) - NOT_OURS) <= 10


class Tap:
    """Gives a picture whenever it is opened for one more."""

    def __init__(self):
        self._more = threading.Semaphore(0)

    def open(self):
        self._more.release()

    def __iter__(self):
        number = 1
        while True:
            self._more.acquire()
            yield numbered_frame(number)
            number += 2  # the saver is unsure of odd ones


def walk_of_a_streamed_frame():
    tap = Tap()
    with cascade_of(Answers()) as cascade, Walk() as walk:
        stream = cascade.stream(tap)
        decisions = iter(stream)
        tap.open()
        next(decisions)
        walk.begin()
        tap.open()
        assert next(decisions).escalated
        steps = list(walk.steps)
        tap.open()
        stream.close()
    walk.steps = steps
    return walk


def test_a_streamed_frame_passes_twelve_files_of_the_stream():
    files = walk_of_a_streamed_frame().told()
    assert len([file for file in files if file.startswith("stream/")]) <= 12


def test_a_streamed_frame_comes_back_to_the_pipeline_only_to_be_handed_out():
    steps = walk_of_a_streamed_frame().steps
    asked = [place for place, (_, file) in enumerate(steps) if file == "stream/escalations.py"]
    reading = {thread for thread, file in steps if file == "stream/sources/opening.py"}
    back = {thread for thread, file in steps[asked[0] :] if file == "stream/pipeline.py"}
    here = threading.current_thread().name
    assert back <= {here} | reading  # handed out; and the feeder asks for the next one
