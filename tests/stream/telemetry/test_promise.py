"""What is left of a certificate when the large model cannot be had: bound, expectation, figures."""

from __future__ import annotations

import time
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.small_bundle import THRESHOLD, small_bundle
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.bundle.covered import measured_with
from tinysaver_edge.bundle.manifest import CertificateEntry, FiguresEntry, Manifest, ReuseEntry
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.certificate.certificate import Certificate, WalkStep
from tinysaver_edge.certificate.p_values import EvidenceKind
from tinysaver_edge.deciding.figures import figures
from tinysaver_edge.deciding.policy import Policy, StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.reuse import ReuseRule
from tinysaver_edge.score import Margin
from tinysaver_edge.stream.drift.drift import Action, DriftOptions
from tinysaver_edge.stream.service import Service, ServiceOptions
from tinysaver_edge.stream.telemetry.metrics import Counter
from tinysaver_edge.stream.telemetry.prometheus import PrometheusMetrics
from tinysaver_edge.stream.telemetry.promise import Promise, promise_readings
from tinysaver_edge.testing import FakeEngine, FakeSource

MEASURED = FiguresEntry(
    samples=1000, accuracy_saver=0.7, accuracy_large=0.8, accuracy_cascade=0.795,
    drop_points=0.5, accept_rate=0.8, cost_macs_ratio=0.3,
)  # fmt: skip
EPSILON = 0.75


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """A bundle's manifest with a certificate, and figures that leave something to lose."""
    with Bundle.load(small_bundle(tmp_path_factory.mktemp("b") / "b", golden=False)) as one:
        return certified(one.manifest)


def certified(made: Manifest) -> Manifest:
    """Return a bundle's manifest with a certificate that covers it."""
    certificate = Certificate(
        EvidenceKind.LABELS, EPSILON, 0.1, 1, 2000, 1, (WalkStep(THRESHOLD, 1600, 4, 2),)
    )
    entry = CertificateEntry(
        statement=certificate.statement,
        counts=certificate.to_json(),
        models={stage.model.name: stage.model.sha256 for stage in made.stages},
        measured=measured_with(made.stages, fusion=made.fusion, labels=made.labels),
    )
    return made.model_copy(update={"certificate": entry, "calibration": MEASURED})


def test_it_is_read_off_the_manifest(manifest) -> None:
    promise = Promise.of(manifest)
    assert promise.certified_points == EPSILON
    assert promise.measured_points == 0.5
    assert promise.gain_points == pytest.approx(100 * 0.095 / 0.2)
    aside = MEASURED.model_copy(update={"drop_points": 0.6})
    assert Promise.of(manifest.model_copy(update={"holdout": aside})).measured_points == 0.6
    assert Promise.of(manifest.model_copy(update={"certificate": None})).certified_points is None
    all_accepted = MEASURED.model_copy(update={"accept_rate": 1.0})
    assert Promise.of(manifest.model_copy(update={"calibration": all_accepted})).gain_points == 0


def test_a_certificate_of_another_threshold_promises_nothing(manifest) -> None:
    other = manifest.stages[0].model_copy(update={"threshold": 0.1})
    edited = manifest.model_copy(update={"stages": [other, *manifest.stages[1:]]})
    assert Promise.of(edited).certified_points is None


@pytest.mark.parametrize(
    ("answers", "certified", "fallbacks", "bound", "expected"),
    [
        (200, 200, 0, 0.75, 0.5),
        (200, 190, 10, 5.75, 0.5 + 0.05 * 47.5),
        (200, 190, 0, 5.75, 0.5),  # degraded otherwise, or after an alarm of the drift watch
        (200, 160, 40, 20.75, 10.0),  # all that is escalated: the drop of the saver alone
        (200, 0, 0, 100.0, 0.5),  # a host that nobody vouches for
    ],
)
def test_every_answer_that_is_not_covered_may_cost_one(
    manifest, answers, certified, fallbacks, bound, expected
) -> None:
    kept = Promise.of(manifest).kept(answers=answers, certified=certified, fallbacks=fallbacks)
    assert kept.effective_drop_points == pytest.approx(bound)
    assert kept.expected_drop_points == pytest.approx(expected)
    assert kept.fallback_share == fallbacks / answers
    assert asdict(kept) == kept.to_dict()


