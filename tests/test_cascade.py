import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinysaver_edge.cascade import BATCH, Cascade
from tinysaver_edge.deciding.policy import Policy, StagePolicy, replay
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.decision import AnswerSource, Decision, FrameId, StageRef
from tinysaver_edge.errors import EngineError, InputError, ModelError
from tinysaver_edge.fusion import ConditionalLogit, LinearFusion
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import InputFormat, Preprocess, Resize
from tinysaver_edge.score import Entropy, Margin, MaxSoftmax
from tinysaver_edge.testing import FakeClock, FakeEngine, FakeSource, numbered_frame

SURE, UNSURE = [9.0, 0.0, 0.0], [0.1, 0.0, 0.0]
ANSWERS = ([SURE, UNSURE, UNSURE, SURE], [[0.0, 9.0, 0.0]] * 4)


def stage(answers, name="large", *, threshold=None, score=None, **options):
    engine = answers if isinstance(answers, FakeEngine) else FakeEngine(answers, **options)
    policy = StagePolicy(name, score=score or Margin(), threshold=threshold)
    return Stage(engine, preprocess=engine.preprocess, policy=policy)


def pair(saver=ANSWERS[0], large=ANSWERS[1], *, threshold=0.5, clock=None, **options):
    stages = [stage(saver, "saver", threshold=threshold), stage(large)]
    return Cascade(stages, clock=clock or FakeClock(), **options)


def frame(number=0):
    return numbered_frame(number)


