import json

import numpy as np
import pytest

from tests.stream.dashboard.world import CALM, Hosts, World, five_minutes, picture
from tests.stream.decisions import decision, escalated
from tinysaver_edge.decision import AnswerSource, FrameId, Likeness, Reason, Reused
from tinysaver_edge.stream.dashboard import state as module
from tinysaver_edge.stream.dashboard.state import THUMBNAIL_WIDTH
from tinysaver_edge.stream.dashboard.timeline import STEPS
from tinysaver_edge.stream.sources.source import Frame
from tinysaver_edge.stream.telemetry.events import Connected, Dropped, Ended
from tinysaver_edge.stream.telemetry.metrics import Counter


@pytest.fixture(scope="module")
def world():
    return five_minutes()


def test_it_tells_what_happened(world):
    told = world.state.snapshot()
    frames = sum(world.numbers.values())
    assert sum(told["totals"].values()) == frames
    assert told["totals"]["accepted"] / frames == pytest.approx(0.72, abs=0.02)
    assert told["totals"]["degraded"] / frames == pytest.approx(0.05, abs=0.01)
    assert [one["id"] for one in told["sources"]] == ["door", "yard"]
    assert [one["frames"] for one in told["sources"]] == list(world.numbers.values())
    assert (told["ready"], told["alive"], told["in_flight"]) == (True, True, 2)
    assert told["drift"]["audited"] == CALM.audited
    assert told["hosts"] is None
    words = [event["words"] for event in told["events"]]
    assert words[0] == "yard: back after 12.0 s"
    assert words[-1] == "door: connected"
    assert set(told["latency"]) == {"saver", "fused", "fallback"}
    assert told["latency"]["saver"]["p50"] == pytest.approx(4, rel=0.1)
    assert told["latency"]["saver"]["p99"] > told["latency"]["saver"]["p95"] > 4


def test_the_timeline_has_rates_and_gaps(world):
    line = world.state.snapshot()["timeline"]
    assert {len(values) for name, values in line.items() if name != "step_s"} == {STEPS}
    rates = np.sum([line[name] for name in ("accepted", "escalated", "degraded")], axis=0)
    assert np.median(rates[-60:]) == pytest.approx(30, abs=1)
    silent = [place for place in range(20, STEPS) if rates[place] == 0]
    assert 4 <= len(silent) <= 6
    assert all(line["p50_ms"][place] is None for place in silent)
    assert line["p95_ms"][-1] >= line["p50_ms"][-1] > 3


def test_repeated_answers_have_their_own_shares():
    world = World()
    for number, alike in enumerate([Likeness.STILL] * 3 + [Likeness.SAME]):
        found = Reused(FrameId("cam", 0), 0.1, alike)
        world.state.write(decision(number, source=AnswerSource.REUSED, reused=found), None)
    world.state.write(decision(9), None)
    totals = world.state.snapshot()["totals"]
    assert totals == {"still": 3, "same": 1, "accepted": 1, "escalated": 0, "degraded": 0}
    assert sum(world.state.snapshot()["timeline"]["still"]) > 0


def test_memory_is_bounded(world):
    told = world.state.snapshot()
    assert len(told["escalated"]) == module.THUMBNAILS
    one = world.state.thumbnail(told["escalated"][0]["number"])
    assert one.shape[1] <= 2 * THUMBNAIL_WIDTH
    assert world.state.thumbnail(0) is None
    crowd = World()
    for number in range(200):
        crowd.state.write(decision(0, source_id=f"{number}.png"), None)
        crowd.tell(Connected(f"{number}.png", 0.0))
    told = crowd.state.snapshot()
    assert len(told["sources"]) == module.MOST_SOURCES
    assert told["totals"]["accepted"] == 200
    assert len(told["events"]) == 40


