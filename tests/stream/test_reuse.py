"""Reuse over time in a stream: the same decisions as a replay, whatever the models do meanwhile."""

import itertools
import json
import random
import threading
import time
from collections import Counter as Multiset

import numpy as np
import pytest

from tests.stream.events import Heard
from tests.stream.slow import Answers, cascade_of
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.epochs import EpochTimeline, reused
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.decision import AnswerSource, Likeness, Reason
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.reuse import Gate, ReuseRule, Thumbnailer
from tinysaver_edge.score import Margin
from tinysaver_edge.stream.drift.watch import NoWatch
from tinysaver_edge.stream.pipeline import FROZEN_S, _Stillness
from tinysaver_edge.stream.sources.live import DeviceError, LiveOptions, LiveSource
from tinysaver_edge.stream.sources.source import Frame
from tinysaver_edge.stream.telemetry.metrics import Counter, Tally
from tinysaver_edge.testing import FakeEngine, FakeSource, frame_numbers, numbered_frame

STILL, SAME = Likeness.STILL, Likeness.SAME

RULE = ReuseRule(still=0.1, same=0.005, epoch_s=4.0)
"""Frames of one number are still; saver's answers of one class, unsure, are the same."""


class Scenes:
    """A file of numbered scenes at a steady rate; iterate as often as needed."""

    def __init__(self, numbers, *, rate_hz=10.0, start_s=0.0, source_id="scenes"):
        self.numbers, self.rate_hz, self.start_s = list(numbers), rate_hz, start_s
        self.source_id = source_id

    def __iter__(self):
        for place, number in enumerate(self.numbers):
            yield Frame(
                numbered_frame(number), self.start_s + place / self.rate_hz, place, self.source_id
            )


def random_scenes(seed, frames=150):
    draw = random.Random(seed)
    numbers = []
    while len(numbers) < frames:
        numbers += [draw.randrange(24)] * draw.choice((1, 1, 2, 5, 12))
    return numbers[:frames]


def told(decision):
    reused = decision.reused
    return (
        decision.frame_id.sequence,
        decision.index,
        decision.source,
        None
        if reused is None
        else (reused.frame_id.sequence, round(reused.age_s, 6), reused.alike),
    )


def replayed(answers, scenes, rule):
    """What the gate makes of recorded thumbnails and saver's answers, without any stream."""
    gate, thumbnail = Gate(rule), Thumbnailer()
    answered = {}
    for frame in scenes:
        n = frame.sequence
        number = scenes.numbers[n]
        saver = Outputs(logits=answers._logits(np.array([number]), 0))
        look = gate.look(n, thumbnail(frame.image), frame.timestamp_s)
        if look.repeats is not None:
            found = answered[look.repeats]
            age_s = (n - found[1]) / scenes.rate_hz
            reused = (found[1], round(age_s, 6), Likeness.STILL)
            answered[n] = (found[0], found[1])
            yield (n, found[0], AnswerSource.REUSED, reused)
        elif not answers.unsure(number):
            answered[n] = (number % 10, n)
            yield (n, number % 10, AnswerSource.SAVER, None)
        elif (kept := gate.keeps(look, saver)) is not None:
            found = answered[kept]
            reused = (found[1], round((n - found[1]) / scenes.rate_hz, 6), Likeness.SAME)
            answered[n] = found
            yield (n, found[0], AnswerSource.REUSED, reused)
        else:
            answered[n] = ((number + 1) % 10, n)
            yield (n, (number + 1) % 10, AnswerSource.LARGE, None)


def calibrated(answers, scenes, rule):
    """What `calibrate` and `evaluate` make of the same frames, cut into epochs."""
    frames, thumbnail = list(scenes), Thumbnailer()
    times = np.array([frame.timestamp_s for frame in frames])
    epochs = np.array([rule.span(at)[0] for at in times.tolist()])
    timeline = EpochTimeline(
        epochs,
        times - epochs * rule.epoch_s,
        np.stack([thumbnail(frame.image).ravel().copy() for frame in frames]),
        rule.epoch_s,
    )
    saver = Outputs(logits=answers._logits(np.array(scenes.numbers), 0))
    accepted = np.array([not answers.unsure(number) for number in scenes.numbers])
    found = reused(rule, timeline, saver, accepted)
    return [
        (n, None if found.fresh[n] else (int(found.of[n]), STILL if found.still[n] else SAME))
        for n in range(len(frames))
    ]