class TestDecision:
    def test_of_an_accepted_frame(self):
        with pair(labels=["a", "b", "c"]) as cascade:
            decision = cascade.decide(frame(0), frame_id=FrameId("door", 7), timestamp_s=12.5)
        p = math.exp(9) / (math.exp(9) + 2)
        assert decision == Decision(
            label="a",
            index=0,
            confidence=pytest.approx(p),
            score=pytest.approx(p - (1 - p) / 2),
            stage=StageRef(0, "saver"),
            source=AnswerSource.SAVER,
            escalated=False,
            degraded=None,
            certified=False,
            revision=0,
            frame_id=FrameId("door", 7),
            timestamp_s=12.5,
            timings_ms={"preprocess": 0.0, "saver": 0.0, "total": 0.0},
        )
        assert cascade.stages[1].engine.runs == 0

    def test_of_an_escalated_frame(self):
        with pair() as cascade:
            decision = cascade.decide(frame(1))
        assert decision.label == "1"
        assert decision.stage == StageRef(1, "large")
        assert decision.source is AnswerSource.LARGE
        assert decision.escalated
        assert decision.degraded is None
        assert decision.score < 0.5
        assert decision.confidence > 0.99
        assert list(decision.timings_ms) == ["preprocess", "saver", "large", "total"]

    def test_of_a_single_model(self):
        with Cascade([stage([SURE], "only")]) as cascade:
            decision = cascade.decide(frame())
        assert (decision.source, decision.escalated) == (AnswerSource.LARGE, False)
        assert decision.stage == StageRef(0, "only")
        assert math.isnan(decision.score)

    def test_where_the_saver_may_accept_nothing(self):
        with pair(threshold=None) as cascade:
            decision = cascade.decide(frame())
        assert (decision.source, decision.escalated) == (AnswerSource.LARGE, True)
        assert cascade.stages[0].engine.runs == 0
        assert math.isnan(decision.score)

    def test_of_three_stages(self):
        answers = [SURE, UNSURE, UNSURE], [UNSURE, [0.0, 9.0, 0.0], UNSURE], [[0.0, 0.0, 9.0]] * 3
        stages = [
            stage(answers[0], "tiny", threshold=0.5),
            stage(answers[1], "small", threshold=0.9, score=MaxSoftmax()),
            stage(answers[2], "large"),
        ]
        with Cascade(stages) as cascade:
            decisions = [cascade.decide(frame(number)) for number in range(3)]
        assert [decision.stage.index for decision in decisions] == [0, 1, 2]
        assert [decision.index for decision in decisions] == [0, 1, 2]
        assert [d.source for d in decisions] == [
            AnswerSource.SAVER,
            AnswerSource.SAVER,
            AnswerSource.LARGE,
        ]
        assert [decision.escalated for decision in decisions] == [False, False, True]
        margin = Margin()(Outputs.from_logits([UNSURE]))[0]  # the first stage's, always
        assert decisions[2].score == pytest.approx(margin)

    def test_of_three_stages_that_are_pooled(self):
        answers = ([SURE, UNSURE, UNSURE], [UNSURE, [0.0, 9.0, 0.0], [2.0, 0.0, 0.0]])
        large = [[0.0, 0.0, 9.0], [0.0, 0.0, 9.0], [0.0, 0.1, 0.0]]
        stages = [
            stage(answers[0], "tiny", threshold=0.8),
            stage(answers[1], "small", threshold=0.5),
            stage(large, "large"),
        ]
        with Cascade(stages, pool=(0.4, 0.3)) as cascade:
            decisions = [cascade.decide(frame(number)) for number in range(3)]
            assert [one.index for one in cascade.decide_many([*map(frame, range(3))])] == [0, 1, 0]
        tables = [np.exp(t) / np.exp(t).sum(1, keepdims=True) for t in (*answers, large)]
        second = 0.6 * tables[1] + 0.4 * tables[0]
        last = 0.7 * tables[2] + 0.3 * second
        assert [decision.stage.index for decision in decisions] == [0, 1, 2]
        assert [decision.source.value for decision in decisions] == ["saver", "saver", "fused"]
        assert decisions[1].confidence == pytest.approx(second[1, 1], abs=1e-6)
        assert decisions[2].confidence == pytest.approx(last[2, 0], abs=1e-6)
        assert decisions[2].index == 0  # the large model alone says 1

    def test_where_a_pooled_stage_fails_the_others_are_mixed(self):
        broken = FakeEngine([UNSURE])
        broken.failing = EngineError("it broke")
        stages = [stage([SURE], "tiny", threshold=None), stage(broken, "small", threshold=0.1)]
        stages.append(stage([[0.0, 2.0, 0.0]], "large"))
        with Cascade(stages, pool=(0.4, 0.3)) as cascade:
            decision = cascade.decide(frame())
        tables = [np.exp(t) / np.exp(t).sum() for t in (np.array(SURE), np.array([0.0, 2.0, 0.0]))]
        mixed = 0.7 * tables[1] + 0.3 * tables[0]
        assert decision.confidence == pytest.approx(mixed.max(), abs=1e-6)
        assert decision.degraded.startswith("small failed")
        assert not decision.certified

    @pytest.mark.parametrize("fusion", [LinearFusion(0.4), ConditionalLogit()])
    def test_of_a_fused_answer(self, fusion):
        saver, large = [[2.0, 1.9, 0.0]], [[0.0, 1.0, 1.1]]
        with pair(saver, large, fusion=fusion) as cascade:
            decision = cascade.decide(frame())
        classes, confidences = fusion.fuse(Outputs.from_logits(saver), Outputs.from_logits(large))
        assert decision.source is AnswerSource.FUSED
        assert decision.index == classes[0] == 1
        assert decision.confidence == pytest.approx(confidences[0])
        with pair([SURE], large, fusion=fusion) as cascade:
            assert cascade.decide(frame()).source is AnswerSource.SAVER

    def test_certified_is_what_the_bundle_says_while_nothing_is_amiss(self):
        with pair(certified=True) as cascade:
            assert cascade.decide(frame()).certified
            cascade.stages[1].engine.fail()
            assert not cascade.decide(frame(1)).certified
            cascade.stages[1].engine.recover()
            assert cascade.decide(frame(1)).certified

    def test_another_device_than_asked_for_is_said_and_not_certified(self):
        saver = FakeEngine(ANSWERS[0], fell_back=True)
        with pair(saver, certified=True) as cascade:
            for number in (0, 1):
                decision = cascade.decide(frame(number))
                assert decision.degraded == "saver runs on another device than asked for"
                assert not decision.certified

    def test_as_json(self):
        with pair(threshold=None, labels=["ä", "b", "c"]) as cascade:
            decided = cascade.decide(frame()).to_dict()
        read = json.loads(json.dumps(decided, allow_nan=False))
        assert read == decided
        assert read["score"] is None
        assert read["stage"] == {"index": 1, "model": "large"}
        assert read["source"] == "large"
        assert read["frame_id"] == {"source_id": "frame", "sequence": 0}


