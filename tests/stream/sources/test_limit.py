"""A limit on frames: as many as asked for, of all sources together, each with its answer."""

import threading
import time
from collections import Counter

import numpy as np
import pytest

from tests.stream.events import listening
from tests.stream.slow import Answers, cascade_of
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sources.opening import open_source
from tinysaver_edge.stream.sources.source import Frame, Source, limited, paced


def picture():
    return np.zeros((8, 8, 3), np.uint8)


def endless():
    while True:
        yield picture()


def test_together_they_give_so_many_frames_and_end():
    given = limited([open_source(endless()), open_source(endless())], 7)
    with cascade_of(Answers()) as cascade:
        decisions = list(cascade.stream(*given))
    assert len(decisions) == 7
    assert set(Counter(one.frame_id.source_id for one in decisions)) <= {"frames", "frames#2"}


def test_a_camera_that_gives_nothing_holds_up_nobody_at_the_limit():
    forever = threading.Event()

    def silent():
        forever.wait(20)
        return None

    given = limited([open_source(silent), open_source(endless())], 3)
    assert [one.live for one in given] == [True, False]
    started = time.monotonic()
    with cascade_of(Answers()) as cascade:
        assert len(list(cascade.stream(*given))) == 3
    assert time.monotonic() - started < 10
    forever.set()


def test_one_that_begins_when_all_is_given_has_nothing_to_give():
    first, second = limited([open_source(endless()), open_source(endless())], 1)
    assert len(list(first.frames())) == 1
    assert list(second.frames()) == []


def test_events_and_figures_are_the_sources_own():
    (given,) = limited([open_source(endless())], 2)
    heard, _ = listening(given)
    given.source_id = "belt"
    assert [frame.source_id for frame in given.frames()] == ["belt", "belt"]
    assert [(event.kind, event.source_id) for event in heard.events] == [
        ("connected", "belt"),
        ("ended", "belt"),
    ]
    given.close()
    given.close()


def test_no_frame_at_all_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        limited([open_source(endless())], 0)


class Timed(Source):
    """Gives frames at given times; each of a camera that was opened so many times."""

    def __init__(self, *times):
        super().__init__("timed")
        self.times = times

    def _frames(self, reuse):
        for number, (at_s, opening) in enumerate(self.times):
            yield Frame(picture(), at_s, number, self.source_id, opening=opening)


@pytest.mark.parametrize(
    ("times", "given"),
    [
        ([(k / 30, 0) for k in range(31)], [0, 6, 12, 18, 24, 30]),
        ([(k / 4, 0) for k in range(5)], [0, 1, 2, 3, 4]),
        ([(0.0, 0)] * 4, [0, 1, 2, 3]),
        ([(1.0, 0), (1.1, 0), (1.15, 1), (1.2, 1)], [0, 2]),
        ([(1.0, 0), (1.1, 0), (0.0, 0), (0.1, 0)], [0, 2]),
    ],
    ids=["faster", "slower", "no times", "opened again", "from the start again"],
)
def test_so_many_frames_a_second_at_most(times, given):
    (source,) = paced([Timed(*times)], 5.0)
    assert [one.sequence for one in source.frames()] == given


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pace_that_is_none(fps):
    with pytest.raises(InputError, match="frames a second"):
        paced([Timed()], fps)