def test_what_is_no_rule_is_refused_in_a_line():
    with (
        cascade_of(Answers()) as cascade,
        pytest.raises(InputError, match=r"reuse 'still=2': expected .* ReuseRule\(2"),
    ):
        cascade.track(reuse="still=2")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rule", [RULE, ReuseRule(0.1, 0.0), ReuseRule(0.0, 0.005, max_age_s=0.7)])
def test_calibration_replay_track_and_stream_decide_the_same(seed, rule):
    answers = Answers(unsure=lambda n: n % 3 != 0, large_s=0.001)
    numbers = random_scenes(seed)
    wanted = list(replayed(answers, Scenes(numbers), rule))
    with cascade_of(answers, large_size=random.Random(seed).choice((8, 12))) as cascade:
        camera = cascade.track(reuse=rule)
        tracked = [
            camera.decide(one.image, frame_id=one.frame_id, timestamp_s=one.timestamp_s)
            for one in Scenes(numbers, start_s=1e5 + seed / 7)
        ]
        asked = len(answers.asked_large)
        streamed = list(cascade.stream(Scenes(numbers), reuse=rule, max_in_flight=3))
    assert calibrated(answers, Scenes(numbers), rule) == [
        (n, None if where is None else where[::2]) for n, _, _, where in wanted
    ]
    assert [told(one) for one in tracked] == wanted
    assert [told(one) for one in streamed] == wanted
    assert asked == sum(source is AnswerSource.LARGE for _, _, source, _ in wanted)
    assert len(answers.asked_large) == 2 * asked
    assert {source for _, _, source, _ in wanted} >= {AnswerSource.LARGE, AnswerSource.REUSED}


def test_a_chain_of_stages_keeps_what_its_last_answer_was():
    answers = Answers(unsure=lambda n: True)
    engines = [FakeEngine(answers.saver), FakeEngine(answers.saver), FakeEngine(answers.large)]
    policies = [
        StagePolicy("one", score=Margin(), threshold=0.5),
        StagePolicy("two", score=Margin(), threshold=0.5),
        StagePolicy("large"),
    ]
    stages = [
        Stage(engine, preprocess=engine.preprocess, policy=policy)
        for engine, policy in zip(engines, policies, strict=True)
    ]
    with Cascade(stages, reuse=RULE) as cascade:
        decisions = list(cascade.stream(Scenes([1, 1, 11, 2, 1])))
    assert [one.index for one in decisions] == [2, 2, 2, 3, 2]
    assert answers.asked_large == [1, 2, 1]
    assert decisions[2].reused.alike is Likeness.SAME
    assert decisions[2].stage.model == "large"


@pytest.mark.parametrize("large_size", [8, 12])
def test_while_an_escalation_is_under_way_others_like_it_join_it(large_size):
    answers = Answers(unsure=lambda n: True)
    answers.gate.clear()
    with cascade_of(answers, large_size=large_size, reuse=RULE) as cascade:
        # 1 and 11 look different, but the saver says the same of them.
        stream = cascade.stream(Scenes([1] * 8 + [11] * 4 + [1] * 3), max_in_flight=4)
        threading.Timer(0.3, answers.gate.set).start()
        decisions = list(stream)
    assert answers.asked_large == [1]
    assert [one.index for one in decisions] == [2] * 15
    assert [one.source for one in decisions] == [AnswerSource.LARGE] + [AnswerSource.REUSED] * 14
    alike = [one.reused.alike for one in decisions[1:]]
    still, same = Likeness.STILL, Likeness.SAME
    assert alike == [still] * 7 + [same] + [still] * 3 + [same] + [still] * 2
    assert {one.reused.frame_id.sequence for one in decisions[1:]} == {0}
    assert [round(one.reused.age_s, 6) for one in decisions[1:]] == [n / 10 for n in range(1, 15)]


