"""The remote engine end to end, against a real Triton."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.colours import NAMES, colour_picture
from tests.remote.hosts import Repository, remote, repository
from tests.remote.triton import Triton, needs_triton
from tests.small_bundle import small_bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.decision import ModelIdentity
from tinysaver_edge.engines.remote.traffic import State
from tinysaver_edge.errors import EngineError

pytestmark = [pytest.mark.slow, needs_triton]

FRAMES = [colour_picture(number % len(NAMES), number) for number in range(120)]
CERTIFIED = "tinysaver_edge.bundle.covered.why_not_covered"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(scope="module")
def served(place) -> Repository:
    return repository(place)


@pytest.fixture(scope="module")
def host(place, served):
    triton = Triton(place, served.path).start()
    yield triton
    triton.stop()


@pytest.fixture(scope="module")
def here(place, served):
    with Cascade.load(place / "bundle") as cascade:
        yield cascade.decide_many(FRAMES)


def told(decision):
    return (
        decision.index,
        decision.label,
        decision.source,
        decision.stage,
        decision.escalated,
        decision.degraded,
    )


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_decisions_are_those_of_the_model_in_process(place, served, host, here, scheme) -> None:
    with Cascade.load(place / "bundle", large=host.url("large", scheme=scheme)) as cascade:
        one_by_one = [cascade.decide(frame) for frame in FRAMES]
        together = cascade.decide_many(FRAMES)
        traffic = cascade.stages[-1].engine.traffic
    assert [told(one) for one in one_by_one] == [told(one) for one in here]
    assert [told(one) for one in together] == [told(one) for one in here]
    assert [one.confidence for one in one_by_one] == pytest.approx([one.confidence for one in here])
    escalated = sum(one.escalated for one in here)
    assert 20 < escalated < 110
    assert traffic.answered == traffic.requests
    frame_bytes = 3 * 16 * 16 * 4
    golden = 12  # the proof's one sample and all of them
    assert traffic.sent_bytes == (2 * escalated + golden + 1) * frame_bytes
    assert traffic.received_bytes == (2 * escalated + golden + 1) * len(NAMES) * 4
    assert traffic.failures == {}


def test_the_host_tells_what_it_serves(place, served, host, monkeypatch) -> None:
    monkeypatch.setattr(CERTIFIED, lambda manifest, **_: None)
    with Cascade.load(place / "bundle", large=host.url("large/1")) as cascade:
        engine = cascade.stages[-1].engine
        assert engine.identity == f"version 1, hash {served.served.sha256[:12]}"
        assert engine.device == host.url("large/1")
        assert engine.states == {host.url("large/1"): State.CLOSED}
        assert cascade.doubt is None
        decisions = [cascade.decide(frame) for frame in FRAMES[:20]]
    assert all(one.certified for one in decisions)
    told = ModelIdentity(host.url("large/1"), "1", served.served.sha256)
    assert {one.identity for one in decisions if one.escalated} == {told}
    assert {one.identity for one in decisions if not one.escalated} == {None}
    escalated = next(one for one in decisions if one.escalated)
    assert escalated.to_dict()["identity"]["sha256"] == served.served.sha256


def test_several_threads_ask_at_once(place, host) -> None:
    with Cascade.load(
        place / "bundle", large=remote(host.url("large"), max_in_flight=4, timeout_s=5)
    ) as cascade:
        stage = cascade.stages[-1]
        batches = [stage.prepare_many([frame]) for frame in FRAMES[:40]]
        alone = [stage.ask(batch).logits for batch in batches]
        with ThreadPoolExecutor(16) as pool:
            together = list(pool.map(lambda batch: stage.ask(batch).logits, batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_host_that_does_not_tell_its_hash_is_not_certified(
    tmp_path, served, place, monkeypatch
) -> None:
    monkeypatch.setattr(CERTIFIED, lambda manifest, **_: None)
    silent = served.copy(tmp_path / "silent")
    config = silent / "large/config.pbtxt"
    config.write_text(config.read_text().split("# Devices compare")[0])
    triton = Triton(tmp_path, silent).start()
    try:
        with Cascade.load(place / "bundle", large=triton.url("large")) as cascade:
            assert cascade.doubt == "a host does not tell the hash of the model it serves"
            assert not any(cascade.decide(frame).certified for frame in FRAMES[:10])
        vouched = remote(triton.url("large"), vouched=True)
        with Cascade.load(place / "bundle", large=vouched) as cascade:
            assert cascade.doubt is None
            assert all(cascade.decide(frame).certified for frame in FRAMES[:10])
    finally:
        triton.stop()


def test_another_model_is_refused_naming_both(tmp_path, served, host) -> None:
    other = small_bundle(tmp_path / "other", names=("saver", "middle"))
    with pytest.raises(EngineError, match=r"serves the model with hash \w{12}…, the bundle was"):
        Cascade.load(other, large=host.url("large"))


def test_another_model_that_does_not_tell_is_found_out(tmp_path, place, served) -> None:
    other = Repository(tmp_path / "other", small_bundle(tmp_path / "b", names=("saver", "middle")))
    other.edit("config.pbtxt", other.served.sha256, "")
    triton = Triton(tmp_path, other.path).start()
    try:
        with pytest.raises(EngineError, match="golden samples otherwise than the calibrated model"):
            Cascade.load(place / "bundle", large=triton.url("large"))
    finally:
        triton.stop()


def test_what_is_not_there_is_one_clear_line(place, host) -> None:
    with pytest.raises(EngineError, match="has no model 'nothing' ready"):
        Cascade.load(place / "bundle", large=host.url("nothing"))
    with pytest.raises(EngineError, match="large/7 has no model"):
        Cascade.load(place / "bundle", large=host.url("large/7"))
    before = threading.active_count()
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9/large UNAVAILABLE"):
        Cascade.load(place / "bundle", large="grpc://127.0.0.1:9/large")
    assert threading.active_count() <= before + 1  # the client library keeps one of its own


def test_a_host_that_is_not_needed_may_come_later(place, tmp_path, served, here) -> None:
    triton = Triton(tmp_path, served.path)
    large = remote(triton.url("large"), optional=True, probe_s=0.2)
    with Cascade.load(place / "bundle", large=large) as cascade:
        engine = cascade.stages[-1].engine
        assert engine.doubt == "no host could be reached that would have told what it serves"
        first = [cascade.decide(frame) for frame in FRAMES[:20]]
        assert any(one.degraded for one in first)
        assert all("UNAVAILABLE" in one.degraded for one in first if one.degraded)
        assert [one.source for one in first if one.degraded] == ["fallback"] * sum(
            one.escalated for one in first
        )
        triton.start()
        try:
            for _ in range(40):
                if State.CLOSED in engine.states.values():
                    break
                threading.Event().wait(0.05)
            assert [told(cascade.decide(frame)) for frame in FRAMES] == [told(one) for one in here]
        finally:
            triton.stop()


def test_with_two_hosts_one_may_fail(place, tmp_path, host, served, here) -> None:
    (tmp_path / "second").mkdir()
    second = Triton(tmp_path / "second", served.path).start()
    try:
        urls = [host.url("large"), second.url("large")]
        with Cascade.load(place / "bundle", large=urls) as cascade:
            answers = [cascade.decide(frame) for frame in FRAMES[:40]]
            second.kill()
            answers += [cascade.decide(frame) for frame in FRAMES[40:]]
            states = cascade.stages[-1].engine.states
        assert [told(one) for one in answers] == [told(one) for one in here]
        assert states[host.url("large")] is State.CLOSED
    finally:
        second.stop()


def test_with_two_hosts_one_may_freeze(place, tmp_path, host, served, here) -> None:
    (tmp_path / "second").mkdir()
    second = Triton(tmp_path / "second", served.path).start()
    try:
        large = remote([host.url("large"), second.url("large")], timeout_s=1.0)
        with Cascade.load(place / "bundle", large=large) as cascade:
            second.freeze()
            answers = [cascade.decide(frame) for frame in FRAMES]
        assert [told(one) for one in answers] == [told(one) for one in here]
    finally:
        second.stop()