class TestFrames:
    def test_are_numbered_and_timed_where_the_caller_does_not(self):
        clock = FakeClock(100.0)
        with pair(clock=clock) as cascade:
            first = cascade.decide(frame())
            clock.advance(2)
            second, third = cascade.decide_many([frame(), frame()])
        assert [d.frame_id.sequence for d in (first, second, third)] == [0, 1, 2]
        assert [d.timestamp_s for d in (first, second, third)] == [100.0, 102.0, 102.0]

    @pytest.mark.parametrize(
        "bad",
        [
            np.zeros((4, 4, 3), np.float32),
            np.zeros((4, 4), np.uint16),
            np.zeros((0, 4, 3), np.uint8),
            np.zeros((4, 4, 4), np.uint8),
            None,
        ],
        ids=["float32", "uint16", "empty", "four channels", "None"],
    )
    def test_of_a_wrong_form_are_refused_and_the_next_one_is_served(self, bad):
        with pair() as cascade:
            with pytest.raises(InputError, match="frame"):
                cascade.decide(bad)
            with pytest.raises(InputError, match="frame"):
                cascade.decide_many([frame(), bad])
            assert cascade.decide(frame()).index == 0

    def test_grey_and_odd_sized_frames_are_taken(self):
        with pair(lambda batch: [SURE] * len(batch)) as cascade:
            for shape in ((4, 4), (1, 1, 3), (37, 251, 3)):
                assert cascade.decide(np.zeros(shape, np.uint8)).index == 0
            mixed = [np.zeros(shape, np.uint8) for shape in ((9, 5), (480, 640, 3), (8, 8, 3))]
            assert [decision.index for decision in cascade.decide_many(mixed)] == [0, 0, 0]

    def test_ids_must_be_as_many_as_frames(self):
        with pair() as cascade, pytest.raises(InputError, match="1 frame ids for 2 frames"):
            cascade.decide_many([frame(), frame()], frame_ids=[FrameId("x", 0)])

    def test_none_at_all_is_no_decision(self):
        with pair() as cascade:
            assert cascade.decide_many([]) == []
            assert cascade.decide_many([], frame_ids=[]) == []


class TestStages:
    def test_at_least_one(self):
        with pytest.raises(InputError, match="at least one stage"):
            Cascade([])

    def test_of_equal_preprocessing_share_it(self):
        with pair() as cascade:
            first, second = (one._preprocessor for one in cascade.stages)
            calls = []
            for name, one in (("saver", first), ("large", second)):
                original = one.into
                one.into = lambda f, p, n=name, o=original: (calls.append(n), o(f, p))
            cascade.decide(frame(1))
        assert calls == ["saver"]

    def test_of_different_preprocessing_see_their_own(self):
        small = Preprocess(Resize(4, 6))
        scaled = Preprocess(Resize(8, 8), InputFormat(dtype="float32", multiply=(0.5,)))
        seen = {}

        def answering(name, answer):
            def answer_batch(batch):
                seen[name] = batch.copy()
                return [answer] * len(batch)

            return answer_batch

        stages = [
            stage(answering("a", UNSURE), "a", threshold=0.5, preprocess=small),
            stage(answering("b", UNSURE), "b", threshold=0.5, preprocess=scaled),
            stage(answering("c", SURE), "c", preprocess=small),
        ]
        with Cascade(stages) as cascade:
            cascade.decide(frame(100))
            assert seen["a"].shape == seen["c"].shape == (1, 4, 6, 3)
            assert (seen["a"] == seen["c"]).all()
            assert seen["b"].dtype == np.float32
            assert (seen["b"][0, :, :, 0] == 50.0).all()

    @given(
        st.integers(0, 100_000),
        st.lists(st.one_of(st.none(), st.floats(-0.1, 1.1)), max_size=3),
        st.sampled_from([None, LinearFusion(0.4), ConditionalLogit()]),
        st.sampled_from([Margin(), MaxSoftmax(), Entropy()]),
    )
    @settings(max_examples=60)
    def test_one_by_one_in_batches_and_replayed_they_decide_alike(
        self, seed, thresholds, fusion, score
    ):
        rng = np.random.default_rng(seed)
        samples = BATCH + 7
        tables = [
            rng.normal(0, 2, (samples, 4)).astype(np.float32) for _ in range(len(thresholds) + 1)
        ]
        policies = [
            StagePolicy(f"m{i}", score=score, threshold=threshold)
            for i, threshold in enumerate(thresholds)
        ]
        policies.append(StagePolicy("large"))
        replayed = replay(Policy(tuple(policies), fusion), [Outputs.from_logits(t) for t in tables])
        stages = [
            Stage(engine, preprocess=engine.preprocess, policy=policy)
            for engine, policy in zip(map(FakeEngine, tables), policies, strict=True)
        ]
        frames = [shot.image for shot in FakeSource(samples, height=8, width=8)]
        with Cascade(stages, fusion=fusion) as cascade:
            single = [cascade.decide(image) for image in frames]
            many = cascade.decide_many(frames)
        for decisions in (single, many):
            assert [d.index for d in decisions] == replayed.predictions.tolist()
            assert [d.stage.index for d in decisions] == replayed.stage.tolist()
            np.testing.assert_array_equal([d.score for d in decisions], replayed.score)
        for one, other in zip(single, many, strict=True):
            assert (one.source, one.escalated, one.confidence) == (
                other.source,
                other.escalated,
                other.confidence,
            )


