"""Packets late and lost between device and host: every frame is answered once, and in time."""

from __future__ import annotations

import pytest

from tests.remote.faulty import check, limits, run_through
from tests.remote.hosts import Repository, repository
from tests.remote.triton import Triton, needs_triton
from tests.remote.wire import Wire

pytestmark = [pytest.mark.slow, needs_triton]


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Repository:
    return repository(tmp_path_factory.mktemp("network"))


@pytest.fixture
def host(tmp_path, served, wire: Wire):
    triton = Triton(tmp_path, served.path, address=wire.there, inside=wire.inside).start()
    yield triton
    triton.stop()


@pytest.mark.parametrize(
    ("delay_ms", "loss"),
    [
        pytest.param(40, 0.2, id="a-bad-radio-link"),
        pytest.param(300, 0.0, id="later-than-the-deadline"),
        pytest.param(0, 1.0, id="a-cable-pulled"),
    ],
)
def test_packets_late_and_lost(served, host, wire, delay_ms, loss) -> None:
    steps = [
        ("worsen", 1.0, lambda: wire.worsen(delay_ms=delay_ms, loss=loss)),
        ("mend", 4.0, wire.worsen),
    ]
    run = run_through(served.bundle, limits(host.url("large"), insecure=True), steps)
    check(run, faulty_from="worsen", healed="mend")
