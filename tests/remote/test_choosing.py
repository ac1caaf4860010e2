"""Which host is asked, how often again, and how one that failed is tried, with real Tritons."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest

from tests.colours import colour_picture
from tests.remote.hosts import Repository, remote, repository
from tests.remote.triton import Triton, needs_triton
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.engines.remote.traffic import SAVED, State
from tinysaver_edge.errors import EngineError

pytestmark = [pytest.mark.slow, needs_triton]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("choosing")


@pytest.fixture(scope="module")
def served(place) -> Repository:
    return repository(place)


@pytest.fixture
def host(tmp_path, served):
    triton = Triton(tmp_path, served.path).start()
    yield triton
    triton.stop()


@contextmanager
def large_model(place, urls, **limits):
    """The engine that asks the hosts, and one frame for it."""
    with Cascade.load(place / "bundle", large=remote(urls, **limits)) as cascade:
        stage = cascade.stages[-1]
        yield stage.engine, stage.prepare_many([colour_picture(0, 0)])


def until(condition, *, seconds: float) -> bool:
    due_s = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < due_s:
        time.sleep(0.005)
    return met


def asked(engine, frame, *, times: int) -> int:
    """Ask so many times; return how many answers there were."""
    answered = 0
    for _ in range(times):
        try:
            engine.infer(frame)
        except EngineError:
            continue
        answered += 1
    return answered


def test_of_several_hosts_the_healthy_and_quick_one_is_asked(place, tmp_path, served, host) -> None:
    slow = Repository(tmp_path / "slow", place / "bundle")
    slow.delay(0.1)
    (tmp_path / "second").mkdir()
    second = Triton(tmp_path / "second", slow.path).start()
    urls = [second.url("large"), host.url("large")]
    try:
        with large_model(place, urls, probe_s=0.2) as (engine, frame):
            assert asked(engine, frame, times=60) == 60
            lame, quick = engine.hosts
            assert quick.in_use
            assert quick.answered >= 50
            assert lame.answered + quick.answered == 60
            host.kill()
            assert asked(engine, frame, times=20) == 20  # nothing was lost on the way
            lame, quick = engine.hosts
            assert (lame.in_use, quick.in_use) == (True, False)
            assert quick.state is not State.CLOSED
            host.start()
            assert until(lambda: engine.hosts[1].state is State.CLOSED, seconds=10)
            assert asked(engine, frame, times=20) == 20
            assert engine.hosts[1].in_use
            assert [one.reconnects for one in engine.hosts] == [0, 1]
    finally:
        second.stop()


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_retries_stay_within_their_budget(place, host, share) -> None:
    """Nothing listens any more and the breaker never opens: each request could go on for ever."""
    limits = {"retry_share": share, "failures_to_open": 10_000, "timeout_s": 0.3}
    with large_model(place, host.url("large"), **limits) as (engine, frame):
        host.kill()
        assert asked(engine, frame, times=100) == 0
        traffic = engine.traffic
    assert traffic.requests == 100
    allowed = SAVED + share * 100 if share else 0
    assert allowed - 2 <= traffic.retries <= allowed
    assert sum(traffic.failures.values()) == traffic.requests + traffic.retries


def test_a_host_that_failed_is_left_alone_but_for_one_probe_at_a_time(place, host) -> None:
    limits = {"probe_s": 0.25, "failures_to_open": 3, "retry_share": 0.0, "connect_s": 1.0}
    with large_model(place, host.url("large"), **limits) as (engine, frame):
        host.kill()
        assert asked(engine, frame, times=3) == 0
        assert engine.hosts[0].state is not State.CLOSED
        before, begun_s = engine.traffic, time.monotonic()
        assert asked(engine, frame, times=200) == 0
        while time.monotonic() < begun_s + 1.0:
            time.sleep(0.01)
        after = engine.traffic
        assert after.sent_bytes == before.sent_bytes  # no frame went to it
        assert 2 <= after.probes - before.probes <= 5

        host.start()
        assert until(lambda: engine.hosts[0].state is State.CLOSED, seconds=10)
        assert asked(engine, frame, times=10) == 10
        assert engine.hosts[0].reconnects == 1

        host.freeze()  # a probe of it takes its time: half open, and no second one beside it
        try:
            assert asked(engine, frame, times=3) == 0
            before = engine.traffic
            assert until(lambda: engine.hosts[0].state is State.HALF_OPEN, seconds=10)
            assert asked(engine, frame, times=20) == 0
            assert engine.traffic.probes - before.probes <= 1
        finally:
            host.thaw()
        assert until(lambda: engine.hosts[0].state is State.CLOSED, seconds=10)
        assert engine.hosts[0].reconnects == 2