class TestBatches:
    def test_only_undecided_frames_go_on(self):
        saver, large = FakeEngine(ANSWERS[0]), FakeEngine(ANSWERS[1])
        with pair(saver, large) as cascade:
            decisions = cascade.decide_many([frame(number) for number in (0, 1, 2, 3)])
        assert [decision.source.value for decision in decisions] == [
            "saver",
            "large",
            "large",
            "saver",
        ]
        assert (saver.runs, saver.samples, large.runs, large.samples) == (1, 4, 1, 2)

    def test_are_bounded(self):
        saver = FakeEngine(lambda batch: [SURE] * len(batch))
        with pair(saver) as cascade:
            assert len(cascade.decide_many([frame()] * (2 * BATCH + 1))) == 2 * BATCH + 1
        assert saver.runs == 3

    def test_one_frame_that_a_model_fails_on_costs_only_itself(self):
        answers = [SURE, [math.nan, 0.0, 0.0], SURE, UNSURE]
        with pair(answers) as cascade:
            frames = [frame(number) for number in range(4)]
            many = cascade.decide_many(frames)
            single = [cascade.decide(one) for one in frames]
        for decisions in (many, single):
            assert [decision.index for decision in decisions] == [0, 1, 0, 1]
            assert [decision.degraded is None for decision in decisions] == [
                True,
                False,
                True,
                True,
            ]


class TestFailures:
    def test_without_the_large_model_the_savers_answer_stands_in(self):
        with pair(certified=True) as cascade:
            cascade.stages[1].engine.fail("cable cut")
            for decision in (cascade.decide(frame(1)), cascade.decide_many([frame(1)])[0]):
                assert decision.source is AnswerSource.FALLBACK
                assert decision.index == 0
                assert decision.stage == StageRef(0, "saver")
                assert decision.escalated
                assert decision.degraded == "large failed: cable cut"
                assert not decision.certified
            assert cascade.decide(frame(0)).degraded is None
            cascade.stages[1].engine.recover()
            assert cascade.decide(frame(1)).source is AnswerSource.LARGE

    def test_without_the_saver_the_large_model_answers(self):
        with pair(fusion=LinearFusion()) as cascade:
            cascade.stages[0].engine.fail("cable cut")
            for decision in (cascade.decide(frame(0)), cascade.decide_many([frame(0)])[0]):
                assert (decision.source, decision.index) == (AnswerSource.LARGE, 1)
                assert decision.degraded == "saver failed: cable cut"
                assert decision.escalated
                assert math.isnan(decision.score)

    def test_a_middle_stage_may_fail(self):
        stages = [
            stage(ANSWERS[0], "tiny", threshold=0.5),
            stage(ANSWERS[0], "small", threshold=0.5),
            stage(ANSWERS[1], "large"),
        ]
        stages[1].engine.fail("gone")
        with Cascade(stages) as cascade:
            decision = cascade.decide(frame(1))
            assert (decision.stage.index, decision.degraded) == (2, "small failed: gone")
            stages[2].engine.fail("gone too")
            decision = cascade.decide(frame(1))
        assert (decision.stage.index, decision.source) == (0, AnswerSource.FALLBACK)
        assert decision.degraded == "large failed: gone too"

    def test_without_any_model_there_is_no_answer(self):
        with pair() as cascade:
            for one in cascade.stages:
                one.engine.fail("no power")
            with pytest.raises(EngineError, match="no power"):
                cascade.decide(frame(0))
            with pytest.raises(EngineError, match="no power"):
                cascade.decide_many([frame(0), frame(1)])
            for one in cascade.stages:
                one.engine.recover()
            assert cascade.decide(frame(0)).index == 0

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_an_answer_that_is_no_number_is_a_failure(self, bad):
        broken = [[bad, 0.0, 0.0]] * 4
        with pair(broken) as cascade:
            decision = cascade.decide(frame())
            assert decision.source is AnswerSource.LARGE
            assert decision.degraded is not None
            assert decision.degraded.startswith("saver failed: model saver answered NaN")
        with pair(large=broken) as cascade:
            decision = cascade.decide(frame(1))
            assert decision.source is AnswerSource.FALLBACK
            assert not math.isnan(decision.confidence)
        with Cascade([stage(broken)]) as cascade, pytest.raises(ModelError, match="answered NaN"):
            cascade.decide(frame())

    def test_large_answers_are_numbers(self):
        with Cascade([stage([[3e38, 3e38, 0.0]])]) as cascade:
            assert cascade.decide(frame()).confidence == pytest.approx(0.5)


