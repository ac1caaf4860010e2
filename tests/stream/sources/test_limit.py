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
from tinysaver_edge.stream.sources.source import limited


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