def test_pictures_are_kept_as_often_as_somebody_looks():
    world = World()
    world.start()

    def kept(seconds, *, looking):
        numbers = set()
        for _ in range(int(seconds * 30)):
            if looking:
                shown = world.state.picture("door", after=0)
                numbers |= set() if shown is None else {shown.number}
            world.frame("door")
            world.clock.advance(1 / 30)
        return len(numbers)

    world.frame("door")
    assert kept(5, looking=True) == pytest.approx(50, abs=3)
    world.run(10)
    wanted = 0
    for _ in range(10 * 15):
        wanted += world.state.wants_frames
        world.run(1 / 15)
    assert wanted < 30


def test_a_picture_comes_with_its_own_decision_and_once():
    world = World()
    world.state.write(decision(7, label="cat"), Frame(picture(7), 0.0, 7, "cam"))
    world.state.write(decision(8, label="dog"), None)
    shown = world.state.picture("cam", after=0)
    assert shown.decision.label == "cat"
    assert (shown.picture == picture(7)).all()
    assert world.state.picture("cam", after=shown.number) is None
    assert world.state.picture("other", after=0) is None
    assert world.state.snapshot()["sources"][0]["decision"]["label"] == "dog"


def test_provisional_answers_are_shown_but_not_counted():
    world = World()
    first = escalated(
        1,
        label="cat",
        source=AnswerSource.FALLBACK,
        degraded="provisional: big has been asked",
        reason=Reason.PROVISIONAL,
    )
    given = Frame(picture(1), 0.0, 1, "cam")
    world.state.write(first, given)
    assert world.state.picture("cam", after=0).decision.label == "cat"
    assert sum(world.state.snapshot()["totals"].values()) == 0
    world.state.write(escalated(1, label="dog", revision=1), given)
    assert world.state.picture("cam", after=0).decision.label == "dog"
    assert world.state.snapshot()["totals"]["escalated"] == 1
    world.state.write(decision(5, label="owl"), Frame(picture(5), 0.0, 5, "cam"))
    world.state.write(escalated(2, label="late", revision=1), given)
    assert world.state.picture("cam", after=0).decision.label == "owl"


def test_what_is_left_of_the_promise_since_the_start_and_lately():
    world = five_minutes()
    world.run(10)  # so long after the start that the first seconds are no longer among the recent
    told = world.state.snapshot()["promise"]
    since, recent = told["all"], told["recent"]
    assert since["answers"] == sum(world.numbers.values()) > recent["answers"] > 8000
    degraded = world.state.snapshot()["totals"]["degraded"] / since["answers"]
    assert since["fallback_share"] == pytest.approx(degraded)
    assert since["effective_drop_points"] == pytest.approx(0.5 + 100 * degraded)
    assert since["expected_drop_points"] == pytest.approx(0.2 + 40 * degraded)
    assert recent["fallback_share"] == pytest.approx(0.05, abs=0.01)


def test_before_the_first_answer_there_is_nothing_left_to_tell():
    told = World().state.snapshot()["promise"]
    assert (told["certified_points"], told["all"], told["recent"]) == (0.5, None, None)


def test_the_hosts_are_told_as_plain_values():
    told = json.loads(json.dumps(World(hosts=Hosts()).state.snapshot()))["hosts"]
    assert told["traffic"]["retries"] == 9
    first, second = told["hosts"]
    assert (first["state"], first["in_use"], first["identity"]["version"]) == ("closed", True, "3")
    assert (second["state"], second["reconnects"], second["identity"]) == ("open", 2, None)


def test_sources_come_and_go():
    world = World()
    world.start()
    world.tell(Ended("door", 1.0, 9))
    world.tell(Dropped("yard", 2.0, 4))
    world.metrics.count(Counter.DROPPED, "yard", amount=4)
    door, yard = world.state.snapshot()["sources"]
    assert (door["connected"], door["ended"]) == (False, True)
    assert (yard["connected"], yard["ended"], yard["dropped"]) == (True, False, 4)
    assert world.state.snapshot()["events"][0]["words"].startswith("door: ")
