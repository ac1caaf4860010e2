"""How long the remote engine lets a host take: the frame's time, and who is to blame without it."""

from __future__ import annotations

import numpy as np
import pytest

from tinysaver_edge.engines.remote import RemoteModel
from tinysaver_edge.engines.remote.engine import RemoteEngine
from tinysaver_edge.engines.remote.facts import Kind, ModelFacts, Reply, RequestError, TensorFacts
from tinysaver_edge.engines.remote.model import Address
from tinysaver_edge.engines.remote.traffic import State
from tinysaver_edge.errors import EngineError
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import Preprocess, Resize
from tinysaver_edge.testing import FakeClock

BATCH = np.zeros((1, 8, 8, 3), np.uint8)


class Host:
    """A transport to a host that takes as long as it is told, on the test's clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.takes_s = clock, 0.1
        self.given_s: list[float] = []

    def describe(self, *, timeout_s):
        image = TensorFacts("image", "UINT8", (-1, 8, 8, 3))
        return ModelFacts((image,), (TensorFacts("scores", "FP32", (-1, 2)),))

    def infer(self, tensor, contract, *, datatype, timeout_s):
        self.given_s.append(timeout_s)
        self.clock.advance(min(timeout_s, self.takes_s))
        if timeout_s < self.takes_s:
            raise RequestError(Kind.TIMEOUT, "took too long")
        return Reply(np.zeros((len(tensor), 2), np.float32), "1", None)

    def close(self):
        pass


@pytest.fixture
def host():
    return Host(FakeClock())


@pytest.fixture
def engine(host):
    remote = RemoteModel(
        (Address.parse("grpc://127.0.0.1:1/m"),), timeout_s=1.0, probe_s=60.0, retry_share=0.0
    )
    with RemoteEngine(
        remote,
        preprocess=Preprocess(Resize(8, 8)),
        output=OutputFormat(),
        clock=host.clock,
        opener=lambda address, model: host,
    ) as engine:
        host.given_s.clear()
        yield engine


def state(engine) -> State:
    return engine.hosts[0].state


def test_a_host_gets_the_lesser_of_its_own_time_and_the_frames(engine, host) -> None:
    for timeout_s in (None, 5.0, 0.25):
        engine.infer(BATCH, timeout_s=timeout_s)
    assert host.given_s == pytest.approx([1.0, 1.0, 0.25])


def test_without_time_it_is_not_asked_at_all(engine, host) -> None:
    with pytest.raises(EngineError, match="in time"):
        engine.infer(BATCH, timeout_s=0.0)
    assert host.given_s == []
    assert engine.traffic.failures == {}


def test_a_host_that_had_less_time_than_it_takes_is_not_to_blame(engine, host) -> None:
    engine.infer(BATCH)
    for _ in range(10):
        with pytest.raises(EngineError, match="took too long"):
            engine.infer(BATCH, timeout_s=0.05)
    assert state(engine) is State.CLOSED
    host.takes_s = 2.0  # now it is: it had all the time that it usually takes
    for _ in range(3):
        assert state(engine) is State.CLOSED
        with pytest.raises(EngineError, match="took too long"):
            engine.infer(BATCH, timeout_s=0.15)
    assert state(engine) is State.OPEN
    assert engine.traffic.failures == {"timeout": 13}
