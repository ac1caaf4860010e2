import contextlib
import io
import json
import logging
import os
import re
import time

import pytest

from tinysaver_edge.stream.events import Connected, Drift, Dropped, Ended, Lost, SinkFailed
from tinysaver_edge.stream.logs import WAITING, EventLog, LogWriter, in_words, level_of

EVENTS = [
    (Connected("door", 1.0), "info", "connected door"),
    (Lost("door", 2.0, "no frame\nfor 3 s"), "warning", "lost door: reason no frame for 3 s"),
    (Dropped("door", 3.0, 7), "debug", "dropped door: frames 7"),
    (Ended("door", 4.0, 99), "info", "ended door: frames 99"),
    (Ended("door", 4.0, 9, "broken"), "error", "ended door: frames 9, reason broken"),
    (SinkFailed("", 5.0, "mqtt", "gone"), "warning", "sink_failed: sink mqtt, reason gone"),
    (
        Drift("", 6.0, 50, 9, 41.23456, 40.0, 0.05, "only warns"),
        "warning",
        "drift: audited 50, disagreed 9, evidence 41.23, alarm_at 40, level 0.05, "
        "action only warns",
    ),
]


@pytest.mark.parametrize(("event", "level", "words"), EVENTS, ids=lambda one: str(one)[:20])
def test_events_in_words(event, level, words):
    assert in_words(event) == words
    assert logging.getLevelName(level_of(event)).lower() == level


def written(*, as_json, level=logging.DEBUG):
    stream = io.StringIO()
    with LogWriter(stream, as_json=as_json, level=level):
        log = EventLog()
        for event, _, _ in EVENTS:
            log(event)
    return stream.getvalue().splitlines()


def test_as_text():
    lines = written(as_json=False)
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    for line, (_, level, words) in zip(lines, EVENTS, strict=True):
        assert re.fullmatch(f"{stamp} {level:<7} {re.escape(words)}", line)


def test_as_json_with_every_value():
    for line, (event, level, words) in zip(written(as_json=True), EVENTS, strict=True):
        said = json.loads(line)
        assert (said["severity"], said["message"]) == (level, words)
        assert said["event"] == event.kind
        assert event.to_dict().items() <= said.items()


def test_drops_are_left_out_unless_asked_for():
    assert len(written(as_json=False, level=logging.INFO)) == len(EVENTS) - 1


def test_a_pipe_that_nobody_reads_stalls_nothing():
    read, write = os.pipe()
    stream = os.fdopen(write, "w", buffering=1)
    started = time.monotonic()
    with LogWriter(stream):
        log = EventLog()
        for number in range(5 * WAITING):
            log(Lost("door", float(number), "x" * 100))
        assert time.monotonic() - started < 4
    assert time.monotonic() - started < 8
    os.close(read)
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def test_afterwards_logging_is_as_it_was():
    logger = logging.getLogger("tinysaver_edge")
    before = (logger.level, logger.propagate, list(logger.handlers))
    with LogWriter(io.StringIO()) as writer:
        assert (logger.level, logger.propagate) == (logging.INFO, False)
    writer.__exit__(None, None, None)
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
