"""What the terminal is told of a stream: floods of events as sums, everything else as it comes."""

from __future__ import annotations

from tinysaver_edge.cli.event_lines import EVERY_S, WHY, Teller, degraded, left_out
from tinysaver_edge.decision import Reason
from tinysaver_edge.stream.telemetry.events import (
    Connected,
    Corrupt,
    Dropped,
    Lost,
    Retrying,
    Undecided,
)
from tinysaver_edge.stream.telemetry.metrics import Counter, Tally


class Told:
    """A teller with a clock that the test turns, and the lines that it has written."""

    def __init__(self):
        self.now, self.lines = 0.0, []
        self.teller = Teller(clock=lambda: self.now, say=self.lines.append)

    def __call__(self, event):
        self.teller(event)


def test_a_camera_that_drops_all_day_takes_a_line_in_half_a_minute():
    told = Told()
    for second in range(601):
        told.now = float(second)
        told(Dropped("door", told.now, 12))
    assert len(told.lines) == 1 + 600 / EVERY_S
    assert told.lines[0] == "door: 12 frames dropped: newer ones had come"
    assert told.lines[1] == "door: 360 frames dropped in 30 s: newer ones had come"


def test_each_camera_has_its_own_and_a_quiet_one_is_told_at_once():
    told = Told()
    told(Dropped("door", 0.0, 3))
    told(Dropped("yard", 0.0, 1))
    told.now = 10 * EVERY_S
    told(Dropped("door", told.now, 2))
    assert told.lines[-1] == "door: 2 frames dropped: newer ones had come"
    assert [line.split(":")[0] for line in told.lines] == ["door", "yard", "door"]


def test_a_file_that_lacks_its_second_half_takes_a_few_lines():
    told = Told()
    for number in range(5000):
        told(Corrupt("cut.mp4", 0.0, number, "the frame cannot be decoded"))
    assert len(told.lines) == 5
    assert told.lines[0] == "cut.mp4: frame 0 left out: the frame cannot be decoded"
    told.now = EVERY_S
    told(Corrupt("cut.mp4", told.now, 5000, "the frame cannot be decoded"))
    assert told.lines[5:] == [
        "cut.mp4: frame 5000 left out: the frame cannot be decoded (and 4995 others in 30 s)"
    ]


def test_a_camera_that_stays_away_for_a_day_takes_some_lines_an_hour():
    told = Told()
    for outage in range(2):
        told.lines.clear()
        told(Lost("door", told.now, "no frame for 5 s"))
        for attempt in range(1, 2881):
            told.now += 30.0
            told(Retrying("door", told.now, attempt, 30.0, "connection refused"))
        assert len(told.lines) < 6 + 24 * 6, outage
        assert told.lines[1].startswith("door: attempt 1 failed")
    assert "(and 19 others in 600 s)" in told.lines[-1]


def test_what_is_rare_is_told_each_time_and_what_is_expected_never():
    told = Told()
    told(Connected("door", 0.0))
    for _ in range(20):
        told(Lost("door", 0.0, "no frame for 5 s"))
    for number in range(20):
        told(Undecided("door", 0.0, number, "the model failed"))
    assert told.lines.count("door: lost: no frame for 5 s") == 20
    assert len(told.lines) == 25


def test_the_end_says_why_answers_are_degraded():
    tally = Tally()
    tally.count(Counter.DEGRADED, "door", detail=Reason.DEADLINE.value, amount=3)
    tally.count(Counter.DEGRADED, "yard", detail=Reason.DEADLINE.value)
    tally.count(Counter.DEGRADED, "yard", detail=Reason.FAILED.value)
    assert degraded(tally) == ["degraded: 4 past the deadline, 1 as a model failed"]
    assert degraded(Tally()) == []
    assert set(WHY) == set(Reason) - {Reason.PROVISIONAL} - {Reason.PROVISIONAL}


def test_the_end_has_the_totals_by_source():
    tally = Tally()
    tally.count(Counter.DROPPED, "door", amount=40)
    tally.count(Counter.DROPPED, "yard", amount=2)
    tally.count(Counter.CORRUPT, "cut.mp4", amount=7)
    assert left_out(tally, ["door", "yard", "cut.mp4", "calm"]) == [
        "42 frames dropped: newer ones had come (door 40, yard 2)",
        "7 frames could not be decoded (cut.mp4 7)",
    ]
    assert left_out(Tally(), ["door"]) == []
    assert left_out(tally, ["door"]) == ["40 frames dropped: newer ones had come"]