class TestClosing:
    def test_is_legal_any_number_of_times_and_closes_every_stage(self):
        cascade = pair()
        cascade.close()
        cascade.close()
        assert [one.engine.closings for one in cascade.stages] == [1, 1]
        for call in (cascade.decide, lambda one: cascade.decide_many([one])):
            with pytest.raises(EngineError, match="the cascade is closed"):
                call(frame())

    def test_comes_with_the_end_of_the_block_even_after_an_error(self):
        cascade = pair()
        with pytest.raises(InputError), cascade:
            cascade.decide(None)
        assert [one.engine.closings for one in cascade.stages] == [1, 1]

    def test_waits_for_the_frame_under_way(self):
        begun, go_on = threading.Event(), threading.Event()

        def slowly(batch):
            begun.set()
            assert go_on.wait(10)
            return [SURE] * len(batch)

        cascade = pair(slowly)
        with ThreadPoolExecutor(2) as pool:
            deciding = pool.submit(cascade.decide, frame())
            assert begun.wait(10)
            closing = pool.submit(cascade.close)
            assert not closing.done()
            assert cascade.stages[0].engine.closings == 0
            go_on.set()
            assert deciding.result(10).index == 0
            closing.result(10)
        assert cascade.stages[0].engine.closings == 1


def test_threads_are_served_one_after_the_other():
    inside, most = 0, 0
    guard = threading.Lock()

    def counted(answers):
        table = np.asarray(answers, np.float32)

        def answer(batch):
            nonlocal inside, most
            with guard:
                inside += 1
                most = max(most, inside)
            rows = table[batch[:, 0, 0, 0]]
            with guard:
                inside -= 1
            return rows

        return answer

    rng = np.random.default_rng(0)
    tables = rng.normal(0, 2, (2, 200, 4)).astype(np.float32)
    policy = Policy((StagePolicy("a", score=Margin(), threshold=0.4), StagePolicy("b")))
    expected = replay(policy, [Outputs.from_logits(table) for table in tables]).predictions
    stages = [stage(counted(tables[0]), "a", threshold=0.4), stage(counted(tables[1]), "b")]
    with Cascade(stages) as cascade, ThreadPoolExecutor(8) as pool:

        def work(number):
            if number % 3:
                return cascade.decide(frame(number), frame_id=FrameId("x", number))
            return cascade.decide_many([frame(number)], frame_ids=[FrameId("x", number)])[0]

        decisions = list(pool.map(work, range(200)))
    assert most == 1
    assert [decision.frame_id.sequence for decision in decisions] == list(range(200))
    assert [decision.index for decision in decisions] == expected.tolist()


class TestTimings:
    """Each look at the clock takes a second, so that every step shows."""

    def test_of_one_frame(self):
        with pair(clock=FakeClock(step_s=1.0)) as cascade:
            decision = cascade.decide(frame(1))
        assert decision.timings_ms == {
            "preprocess": 1000.0,
            "saver": 1000.0,
            "large": 1000.0,
            "total": 3000.0,
        }

    def test_of_a_batch_are_equal_shares(self):
        with pair(clock=FakeClock(step_s=1.0)) as cascade:
            accepted, escalated = cascade.decide_many([frame(0), frame(1)])
        assert accepted.timings_ms["saver"] == escalated.timings_ms["saver"] == 500.0
        assert "large" not in accepted.timings_ms
        assert escalated.timings_ms["large"] == 1000.0
        for decision in (accepted, escalated):
            *parts, total = decision.timings_ms.values()
            assert total == pytest.approx(sum(parts))

    def test_a_failure_takes_time_too(self):
        with pair(clock=FakeClock(step_s=1.0)) as cascade:
            cascade.stages[1].engine.fail()
            assert cascade.decide(frame(1)).timings_ms["large"] == 1000.0
