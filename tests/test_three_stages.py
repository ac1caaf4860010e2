"""Three stages with a pool, in every way to ask them, against a plain loop that does the same."""

from __future__ import annotations

import json
import shutil
import threading

import cv2
import numpy as np
import pytest

from tests.by_hand import by_hand
from tests.colours import NAMES, colour_picture
from tests.command import spawned
from tests.remote.hosts import remote
from tests.remote.kserve import Served, needs_kserve
from tests.small_bundle import small_bundle
from tests.stream.slow import SURE, UNSURE
from tinysaver_edge.bundle.bundle import MANIFEST, Bundle
from tinysaver_edge.bundle.manifest import FiguresEntry
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.figures import figures
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.decision import AnswerSource, Reason
from tinysaver_edge.host.deploy import Target, deploy, write_device_bundle
from tinysaver_edge.score import Margin
from tinysaver_edge.stream.dashboard import DashboardState
from tinysaver_edge.stream.drift.drift import Action, DriftOptions, DriftWatch
from tinysaver_edge.stream.options import Escalation
from tinysaver_edge.stream.telemetry.health import Health
from tinysaver_edge.stream.telemetry.metrics import AllMetrics, Counter, Tally
from tinysaver_edge.stream.telemetry.prometheus import PrometheusMetrics
from tinysaver_edge.stream.telemetry.promise import Promise
from tinysaver_edge.testing import (
    FakeClock,
    FakeEngine,
    FakeSource,
    frame_numbers,
    numbered_frame,
)
from tinysaver_edge.verify.run import verify