def test_revise_gives_the_saver_s_answer_first_and_then_what_was_found_for_all_of_them():
    answers = Answers(unsure=lambda n: True)
    answers.gate.clear()
    first, final = [], {}
    with cascade_of(answers, reuse=RULE) as cascade:
        for one in cascade.stream(Scenes([1, 1, 11, 1]), escalation="revise"):
            if one.revision:
                final[one.frame_id.sequence] = one
            else:
                first.append(one)
            if len(first) == 4:
                answers.gate.set()
    assert answers.asked_large == [1]
    assert [one.reason for one in first] == [Reason.PROVISIONAL] * 4
    assert [one.index for one in first] == [1, 1, 1, 1]
    assert sorted(final) == [0, 1, 2, 3]
    assert all(one.index == 2 and one.reason is None for one in final.values())
    assert final[0].source is AnswerSource.LARGE
    assert final[3].reused.frame_id.sequence == 0


def test_a_local_stream_repeats_the_saver_s_answers_only():
    answers = Answers(unsure=lambda n: n == 1)
    with cascade_of(answers, reuse=RULE) as cascade:
        decisions = list(cascade.stream(Scenes([1, 1, 11, 2, 2]), escalation="local"))
    assert answers.asked_large == []
    assert [one.index for one in decisions] == [1, 1, 1, 2, 2]
    assert [one.reason for one in decisions] == [Reason.LOCAL, Reason.LOCAL, None, None, None]
    assert [one.source is AnswerSource.REUSED for one in decisions] == [
        False, True, False, False, True,
    ]  # fmt: skip


class Shown:
    """A live device that shows a scene for as long as a test lets it."""

    live_wait_s = None

    def __init__(self, rate_hz=50.0):
        self.number, self._pause_s, self.lost = 1, 1 / rate_hz, threading.Event()

    def connect(self, options, stopping):
        self.lost.clear()
        return self

    def read(self, into):
        time.sleep(self._pause_s)
        if self.lost.is_set():
            raise DeviceError("unplugged")
        return numbered_frame(self.number)

    def close(self):
        pass


def live(device):
    return LiveSource(device, source_id="camera", options=LiveOptions(shortest_s=0.01))


def test_an_answer_that_comes_after_its_deadline_is_for_the_frames_that_look_like_it():
    answers = Answers(unsure=lambda n: True)
    answers.gate.clear()
    seen = []
    with cascade_of(answers, reuse=ReuseRule(0.1, 0.005, epoch_s=1000)) as cascade:
        for one in cascade.stream(live(Shown()), deadline_ms=100):
            seen.append(one)
            if len(seen) == 2:
                assert one.reason is Reason.DEADLINE
                answers.gate.set()
            if one.reason is None or len(seen) > 200:
                break
    assert answers.asked_large == [1]
    assert seen[-1].source is AnswerSource.REUSED
    assert seen[-1].index == 2
    assert seen[-1].reused.frame_id == seen[0].frame_id


def test_an_answer_that_stood_in_is_not_repeated_to_later_frames():
    answers = Answers(unsure=lambda n: True)
    answers.broken = True
    seen = []
    with cascade_of(answers, reuse=ReuseRule(0.1, 0.005, epoch_s=1000)) as cascade:
        for one in cascade.stream(live(Shown())):
            seen.append(one)
            if len(seen) == 5:
                answers.broken = False
            if one.reason is None or len(seen) > 200:
                break
    assert all(one.reason is Reason.FAILED and one.index == 1 for one in seen[:5])
    assert seen[-1].reason is None
    assert seen[-1].index == 2


def test_a_saver_that_fails_takes_the_still_frames_along_and_no_more():
    answers = Answers(unsure=lambda n: True)
    answers.saver_broken = answers.broken = True
    heard, seen = Heard(), []

    def mended():
        heard.wait_for("undecided", count=3)
        answers.saver_broken = answers.broken = False

    with cascade_of(answers, reuse=ReuseRule(0.1, 0.005, epoch_s=1000)) as cascade:
        threading.Thread(target=mended, daemon=True).start()
        for one in cascade.stream(live(Shown()), listener=heard):
            seen.append(one)
            if len(seen) == 3:
                break
    assert seen[-1].index == 2
    assert seen[-1].reason is None


