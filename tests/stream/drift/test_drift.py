import math

import numpy as np
import pytest

from tests.small_bundle import small_bundle
from tests.stream.decisions import Events, decision, escalated, frame
from tinysaver_edge.bundle import Bundle
from tinysaver_edge.bundle.manifest import DisagreementEntry, ReuseEntry
from tinysaver_edge.decision import AnswerSource, FrameId, Likeness, Reused
from tinysaver_edge.errors import InputError
from tinysaver_edge.reuse import ReuseRule
from tinysaver_edge.stream.drift.drift import (
    Action,
    DriftOptions,
    DriftWatch,
    calibrated_disagreement,
    counts_repeated,
)
from tinysaver_edge.stream.telemetry.metrics import Counter, Gauge, Tally
from tinysaver_edge.testing import FakeClock

PROMISED = DisagreementEntry(
    accepted=5000,
    disagreed=100,
    held_out=True,
    choices=1,
    confidence=0.95,
    upper=0.0238,
    stricter=[0.7, 0.9],
)


def watch(*, promised=PROMISED, **settings):
    made = {
        name: settings.pop(name)
        for name in ("sources", "listener", "metrics", "keep", "repeated")
        if name in settings
    }
    return DriftWatch(promised, DriftOptions(**settings), clock=FakeClock(7.0), **made)


def audit(one, *, differing, times=1, score=0.95, **of):
    for number in range(times):
        accepted = decision(number, score=score, **of)
        one.audited(accepted, escalated(number, index=4 if differing else 3, **of), None)


def until_alarm(one, *, most=200, **of):
    before = one.state.alarms
    for count in range(1, most + 1):
        audit(one, differing=True, **of)
        if one.state.alarms > before:
            return count
    raise AssertionError("no alarm")


def test_the_share_of_frames_is_audited_at_random():
    one = watch(share=0.05, seed=1)
    drawn = [one.audits(decision(number)) for number in range(20_000)]
    assert np.mean(drawn) == pytest.approx(0.05, abs=0.006)
    again = watch(share=0.05, seed=1)
    assert drawn == [again.audits(decision(number)) for number in range(20_000)]


def test_half_the_level_pays_for_not_knowing_the_rate():
    assert PROMISED.disagreed / PROMISED.accepted < watch().promised < 0.026
    fewer = PROMISED.model_copy(update={"accepted": 50, "disagreed": 1})
    chosen = PROMISED.model_copy(update={"choices": 10_000})
    assert watch(promised=fewer).promised > 0.1
    assert watch().promised < watch(promised=chosen).promised < 0.04


def test_an_alarm_is_told_counted_and_acted_upon():
    events, tally = Events(), Tally()
    one = watch(listener=events, metrics=tally)
    assert one.in_force(0.5) == 0.5
    assert one.vouches
    needed = until_alarm(one)
    assert needed < 10
    (alarm,) = events.all
    assert (alarm.kind, alarm.time_s, alarm.source_id) == ("drift", 7.0, "")
    assert (alarm.audited, alarm.disagreed) == (needed, needed)
    assert alarm.evidence >= alarm.alarm_at == 2 / 0.05
    assert alarm.action == "threshold raised to 0.7"
    assert tally.total(Counter.AUDITED) == tally.total(Counter.DISAGREED) == needed
    assert tally.total(Counter.DRIFT, detail="raise") == 1
    assert not one.vouches


def test_each_alarm_raises_the_threshold_until_nothing_is_accepted():
    one = watch(action=Action.RAISE)
    until_alarm(one)
    assert one.in_force(0.5) == 0.7
    assert one.in_force(0.8) == 0.8
    until_alarm(one)
    assert one.in_force(0.5) == 0.9
    until_alarm(one)
    assert one.in_force(0.5) == math.inf
    assert (one.state.alarms, one.state.threshold, one.state.accepting) == (3, 0.9, False)


def test_what_was_accepted_before_the_threshold_rose_is_no_evidence_against_the_new_one():
    one = watch()
    until_alarm(one, score=0.6)
    before = one.state
    audit(one, differing=True, times=50, score=0.6)
    assert one.state == before


def test_escalating_all_accepts_nothing_at_once():
    one = watch(action=Action.ESCALATE)
    until_alarm(one)
    assert one.in_force(0.5) == math.inf


def test_only_warning_accepts_as_before_and_warns_once():
    events = Events()
    one = watch(action=Action.WARN, listener=events)
    until_alarm(one)
    audit(one, differing=False, times=3000)
    audit(one, differing=True, times=300)
    assert one.in_force(0.5) == 0.5
    assert [event.action for event in events.all] == ["only warns"]
    assert not one.vouches


