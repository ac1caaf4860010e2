import contextlib
import io
import json
import logging
import os
import re
import time

import pytest

from tinysaver_edge.stream.telemetry.events import (
    Connected,
    Drift,
    Dropped,
    Ended,
    Lost,
    SinkFailed,
    SinkRecovered,
    Undecided,
)
from tinysaver_edge.stream.telemetry.logs import WAITING, EventLog, LogWriter, in_words, level_of

EVENTS = [
    (Connected("door", 1.0), "info", "door: connected"),
    (Lost("door", 2.0, "no frame\nfor 3 s"), "warning", "door: lost: no frame for 3 s"),
    (Dropped("door", 3.0, 7), "debug", "door: 7 frames dropped: newer ones had come"),
    (Ended("door", 4.0, 99), "info", None),
    (Ended("door", 4.0, 9, "broken"), "error", None),
    (Undecided("door", 4.0, 9, "NaN"), "warning", None),
    (SinkFailed("", 5.0, "mqtt", "gone"), "warning", "sink mqtt failed: gone"),
    (SinkRecovered("", 5.0, "mqtt", 3), "info", "sink mqtt works again; 3 decisions were lost"),
    (
        Drift("", 6.0, 50, 9, 41.23456, 40.0, 0.05, "only warns"),
        "warning",
        "drift: 9 of 50 audited frames disagree; only warns",
    ),
]
EVENTS = [(event, level, words or f"door: {event.text}") for event, level, words in EVENTS]


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
