"""The drift watch and the sinks around a real stream of a cascade with fake models."""

import json
import sys
import time
from contextlib import ExitStack

import numpy as np
import pytest

from tests.small_bundle import small_bundle
from tinysaver_edge._support.doors import short_turns
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.errors import InputError
from tinysaver_edge.hardware.energy import EnergyMeter, Meters
from tinysaver_edge.hardware.finding import Finding
from tinysaver_edge.score import Margin
from tinysaver_edge.stream.drift.drift import Action, DriftOptions
from tinysaver_edge.stream.service import Service, ServiceOptions, energy_readings
from tinysaver_edge.stream.telemetry.metrics import Counter
from tinysaver_edge.testing import FakeEngine, FakeSource

FRAMES = 400


def cascade_of(*, differing):
    """A saver that is sure of class 0, and a large model that says 1 on a share of the frames."""
    saver = FakeEngine(np.tile([9.0, 0.0], (FRAMES, 1)))
    answers = np.tile([9.0, 0.0], (FRAMES, 1))
    answers[np.random.default_rng(0).random(FRAMES) < differing] = [0.0, 9.0]
    large = FakeEngine(answers)
    stages = [
        Stage(
            saver,
            preprocess=saver.preprocess,
            policy=StagePolicy("saver", score=Margin(), threshold=0.5),
        ),
        Stage(large, preprocess=large.preprocess, policy=StagePolicy("large")),
    ]
    return Cascade(stages, certified=True)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    with Bundle.load(small_bundle(tmp_path_factory.mktemp("b") / "b", golden=False)) as one:
        return one.manifest


def service(manifest, *, live=False, **options):
    return Service(
        ServiceOptions(**options), manifest, clock=time.monotonic, wall=time.time, live=live
    )


def decided(cascade, around):
    with cascade, around:
        stream = cascade.stream(
            FakeSource(FRAMES),
            sinks=around.sinks,
            listener=around.listener,
            metrics=around.metrics,
            watch=around.watch,
        )
        around.runs(stream.close)
        return list(stream)


def test_while_nothing_drifts_every_answer_is_certified(manifest):
    around = service(manifest, drift=DriftOptions(share=1.0))
    decisions = decided(cascade_of(differing=0.005), around)
    assert len(decisions) == FRAMES
    assert all(one.certified for one in decisions)
    assert 0 < around.tally.total(Counter.AUDITED) <= FRAMES
    assert around.tally.total(Counter.DRIFT) == 0


def test_once_drift_is_seen_no_answer_claims_the_certificate(manifest):
    around = service(manifest, drift=DriftOptions(share=1.0, action=Action.WARN))
    decisions = decided(cascade_of(differing=0.5), around)
    certified = [one.certified for one in decisions]
    assert certified[0]
    assert not certified[-1]
    assert certified == sorted(certified, reverse=True)
    assert not any(one.escalated for one in decisions)
    assert around.tally.total(Counter.DRIFT) == 1


def test_a_stricter_policy_takes_hold_in_the_stream(manifest):
    around = service(manifest, drift=DriftOptions(share=1.0, action=Action.ESCALATE))
    decisions = decided(cascade_of(differing=0.5), around)
    escalated = [one.escalated for one in decisions]
    assert not escalated[0]
    assert escalated[-1]
    assert sum(escalated) > FRAMES / 2


def test_several_sinks_have_every_frame_of_a_file(manifest, tmp_path):
    around = service(
        manifest,
        drift=None,
        jsonl=tmp_path / "out.jsonl",
        video=tmp_path / "out.avi",
        dashboard="127.0.0.1:0",
        metrics="127.0.0.1:0",
    )
    decided(cascade_of(differing=0.0), around)
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    numbers = [json.loads(line)["frame_id"]["sequence"] for line in lines]
    assert numbers == list(range(FRAMES))
    assert around.tally.total(Counter.SINK_DROPPED) == 0
    told = [note.partition(":")[0] for note in around.notes]
    assert told[:2] == ["metrics and health", "dashboard"]


@pytest.mark.parametrize("option", ["metrics", "dashboard"])
@pytest.mark.parametrize("token", [" ", "1234567", "12345678\n"])
def test_a_token_that_protects_nothing_is_refused(option, token):
    with pytest.raises(InputError, match=f"--{option} 127.0.0.1:0: the token"):
        ServiceOptions(**{option: "127.0.0.1:0"}, token=token).check()


def test_options_hide_their_secrets():
    shown = repr(ServiceOptions(token="t0p s3cret", mqtt="mqtt://ann:pw@host/t"))
    assert "s3cret" not in shown
    assert "pw@" not in shown


def test_a_bundle_that_cannot_be_watched_is_a_warning_or_an_error(manifest):
    old = manifest.model_copy(update={"disagreement": None})
    around = service(old)
    assert "drift is not watched" in around.warnings[0]
    with pytest.raises(InputError, match="calibrate it again"):
        service(old, must_watch=True)


def test_where_nothing_is_accepted_there_is_nothing_to_audit(manifest):
    first = manifest.stages[0].model_copy(update={"threshold": None})
    stages = [first, manifest.stages[1]]
    old = manifest.model_copy(update={"disagreement": None, "stages": stages})
    assert "nothing to audit" in service(old).warnings[0]


def test_servers_that_cannot_listen_leave_none_behind(manifest):
    around = service(manifest, metrics="127.0.0.1:0", dashboard="192.0.2.1:0", token="long enough")
    usual_s = sys.getswitchinterval()
    with pytest.raises(InputError, match="no such address"), around:
        pass
    again = service(manifest, metrics="127.0.0.1:0")
    with again:
        assert sys.getswitchinterval() <= 0.001  # strangers' requests hold no frame up for longer
        assert again.notes[0].startswith("metrics and health: http://127.0.0.1:")
    assert sys.getswitchinterval() == usual_s


def test_doors_that_close_in_another_order_leave_turns_as_they_were():
    usual_s = sys.getswitchinterval()
    with ExitStack() as later, short_turns():
        later.enter_context(short_turns())
        assert sys.getswitchinterval() <= 0.001
    assert sys.getswitchinterval() == usual_s


class Counting(EnergyMeter):
    """A counter that has been running for long, and is lost when told to be."""

    source = "RAPL, package-0"

    def __init__(self):
        self.now, self.lost = 500.0, False

    def joules(self):
        if self.lost:
            raise OSError("gone")
        return self.now


def test_energy_is_told_from_the_start_of_the_stream_and_by_its_counter():
    meter = Counting()
    read = energy_readings(Meters((meter,), ()))
    meter.now += 12.5
    (told,) = read()
    assert (told.name, told.labels, told.counts) == ("energy_joules", ("counter",), True)
    assert told.samples == ((("RAPL, package-0",), 12.5),)
    meter.lost = True
    assert read()[0].samples == ()


def test_metrics_say_why_there_is_no_energy(manifest, monkeypatch):
    absent = Meters((), (Finding.absent("energy of the processor (RAPL)", "no intel-rapl"),))
    monkeypatch.setattr("tinysaver_edge.stream.service.open_meters", lambda: absent)
    with service(manifest, metrics="127.0.0.1:0") as around:
        assert "energy is not told: energy of the processor (RAPL): no intel-rapl" in around.notes
