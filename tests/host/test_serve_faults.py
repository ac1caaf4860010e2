"""`tinysaver-edge serve` killed, frozen and told to stop while frames come."""

from __future__ import annotations

import signal

import pytest

from tests.remote.faulty import check, limits, run_through
from tests.remote.kserve import Served, needs_kserve
from tests.small_bundle import small_bundle

pytestmark = [pytest.mark.slow, needs_kserve]


@pytest.fixture
def host(tmp_path):
    served = Served(tmp_path, small_bundle(tmp_path / "bundle"), http=False).start()
    yield served
    served.stop()


@pytest.mark.parametrize("fault", ["killed", "frozen", "drained"])
def test_every_frame_is_answered_once_and_in_time(host, fault) -> None:
    fail, heal = {
        "killed": (host.stop, host.start),
        "frozen": (lambda: host.signal(signal.SIGSTOP), lambda: host.signal(signal.SIGCONT)),
        "drained": (host.terminate, host.start),
    }[fault]
    steps = [("fail", 1.0, fail), ("heal", 2.0, heal)]
    run = run_through(host.bundle, limits(host.url()), steps)
    check(run, faulty_from="fail", healed="heal")
