"""`tinysaver-edge serve` killed, frozen, told to stop and crowded out while frames come."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import numpy as np
import pytest

from tests.remote.faulty import check, limits, run_through
from tests.remote.kserve import SLOW, Served, needs_kserve
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


def crowd(host: Served, over: Event) -> None:
    """Ask one thing after the other, as another device would."""
    import tritonclient.grpc
    from tritonclient.utils import InferenceServerException

    given = tritonclient.grpc.InferInput("image", (1, 3, 16, 16), "FP32")
    given.set_data_from_numpy(np.zeros((1, 3, 16, 16), np.float32))
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{host.grpc_port}") as client:
        while not over.is_set():
            with suppress(InferenceServerException):
                client.infer("large", [given], client_timeout=1.0)


def test_a_host_that_refuses_because_it_is_full(tmp_path) -> None:
    """It takes two requests at a time, and six other devices are faster with theirs."""
    before = SLOW.format(path=str(tmp_path / "begun"), seconds=0.05)
    options = ("--max-requests", "2", "--batch", "1")
    bundle = small_bundle(tmp_path / "bundle")
    host = Served(tmp_path, bundle, *options, http=False, before=before).start()
    over = Event()
    try:
        with ThreadPoolExecutor(6) as others:
            steps = [
                ("crowd", 1.0, lambda: [others.submit(crowd, host, over) for _ in range(6)]),
                ("leave", 2.0, over.set),
            ]
            try:
                run = run_through(bundle, limits(host.url(), max_in_flight=2), steps)
            finally:
                over.set()
    finally:
        host.stop()
    check(run, faulty_from="crowd", healed="leave")
    assert run.traffic.failures["busy"] > 3