MODELS = ("saver", "middle", "large")
POOL = (0.5, 0.3)
FRAMES = [colour_picture(number % len(NAMES), number) for number in range(120)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    small_bundle(folder / "bundle", names=MODELS, pool=POOL, thresholds=(0.9, 0.6))
    (folder / "images").mkdir()
    for number, frame in enumerate(FRAMES):
        assert cv2.imwrite(str(folder / "images" / f"{number:03d}.png"), frame)
    with Bundle.load(folder / "bundle") as opened:
        write_device_bundle(opened, folder / "slim")
    return folder


@pytest.fixture(scope="module")
def expected(place):
    with Cascade.load(place / "bundle") as cascade:
        found = [by_hand(cascade, frame) for frame in FRAMES]
    counts = [sum(one.stage == stage for one in found) for stage in range(3)]
    assert min(counts) > 8, counts
    return found


def settled(decisions):
    return [(one.index, one.stage.index, one.stage.model) for one in decisions]


def of(expected):
    return [(one.index, one.stage, MODELS[one.stage]) for one in expected]


def test_decisions_are_those_of_the_loop(place, expected):
    with Cascade.load(place / "bundle") as cascade:
        ways = [
            [cascade.decide(frame) for frame in FRAMES],
            cascade.decide_many(FRAMES),
            [cascade.submit(frame).result(20) for frame in FRAMES],
        ]
    for decisions in ways:
        assert settled(decisions) == of(expected)
        assert [one.confidence for one in decisions] == pytest.approx(
            [one.confidence for one in expected], abs=1e-4
        )
        assert [one.escalated for one in decisions] == [one.stage == 2 for one in expected]
        sources = {one.stage.index: one.source for one in decisions}
        assert sources == {0: AnswerSource.SAVER, 1: AnswerSource.SAVER, 2: AnswerSource.FUSED}


def streamed(cascade, place, **options):
    with cascade.stream(place / "images", **options) as stream:
        return sorted(stream, key=lambda one: one.frame_id.sequence)


def test_a_stream_counts_what_each_stage_settles(place, expected):
    tally, prometheus, clock = Tally(), PrometheusMetrics(), FakeClock()
    state = DashboardState(clock=clock, health=Health(clock=clock))
    with Cascade.load(place / "bundle") as cascade:
        decisions = streamed(
            cascade, place, metrics=AllMetrics(tally, prometheus, state), sinks=[state]
        )
    assert settled(decisions) == of(expected)
    counts = {name: sum(MODELS[one.stage] == name for one in expected) for name in MODELS}
    assert {name: tally.total(Counter.SETTLED, detail=name) for name in MODELS} == counts
    assert tally.total(Counter.ESCALATED) == counts["large"]
    shown = state.snapshot()
    assert shown["settled"] == [{"model": name, "answers": counts[name]} for name in MODELS]
    assert shown["totals"]["accepted"] == counts["saver"] + counts["middle"]
    text = prometheus.exposition().decode()
    for name, count in counts.items():
        assert f'tinysaver_settled_total{{model="{name}",source="images"}} {count}.0' in text


def test_a_local_stream_asks_all_but_the_last(place, expected):
    with Cascade.load(place / "slim", allow_absent=True) as cascade:
        decisions = streamed(cascade, place, escalation=Escalation.LOCAL)
    for decision, one in zip(decisions, expected, strict=True):
        if one.stage < 2:
            assert (decision.index, decision.stage.index) == (one.index, one.stage)
            assert decision.degraded is None
        else:  # both savers' pool stands in, not the first one's answer
            assert (decision.index, decision.stage.index) == (one.every[1], 1)
            assert (decision.reason, decision.source) == (Reason.LOCAL, AnswerSource.FALLBACK)


@pytest.mark.parametrize("size", [8, 12], ids=["same input", "its own input"])
def test_what_the_second_settles_waits_for_no_room_at_a_stuck_large_model(size):
    gate = threading.Event()

    def stage(name, unsure, *, size=8, waits=False, last=False):
        def run(batch):
            if waits:
                assert gate.wait(20)
            logits = np.zeros((len(batch), 10), np.float32)
            for row, number in enumerate(frame_numbers(batch).tolist()):
                logits[row, number % 10] = UNSURE if unsure(number) else SURE
            return logits

        engine = FakeEngine(run)
        policy = StagePolicy(
            name, score=None if last else Margin(), threshold=None if last else 0.5
        )
        return Stage(engine, preprocess=engine.preprocess, policy=policy)

    stages = [
        stage("saver", lambda number: True),
        stage("middle", lambda number: number == 0, size=size),
        stage("large", lambda number: False, waits=True, last=True),
    ]
    with Cascade(stages) as cascade:
        stuck = cascade.submit(numbered_frame(0))
        others = [cascade.submit(numbered_frame(number)) for number in range(1, 12)]
        assert {one.result(10).stage.model for one in others} == {"middle"}
        assert not stuck.done()
        gate.set()
        assert stuck.result(10).stage.model == "large"
        with cascade.stream(FakeSource(20)) as stream:
            assert [one.stage.model for one in stream] == ["large"] + ["middle"] * 19


def watching(place, tally, **options):
    with Bundle.load(place / "bundle") as opened:
        promised = opened.manifest.disagreement
    options = DriftOptions(share=1.0, **options)
    return DriftWatch(promised, options, clock=FakeClock(), metrics=tally)


def test_audits_hold_what_either_saver_settles_against_all_three(place, expected):
    tally = Tally()
    watch = watching(place, tally, action=Action.WARN)
    with Cascade.load(place / "bundle") as cascade:
        decisions = streamed(cascade, place, watch=watch, max_in_flight=len(FRAMES))
    assert settled(decisions) == of(expected)
    accepted = [one for one in expected if one.stage < 2]
    assert tally.total(Counter.AUDITED) == len(accepted)
    differing = sum(one.every[one.stage] != one.every[2] for one in accepted)
    assert tally.total(Counter.DISAGREED) == differing > 0


def test_after_an_alarm_neither_saver_settles_anything(place):
    watch = watching(place, Tally(), action=Action.ESCALATE)
    while watch.state.accepting:
        watch._act()
    with Cascade.load(place / "bundle") as cascade:
        decisions = streamed(cascade, place, watch=watch)
    assert {one.stage.model for one in decisions} == {"large"}


def test_the_bundle_is_verified(place):
    with Bundle.load(place / "bundle") as opened:
        result = verify(opened)
    assert result.passed, result
    assert "decisions" in {check.name for check in result.checks}


def test_a_device_lacks_the_last_model_only_and_a_host_serves_it(place, tmp_path):
    files = {path.name for path in (place / "slim").rglob("*.onnx")}
    assert files == {"saver.onnx", "middle.onnx"}
    with Bundle.load(place / "bundle") as opened:
        deploy(opened, Target.TRITON, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "model_repository").iterdir()] == ["large"]


def test_the_command_says_who_answered(place, expected):
    done = spawned("run", place / "bundle", "--source", place / "images", "--json")
    assert done.code == 0, done.err
    told = [json.loads(line) for line in done.out.splitlines()]
    assert [one["stage"]["model"] for one in told] == [MODELS[one.stage] for one in expected]
    shares = [sum(one.stage == stage for one in expected) / len(expected) for stage in range(3)]
    assert f"{100 * shares[2]:.2f} % escalated" in done.err
    each = ", ".join(f"{name} {100 * of:.2f} %" for name, of in zip(MODELS, shares, strict=True))
    assert f"first answers of {each}" in done.err