def test_a_camera_that_comes_back_is_asked_about_anew():
    device, answers = Shown(), Answers(unsure=lambda n: False)
    seen, fresh = [], []
    with cascade_of(answers, reuse=ReuseRule(0.1, 0.005, epoch_s=1000)) as cascade:
        heard = Heard()
        for one in cascade.stream(live(device), listener=heard):
            seen.append(one)
            if one.source is not AnswerSource.REUSED:
                fresh.append((one.frame_id.sequence, heard.kinds.count("reconnected")))
            if len(seen) == 10:
                device.lost.set()
            if len(fresh) == 2 and len(seen) > 20:
                break
            assert len(seen) < 300
    assert [times for _, times in fresh] == [0, 1]


def test_audits_are_drawn_from_repeated_answers_at_their_share():
    class All(NoWatch):
        def __init__(self):
            self.kept = []

        def audits(self, decision):
            return decision.frame_id.sequence % 2 == 0

        def audited(self, accepted, large, frame):
            self.kept.append((accepted, large))

    def until_audited():  # what is under way when the frames end is dropped with them
        *frames, last = Scenes([1, 1, 1, 1, 2, 2, 12, 22, 2, 2])
        yield from frames
        due_s = time.monotonic() + 20
        while all(one.reused is None for one, _ in watch.kept):
            assert time.monotonic() < due_s, watch.kept
            time.sleep(0.01)
            yield last  # an audit that finds no room is left out
        yield last

    answers, watch = Answers(unsure=lambda n: n == 2), All()
    rule = ReuseRule(0.1, 0.005, epoch_s=1000)
    with cascade_of(answers, reuse=rule) as cascade:
        stream = cascade.stream(until_audited(), watch=watch, max_in_flight=10)
        decisions = list(stream)
    sources = {one.frame_id.sequence: one.source for one in decisions}
    audited = {one.frame_id.sequence: one.index != other.index for one, other in watch.kept}
    assert audited[0] is True  # the saver's own, which the large model never shares here
    assert any(sources[n] is AnswerSource.REUSED for n in audited)
    assert [one.index for one in decisions[:6]] == [1, 1, 1, 1, 3, 3]
    for one, other in watch.kept:
        if one.reused is not None:
            assert other.source is AnswerSource.LARGE
            assert other.index != 1


def test_after_an_alarm_nothing_is_repeated():
    class Alarmed(NoWatch):
        repeats = False

    answers = Answers(unsure=lambda n: False)
    with cascade_of(answers, reuse=RULE) as cascade:
        decisions = list(cascade.stream(Scenes([1] * 5), watch=Alarmed()))
    assert {one.source for one in decisions} == {AnswerSource.SAVER}


class TestCertified:
    @pytest.mark.parametrize(
        ("bundle", "asked_for", "fresh", "repeated"),
        [
            (RULE, "bundle", True, True),
            (RULE, RULE, True, True),
            (RULE, ReuseRule(0.2, 0.005, epoch_s=4.0), False, False),
            (RULE, None, False, None),
            (None, "bundle", True, None),
            (None, RULE, True, False),
        ],
    )
    def test_is_what_was_calibrated_with_its_rule(self, bundle, asked_for, fresh, repeated):
        answers = Answers(unsure=lambda n: n == 1)
        with cascade_of(answers, reuse=bundle, certified=True) as cascade:
            streamed = list(cascade.stream(Scenes([1, 1, 2, 2]), reuse=asked_for))
            camera = cascade.track(reuse=asked_for)
            tracked = [
                camera.decide(one.image, timestamp_s=one.timestamp_s) for one in Scenes([1, 1])
            ]
            alone = cascade.decide(numbered_frame(2))
        for decisions in (streamed, tracked):
            for one in decisions:
                expected = repeated if one.source is AnswerSource.REUSED else fresh
                assert one.certified is expected
            repeats = any(one.source is AnswerSource.REUSED for one in decisions)
            assert repeats is (repeated is not None)
        assert alone.certified is (bundle is None)