def test_without_answers_or_certificate_there_is_no_bound(manifest) -> None:
    assert Promise.of(manifest).kept(answers=0, certified=0, fallbacks=0) is None
    uncertified = Promise.of(manifest.model_copy(update={"certificate": None}))
    kept = uncertified.kept(answers=10, certified=0, fallbacks=1)
    assert kept.effective_drop_points is None
    assert kept.expected_drop_points == pytest.approx(0.5 + 4.75)


@pytest.mark.parametrize(
    ("fallbacks", "low", "high"),
    [(0, -0.5, 1.5), (20, 0.5 * (-0.5 + 7), 0.5 * (1.5 + 13)), (40, 7, 13), (200, 7, 13)],
)
def test_an_expectation_comes_with_its_interval(manifest, fallbacks, low, high) -> None:
    """From the cascade's, where nothing fell back, to the saver's, where all of it did."""
    within = {"drop_interval_points": (-0.5, 1.5), "saver_drop_interval_points": (7.0, 13.0)}
    measured = MEASURED.model_copy(update=within)
    promise = Promise.of(manifest.model_copy(update={"calibration": measured}))
    kept = promise.kept(answers=200, certified=0, fallbacks=fallbacks)
    assert (kept.expected_low_points, kept.expected_high_points) == pytest.approx((low, high))


@pytest.mark.parametrize("calibrated", [None, ReuseRule(2, 0.1)])
@pytest.mark.parametrize("asked", [None, ReuseRule(2, 0.1), ReuseRule(3, 0.1)])
def test_nothing_is_expected_where_answers_are_repeated_otherwise_than_measured(
    manifest, calibrated, asked
) -> None:
    entry = None if calibrated is None else ReuseEntry(rule=calibrated)
    within = {"drop_interval_points": (-0.5, 1.5), "saver_drop_interval_points": (7.0, 13.0)}
    measured = MEASURED.model_copy(update=within)
    made = manifest.model_copy(update={"reuse": entry, "calibration": measured})
    promise = Promise.of(made, reuse=asked)
    for fallbacks in (0, 20):  # of those that are repeated nobody knows whose place they take
        kept = promise.kept(answers=200, certified=200 - fallbacks, fallbacks=fallbacks)
        unknown = calibrated != asked or (calibrated is not None and fallbacks > 0)
        assert (kept.expected_drop_points is None) == unknown
        assert (kept.expected_low_points is None) == unknown


def test_no_more_is_expected_than_the_saver_alone_loses(manifest) -> None:
    kept = Promise.of(manifest).kept(answers=200, certified=0, fallbacks=200)
    assert kept.expected_drop_points == pytest.approx(10.0)


def test_older_bundles_have_no_interval(manifest) -> None:
    kept = Promise.of(manifest).kept(answers=200, certified=0, fallbacks=20)
    assert (kept.expected_low_points, kept.expected_high_points) == (None, None)


def answers_of(rng, right):
    """Logits of three classes that are right where they should be, and of any confidence."""
    logits = np.zeros((len(right), 3), np.float32)
    logits[np.arange(len(right)), np.where(right, 0, 1)] = rng.uniform(0.1, 6.0, len(right))
    return Outputs(logits=logits)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(1, 200), st.sampled_from([-1, 0, 1]))
def test_no_choice_of_fallbacks_breaks_the_bound(seed, share, samples, bias) -> None:
    """Not even an adversary's, who lets the large model fail where it would have been needed."""
    rng = np.random.default_rng(seed)
    right = rng.random((2, samples)) < 0.6
    outputs = [answers_of(rng, one) for one in right]
    policy = Policy((StagePolicy("s", score=Margin(), threshold=0.6), StagePolicy("l")))
    labels = np.zeros(samples, np.int64)
    found = figures(policy, outputs, labels)
    escalated = Margin()(outputs[0]) < 0.6
    wish = rng.random(samples) + bias * (right[1].astype(float) - right[0])
    order = np.flatnonzero(escalated)[np.argsort(-wish[escalated])]
    fallen = order[: int(share * len(order))]
    correct = np.where(escalated, right[1], right[0])
    correct[fallen] = right[0][fallen]
    drop_points = 100 * (right[1].mean() - correct.mean())

    measured = FiguresEntry(**found.to_dict())
    gain = 100 * (measured.accuracy_cascade - measured.accuracy_saver)
    promise = Promise(found.drop_points, found.drop_points, gain / max(escalated.mean(), 1e-9))
    kept = promise.kept(answers=samples, certified=samples - len(fallen), fallbacks=len(fallen))
    assert drop_points <= kept.effective_drop_points + 1e-9
    if len(fallen) == len(order):
        saver_alone = 100 * (right[1].mean() - right[0].mean())
        assert kept.expected_drop_points == pytest.approx(saver_alone)


