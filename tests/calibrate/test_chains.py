"""A cascade of three stages, from images to decisions."""

import json
import shutil
from dataclasses import replace

import pytest

from tests.by_hand import by_hand
from tests.calibrate.test_run import model, named_model
from tests.colours import LARGE, MIDDLE, SAVER, colour_folders
from tinysaver_edge.bench.run import BenchRequest, bench_bundle_file
from tinysaver_edge.bench.timing import Effort
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate import Budgets, ImageInput, Plan, Targets, calibrate
from tinysaver_edge.calibrate.targets import Objective
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.data.files import open_data
from tinysaver_edge.errors import BundleError
from tinysaver_edge.records.evaluation import evaluate_images
from tinysaver_edge.verify.run import verify

EACH = 350


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chains")
    for name, kind in (
        ("big", replace(LARGE, layers=80)),
        ("tiny", replace(SAVER, blur=0.2)),
        ("middle", replace(MIDDLE, blur=0.18, layers=15)),
    ):
        model(folder, name, kind)
    colour_folders(folder / "images", each=EACH)
    return folder


def asked(work, **targets):
    images = ImageInput(
        data=work / "images",
        large=named_model(work, "big"),
        savers=(named_model(work, "tiny"), named_model(work, "middle")),
        records=work / "records",
        isolate=False,
        timing=False,
    )
    return Plan(images, Targets(**{"max_drop_points": 2.0, **targets}), holdout=0.0, seed=0)


@pytest.fixture(scope="module")
def made(work):
    result = calibrate(asked(work), out=work / "bundle")
    assert [stage.model for stage in result.policy.stages] == ["tiny", "middle", "big"]
    return result


def test_every_way_to_ask_says_what_a_plain_loop_does(work, made):
    with Cascade.load(work / "bundle") as cascade, open_data(work / "images") as data:
        frames = [data.frame(index) for index in range(0, len(data), 20)]
        expected = [by_hand(cascade, frame) for frame in frames]
        alone = [cascade.decide(frame) for frame in frames]
        together = cascade.decide_many(frames)
        handed = [cascade.submit(frame).result(timeout=20) for frame in frames]
    assert {one.stage for one in expected} == {0, 1, 2}
    for decisions in (alone, together, handed):
        assert [(d.index, d.stage.index) for d in decisions] == [row[:2] for row in expected]
        confidences = [d.confidence for d in decisions]
        assert confidences == pytest.approx([row[2] for row in expected], abs=1e-4)
        assert all(decision.certified for decision in decisions)
    assert {d.source.value for d in alone if d.stage.index == 2} == {"fused"}


def test_the_bundle_is_verified_and_does_what_was_promised(work, made):
    with Bundle.load(work / "bundle") as opened:
        checks = verify(opened)
        assert checks.passed, checks
        found = evaluate_images(opened, work / "images").figures
        assert list(opened.manifest.pool) == list(made.policy.pool) == [0.5, 0.3]
    counted = made.calibration
    assert sum(counted.settled) == pytest.approx(1)
    macs = [stage.macs for stage in made.policy.stages]
    reached = (1, 1 - counted.settled[0], counted.settled[2])
    cost = sum(share * one for share, one in zip(reached, macs, strict=True)) / macs[-1]
    assert counted.cost_macs_ratio == pytest.approx(cost)
    assert found == counted  # with three candidates every sample is evidence
    step = made.certificate.steps[-1]
    assert step.accepted == round((1 - counted.settled[2]) * counted.samples)
    assert made.certificate.candidates == 3
    assert made.certificate.threshold == made.policy.stages[0].threshold


def test_the_longer_cascade_is_the_cheaper_one_and_two_stages_stand_beside_it(made):
    rows = {row.saver: row for row in made.candidates}
    assert set(rows) == {"tiny", "middle", "tiny → middle"}
    assert rows["tiny → middle"].chosen
    two = min(rows[name].cost_macs_ratio for name in ("tiny", "middle"))
    assert rows["tiny → middle"].cost_macs_ratio < two
    told = made.to_dict()
    assert [stage["model"] for stage in told["stages"]] == ["tiny", "middle", "big"]
    assert [stage["settled"] for stage in told["stages"]] == list(made.calibration.settled)
    assert told["pool"] == [0.5, 0.3]
    assert "tiny → middle" in made.report.read_text()