class TestPace:
    def test_frames_beyond_it_are_degraded_and_counted(self):
        answers, tally = Answers(unsure=lambda n: True), Tally()
        with cascade_of(answers) as cascade:
            stream = cascade.stream(FakeSource(20), escalations_per_minute=3, metrics=tally)
            decisions = list(stream)
        assert len(answers.asked_large) == 3
        assert [one.reason for one in decisions] == [None] * 3 + [Reason.RATE] * 17
        assert "3 times a minute" in decisions[-1].degraded
        assert tally.total(Counter.DEGRADED, detail="rate") == 17

    def test_is_of_each_source(self):
        answers = Answers(unsure=lambda n: True)
        with cascade_of(answers) as cascade:
            sources = [FakeSource(5, source_id=name) for name in "ab"]
            decisions = list(cascade.stream(*sources, min_time_between_escalations_s=60))
        asked = Multiset(one.frame_id.source_id for one in decisions if one.reason is None)
        assert asked == {"a": 1, "b": 1}

    def test_lets_go_on_when_its_time_has_passed(self):
        answers = Answers(unsure=lambda n: True)
        seen = []
        with cascade_of(answers) as cascade:
            for one in cascade.stream(live(Shown()), min_time_between_escalations_s=0.3):
                seen.append(one)
                if len(answers.asked_large) == 3:
                    break
        times = [one.timestamp_s for one in seen if one.reason is None]
        assert all(later - earlier > 0.25 for earlier, later in itertools.pairwise(times))
        assert any(one.reason is Reason.RATE for one in seen)


class TestTold:
    def test_in_the_metrics_and_in_json(self):
        answers, tally = Answers(unsure=lambda n: n in (1, 11)), Tally()
        with cascade_of(answers, reuse=RULE) as cascade:
            decisions = list(cascade.stream(Scenes([1, 1, 1, 11, 2, 2]), metrics=tally))
        assert tally.total(Counter.REUSED, detail="still") == 3
        assert tally.total(Counter.REUSED, detail="same") == 1
        assert tally.total(Counter.DECISIONS, detail="reused") == 4
        assert tally.total(Counter.ESCALATED) == 1
        line = json.loads(json.dumps(decisions[3].to_dict()))
        assert line["source"] == "reused"
        assert line["reused"] == {
            "frame_id": {"source_id": "scenes", "sequence": 0}, "age_s": 0.3, "alike": "same",
        }  # fmt: skip
        assert line["escalated"] is False

    def test_a_stand_in_that_is_repeated_still_stands_in(self):
        answers, tally = Answers(unsure=lambda n: n == 1), Tally()
        with cascade_of(answers, reuse=RULE) as cascade:
            list(cascade.stream(Scenes([1, 1, 1, 2, 2]), escalation="local", metrics=tally))
        assert tally.total(Counter.DECISIONS, detail="fallback") == 1
        assert tally.total(Counter.STOOD_IN) == tally.total(Counter.DEGRADED) == 3

    def test_of_several_cameras_each_has_its_own_memory(self):
        answers = Answers(unsure=lambda n: False)
        with cascade_of(answers, reuse=RULE) as cascade:
            sources = [Scenes([5] * 20, source_id=name) for name in ("a", "b", "c")]
            decisions = list(cascade.stream(*sources))
        fresh = Multiset(
            one.frame_id.source_id for one in decisions if one.source is AnswerSource.SAVER
        )
        assert fresh == {"a": 1, "b": 1, "c": 1}
        assert all(
            one.reused.frame_id.source_id == one.frame_id.source_id
            for one in decisions
            if one.reused is not None
        )


class TestFrozen:
    class Camera:
        live, source_id = True, "camera"

        def __init__(self):
            self.told = []
            self.context = type("Context", (), {"clock": staticmethod(lambda: 0.0)})

        def tell(self, event):
            self.told.append(event)

    def test_exactly_the_same_for_ever_is_told_once(self):
        camera = self.Camera()
        stillness, gate = _Stillness(camera), Gate(ReuseRule(2.0, 0.1))
        thumbnail = Thumbnailer()(numbered_frame(77))
        for n in range(int(FROZEN_S * 5)):
            stillness.saw(gate.look(n, thumbnail, n / 2).difference, n / 2)
        assert [event.kind for event in camera.told] == ["frozen"]
        assert camera.told[0].for_s == pytest.approx(FROZEN_S, abs=0.5)

    def test_a_still_scene_with_noise_is_not(self):
        camera, draw = self.Camera(), np.random.default_rng(0)
        stillness, gate, make = _Stillness(camera), Gate(ReuseRule(2.0, 0.1)), Thumbnailer()
        for n in range(int(FROZEN_S * 3)):
            frame = (100 + draw.integers(-3, 4, (96, 96, 3))).astype(np.uint8)
            stillness.saw(gate.look(n, make(frame), n / 2).difference, n / 2)
        assert camera.told == []