FRAMES = 300


def streamed(manifest, failing, *, differing=False, **options):
    """A stream through a service; every third frame is escalated, and some of these fail."""
    table = np.tile([9.0, 0.0], (FRAMES, 1))
    table[::3] = [0.1, 0.0]
    saver = FakeEngine(table)
    large = FakeEngine(np.tile([0.0, 9.0] if differing else [9.0, 0.0], (FRAMES, 1)))
    stages = [
        Stage(
            saver,
            preprocess=saver.preprocess,
            policy=StagePolicy("saver", score=Margin(), threshold=0.5),
        ),
        Stage(large, preprocess=large.preprocess, policy=StagePolicy("large")),
    ]
    if failing:
        large.fail()
    around = Service(
        ServiceOptions(**{"drift": None, "metrics": "127.0.0.1:0", **options}),
        manifest,
        clock=time.monotonic,
        wall=time.time,
        live=False,
    )
    with Cascade(stages, certified=True) as cascade, around:
        stream = cascade.stream(
            FakeSource(FRAMES),
            sinks=around.sinks,
            listener=around.listener,
            metrics=around.metrics,
            watch=around.watch,
        )
        return list(stream), around


@pytest.mark.parametrize("failing", [False, True])
def test_a_stream_counts_what_is_certified_and_what_is_a_fallback(manifest, failing) -> None:
    decisions, around = streamed(manifest, failing)
    kept = around.kept
    assert kept.answers == len(decisions) == FRAMES
    assert kept.certified_share == sum(one.certified for one in decisions) / FRAMES
    assert kept.fallback_share == (1 / 3 if failing else 0)
    bound = EPSILON + (100 / 3 if failing else 0)
    assert kept.effective_drop_points == pytest.approx(bound)


def test_what_goes_out_after_an_alarm_is_not_certified(manifest) -> None:
    drift = DriftOptions(share=1.0, action=Action.WARN)
    decisions, around = streamed(manifest, False, differing=True, drift=drift)
    assert around.tally.total(Counter.DRIFT) == 1
    certified = sum(one.certified for one in decisions)
    assert 0 < certified < FRAMES
    assert around.kept.certified_share == certified / FRAMES
    assert around.kept.effective_drop_points > 50


def published(promise, kept):
    metrics = PrometheusMetrics()
    metrics.add(lambda: promise_readings(promise, kept))
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        sample.name.removeprefix("tinysaver_"): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("tinysaver_")
    }


def test_prometheus_has_all_of_it(manifest) -> None:
    promise = Promise.of(manifest)
    assert published(promise, None) == {"certified_drop_points": EPSILON}
    kept = promise.kept(answers=200, certified=190, fallbacks=10)
    assert published(promise, kept) == {
        "certified_drop_points": EPSILON,
        "certified_share": 0.95,
        "fallback_share": 0.05,
        "effective_drop_points": pytest.approx(5.75),
        "expected_drop_points": pytest.approx(2.875),
    }


def test_answers_of_two_bundles_are_promised_the_worse_bound():
    one = Promise(certified_points=0.5, measured_points=0.2, gain_points=40.0)
    other = Promise(certified_points=1.0, measured_points=0.1, gain_points=10.0)
    kept = one.joined(other).kept(answers=100, certified=98, fallbacks=2)
    assert kept is not None
    assert kept.effective_drop_points == pytest.approx(3.0)
    assert kept.expected_drop_points is None
    uncertified = Promise(certified_points=None, measured_points=0.1, gain_points=None)
    assert one.joined(uncertified).certified_points is None