def test_two_stages_are_what_is_asked_for(work):
    result = calibrate(asked(work, max_stages=2), out=work / "two")
    assert len(result.policy.stages) == 2
    assert result.policy.pool is None


def test_a_budget_on_the_last_stage_holds(work, made):
    limit = 0.6 * made.calibration.settled[2] + 0.4
    budgets = Budgets(escalation_rate=limit, mean_macs=0.9 * made.policy.stages[-1].macs)
    result = calibrate(asked(work, max_drop_points=5.0, budgets=budgets), out=work / "budget")
    assert result.calibration.settled[-1] <= limit
    assert result.calibration.cost_macs_ratio <= 0.9


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content.update(pool=[0.5]), "pool has 1 weights for 3 stages"),
        (lambda content: content.update(pool=[0.5, 7]), "pool"),
        (lambda content: content["stages"][1].update(score=None), "middle has a threshold"),
    ],
)
def test_a_bundle_whose_weights_do_not_fit_is_one_line(work, made, tmp_path, change, says):
    content = json.loads((work / "bundle" / "bundle.json").read_text())
    change(content)
    (tmp_path / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match=says) as caught:
        Bundle.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_edited_weight_is_not_certified(work, made, tmp_path):
    shutil.copytree(work / "bundle", tmp_path / "edited")
    path = tmp_path / "edited" / "bundle.json"
    content = json.loads(path.read_text())
    content["pool"][0] = 0.4
    path.write_text(json.dumps(content))
    with Cascade.load(tmp_path / "edited") as cascade:
        assert "it was made with pool" in cascade.doubt


def test_a_stream_gives_the_decisions_of_decide(work, made):
    with Cascade.load(work / "bundle") as cascade:
        with cascade.stream(work / "images" / "amber") as stream:
            streamed = {decision.frame_id.source_id: decision for decision in stream}
        with open_data(work / "images") as data:
            alone = [cascade.decide(data.frame(index)) for index in range(EACH)]
    assert len(streamed) == EACH
    expected = [(one.index, one.stage.index, one.source) for one in alone]
    assert sorted(expected) == sorted(
        (one.index, one.stage.index, one.source) for one in streamed.values()
    )


def test_a_report_of_bench_tells_each_stages_time_and_verify_times_every_way(work, made):
    report = bench_bundle_file(
        work / "bundle", wanted=BenchRequest(Effort(0, 30, 0.01, 0.5), throughput_s=0.0)
    )
    settled = report.bundle.end_to_end.settled
    assert len(report.stages) == len(settled) == 3
    assert sum(settled) == pytest.approx(1)
    report.write(work / "three.json")
    plan = asked(work, objective=Objective.MACS, budgets=Budgets(mean_latency_ms=1e6))
    plan = replace(plan, input=replace(plan.input, bench=(work / "three.json",)))
    result = calibrate(plan, out=work / "benched")
    assert [stage.model for stage in result.policy.stages] == ["tiny", "middle", "big"]
    first, second, _ = result.calibration.settled
    took = [stage.stage.mean_ms for stage in report.stages]
    mean_ms = took[0] + (1 - first) * took[1] + (1 - first - second) * took[2]
    assert result.latency.cascade.mean_ms == pytest.approx(mean_ms, rel=0.02)  # samples are thinned
    with Bundle.load(work / "benched") as opened:
        promised = opened.manifest.latency
        assert promised.reached == result.latency.reached
        assert promised.reached[0] >= 1 - first
        assert promised.escalation_rate == promised.reached[1] >= 1 - first - second
        latency = verify(opened, effort=Effort(1, 20, 0.0, 5.0)).checks[-1]
    assert latency.passed is True, latency
    assert "of frames go on to the later stages" in latency.detail