def three_stages(answers, sure_two):
    """Two savers and a large model; the second saver is sure of some numbers only."""

    def second(batch):
        logits = answers.saver(batch)
        for row, number in enumerate(frame_numbers(batch).tolist()):
            if sure_two(number):
                logits[row] = 0
                logits[row, (number + 2) % 10] = 20
        return logits

    engines = [FakeEngine(answers.saver), FakeEngine(second), FakeEngine(answers.large)]
    policies = [
        StagePolicy("one", score=Margin(), threshold=0.5),
        StagePolicy("two", score=Margin(), threshold=0.5),
        StagePolicy("large"),
    ]
    return [
        Stage(engine, preprocess=engine.preprocess, policy=policy)
        for engine, policy in zip(engines, policies, strict=True)
    ]


def test_three_stages_decide_the_same_in_calibration_track_and_stream():
    kept: set[int] = set()
    for seed in range(3):
        kept |= kept_of_three_stages(seed)
    assert kept == {1, 2}  # of stages between as well as of the last


def kept_of_three_stages(seed):
    """Hold the three against each other; return the stages whose answers were kept."""
    answers = Answers(unsure=lambda n: n % 3 != 0)
    scenes = Scenes(random_scenes(seed, frames=400))
    with Cascade(three_stages(answers, lambda n: n % 4 == 1), reuse=RULE) as cascade:
        alone = [cascade.decide(one.image) for one in scenes]
        camera = cascade.track()
        tracked = [
            camera.decide(one.image, frame_id=one.frame_id, timestamp_s=one.timestamp_s)
            for one in scenes
        ]
        streamed = list(cascade.stream(scenes))
    assert {one.stage.index for one in alone} == {0, 1, 2}
    of = [n if where is None else where[0] for n, where in calibrated(answers, scenes, RULE)]
    wanted = [(alone[n].index, alone[n].stage.index) for n in of]
    for decisions in (tracked, streamed):
        assert [(one.index, one.stage.index) for one in decisions] == wanted
        kept = [None if one.reused is None else one.reused.frame_id.sequence for one in decisions]
        assert kept == [None if n == first else first for n, first in enumerate(of)]
    return {one.stage.index for one in streamed if one.reused and one.reused.alike is SAME}


@pytest.mark.parametrize("escalation", ["wait", "revise"])
def test_several_cameras_each_repeat_what_they_have_seen_themselves(escalation):
    answers = Answers(unsure=lambda n: n % 3 != 0, large_s=0.002)
    cameras = [
        Scenes(random_scenes(seed), source_id=f"camera{seed}", start_s=100.0 * seed)
        for seed in range(3)
    ]
    with cascade_of(answers, reuse=RULE) as cascade:
        decisions = list(cascade.stream(*cameras, escalation=escalation, max_in_flight=2))
    final = {(one.frame_id.source_id, one.frame_id.sequence): one for one in decisions}
    asked = 0
    for camera in cameras:
        mine = [final[camera.source_id, place] for place in range(len(camera.numbers))]
        answered = [one for one in mine if one.reason is None]
        wanted = list(replayed(answers, camera, RULE))
        assert [told(one) for one in answered] == [
            one for one, found in zip(wanted, mine, strict=True) if found.reason is None
        ]
        kept = [one.reused.frame_id.source_id for one in answered if one.reused is not None]
        assert set(kept) == {camera.source_id}
        asked += sum(source is AnswerSource.LARGE for _, _, source, _ in wanted)
    if escalation == "wait":  # files wait for room; nothing is degraded, and nothing asked twice
        assert len(answers.asked_large) == asked
        assert all(one.reason is None for one in decisions)