def test_agreement_raises_no_alarm_and_the_metric_stays_below_one():
    tally = Tally()
    one = watch(metrics=tally)
    audit(one, differing=False, times=500)
    assert one.state.alarms == 0
    assert 0 < tally.level(Gauge.DRIFT_EVIDENCE) < 0.1


def test_one_bad_camera_is_not_hidden_by_three_good_ones():
    cameras = ["a", "b", "c", "d"]
    events = Events()
    one = watch(sources=len(cameras), listener=events)
    for _ in range(12):
        for camera in cameras:
            audit(one, differing=camera == "c", source_id=camera)
    assert events.all[0].source_id == "c"
    assert events.all[0].alarm_at == 2 * 5 / 0.05
    alarm = events.all[-1]
    assert one.state.last_alarm == (
        f"{alarm.disagreed} of {alarm.audited} audited answers of c differed"
    )
    assert one.state.disagreed < one.state.audited / 3  # the sums alone would look like no alarm


def test_names_that_nobody_announced_share_their_evidence():
    one = watch(action=Action.WARN)
    for number in range(5):
        audit(one, differing=True, source_id=f"photo-{number}.png")
    assert one.state.alarms == 1


def test_audited_frames_are_kept():
    kept = []
    one = watch(keep=lambda *what: kept.append(what))
    assert one.wants_frames
    assert not watch().wants_frames
    accepted, large, picture = decision(3), escalated(3), frame(3)
    one.audited(accepted, large, picture)
    assert kept == [(accepted, large, picture)]


@pytest.mark.arithmetic
def test_false_alarms_keep_the_level_with_the_rate_itself_estimated():
    """Calibration and field are both drawn anew: few calibration samples, many looks."""
    rng = np.random.default_rng(11)
    level, runs, rate = 0.2, 150, 0.04
    alarms = 0
    for _ in range(runs):
        disagreed = int(rng.binomial(400, rate))
        promised = PROMISED.model_copy(update={"accepted": 400, "disagreed": disagreed})
        one = watch(promised=promised, level=level, action=Action.WARN)
        for differs in rng.random(600) < rate:
            audit(one, differing=bool(differs))
        alarms += one.state.alarms
    assert alarms <= level * runs


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"share": 0.0}, "audit share"), ({"share": 1.5}, "audit share"), ({"level": 1.0}, "level")],
)
def test_options_out_of_range_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        DriftOptions(**settings)


REPEATED = {
    "source": AnswerSource.REUSED,
    "reused": Reused(FrameId("cam", 0), 0.5, Likeness.STILL),
}


def test_repeated_answers_are_drawn_at_their_share_where_something_is_promised_of_them():
    one = watch(share=0.05, seed=1, repeated=True)
    drawn = [one.audits(decision(number, **REPEATED)) for number in range(20_000)]
    assert np.mean(drawn) == pytest.approx(0.05, abs=0.006)
    other = watch(share=1.0)
    assert not other.audits(decision(0, **REPEATED))
    assert other.audits(decision(0))


def test_repeated_answers_that_differ_raise_the_alarm_and_end_the_repeating():
    one = watch(repeated=True)
    assert one.repeats
    until_alarm(one, **REPEATED)
    assert not one.repeats
    assert watch(action=Action.WARN, repeated=True).repeats


def test_what_was_repeated_before_the_threshold_was_raised_is_no_evidence_against_the_new_one():
    one = watch(repeated=True)
    until_alarm(one)
    before = one.state.audited
    audit(one, differing=True, times=50, **REPEATED)
    assert one.state.audited == before
    assert one.state.alarms == 1


def test_of_a_bundle_with_epochs_their_disagreement_is_promised(tmp_path):
    rule = ReuseRule(2.0, 0.1)
    with Bundle.load(small_bundle(tmp_path / "bundle")) as bundle:
        manifest = bundle.manifest
    of_epochs = PROMISED.model_copy(update={"disagreed": 7})
    told = manifest.model_copy(
        update={
            "disagreement": PROMISED,
            "reuse": ReuseEntry(rule=rule, disagreement=of_epochs),
        }
    )
    assert calibrated_disagreement(told, rule) == of_epochs
    assert counts_repeated(told, rule)
    assert calibrated_disagreement(told, ReuseRule(3.0, 0.1)) == PROMISED
    assert not counts_repeated(told, None)