@needs_kserve
@pytest.mark.slow
def test_with_a_host_for_the_last_one_the_decisions_are_the_same(place, expected, tmp_path):
    served = Served(tmp_path, place / "bundle").start()
    try:
        for scheme in ("grpc", "http"):
            large = remote(served.url(scheme=scheme), timeout_s=5.0)
            with Cascade.load(place / "slim", large=large) as cascade:
                decisions = [cascade.decide(frame) for frame in FRAMES]
                through = streamed(cascade, place)
            assert settled(decisions) == settled(through) == of(expected)
            assert [one.identity is not None for one in decisions] == [
                one.stage == 2 for one in expected
            ]
        done = spawned("verify", place / "slim", "--large", served.url(), "--json")
        assert done.code == 0, done.err
    finally:
        served.stop()


def test_a_committee_is_a_chain_whose_first_stage_accepts_nothing(place, expected, tmp_path):
    folder = changed(place, tmp_path, lambda of: of["stages"][0].update(threshold=None))
    with Cascade.load(folder) as cascade:
        decisions = [cascade.decide(frame) for frame in FRAMES]
        by_loop = [by_hand(cascade, frame) for frame in FRAMES]
    assert settled(decisions) == of(by_loop)
    assert {one.stage for one in by_loop} == {1, 2}
    assert [one.every for one in by_loop] == [one.every for one in expected]


def test_figures_tell_what_is_left_without_the_last_stage(place, expected):
    labels = np.arange(len(FRAMES)) % len(NAMES)
    with Cascade.load(place / "bundle") as cascade:
        policy = cascade.policy
        outputs = [stage.ask(stage.prepare_many(FRAMES)) for stage in cascade.stages]
    found = figures(policy, outputs, labels)
    right = [one.index == label for one, label in zip(expected, labels, strict=True)]
    local = [
        one.every[min(one.stage, 1)] == label for one, label in zip(expected, labels, strict=True)
    ]
    assert found.accuracy_cascade == pytest.approx(np.mean(right))
    assert found.accuracy_local == pytest.approx(np.mean(local))
    assert found.accept_rate == pytest.approx(np.mean([one.stage < 2 for one in expected]))
    with Bundle.load(place / "bundle") as opened:
        entry = FiguresEntry(**found.to_dict())
        promise = Promise.of(opened.manifest.model_copy(update={"calibration": entry}))
    missing = sum(one.stage == 2 for one in expected)
    kept = promise.kept(answers=len(FRAMES), certified=0, fallbacks=missing)
    without = 100 * (found.accuracy_large - found.accuracy_local)
    assert kept.expected_drop_points == pytest.approx(without)
    low, high = found.saver_drop_interval_points
    assert (kept.expected_low_points, kept.expected_high_points) == pytest.approx((low, high))


def changed(place, tmp_path, change):
    content = json.loads((place / "bundle" / MANIFEST).read_text())
    change(content)
    folder = shutil.copytree(place / "bundle", tmp_path / "changed")
    (folder / MANIFEST).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda of: of.update(pool=[0.5]), "pool has 1 weights for 3 stages: there is one for"),
        (lambda of: of.update(pool=[0.5, 0.3, 0.1]), "pool has 3 weights for 3 stages"),
        (lambda of: of.update(pool=[0.5, 1.5]), "less than or equal to 1"),
        (lambda of: of.update(fusion={"name": "linear"}), "there are a fusion and a pool"),
        (lambda of: of["stages"][1].update(score=None), "middle has a threshold and no score"),
        (lambda of: of["stages"][2].update(threshold=0.5), "large is the last and has a threshold"),
        (
            lambda of: of["stages"][1]["model"].update(name="saver"),
            "model saver is two of its stages",
        ),
        (
            lambda of: of["stages"][1].update(
                score={"name": "maxlogit_pnorm", "parameters": {"p": 2}}
            ),
            "needs the logits of one model, and a pool has none",
        ),
    ],
)  # fmt: skip
def test_a_bundle_that_does_not_fit_its_stages_is_one_line(place, tmp_path, change, says):
    folder = changed(place, tmp_path, change)
    done = spawned("run", folder, "--source", place / "images")
    assert done.code == 2
    assert "Traceback" not in done.err
    assert says in done.complaint
