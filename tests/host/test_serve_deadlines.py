"""`tinysaver-edge serve` does not begin with what nobody waits for any more."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.remote.kserve import SLOW, Served, needs_kserve
from tests.small_bundle import small_bundle

pytestmark = [pytest.mark.slow, needs_kserve]


def test_a_request_whose_deadline_passed_while_it_waited_is_not_computed(tmp_path) -> None:
    """One request at a time takes 0.6 s; of six with 0.9 s each, two can begin in time."""
    import tritonclient.grpc
    from tritonclient.utils import InferenceServerException

    log = tmp_path / "begun"
    bundle = small_bundle(tmp_path / "bundle")
    slow = SLOW.format(path=str(log), seconds=0.6)
    served = Served(tmp_path, bundle, "--batch", "1", before=slow, http=False).start()

    def ask(client, timeout_s: float) -> bool:
        given = tritonclient.grpc.InferInput("image", (1, 3, 16, 16), "FP32")
        given.set_data_from_numpy(np.zeros((1, 3, 16, 16), np.float32))
        try:
            client.infer("large", [given], client_timeout=timeout_s)
        except InferenceServerException:
            return False
        return True

    try:
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{served.grpc_port}") as client:
            assert ask(client, 5.0)
            log.unlink()
            with ThreadPoolExecutor(6) as pool:
                answered = sum(pool.map(lambda _: ask(client, 0.9), range(6)))
            started_s = time.monotonic()
            assert ask(client, 5.0)  # it has not long to wait
            assert time.monotonic() - started_s < 2  # behind all six it would take 3.3
    finally:
        served.stop()
    assert answered == 1
    assert len(log.read_text().splitlines()) == 2 + 1
