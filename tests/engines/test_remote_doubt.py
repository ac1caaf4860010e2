"""Whether the certificate covers an answer follows from what its host has proven by then."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest

from tinysaver_edge.cascade import Cascade
from tinysaver_edge.cli.run_summary import Doubts
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.decision import AnswerSource
from tinysaver_edge.engines.remote import RemoteModel
from tinysaver_edge.engines.remote.engine import RemoteEngine
from tinysaver_edge.engines.remote.facts import Kind, ModelFacts, Reply, RequestError, TensorFacts
from tinysaver_edge.engines.remote.model import Address
from tinysaver_edge.engines.remote.traffic import State
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.score import Margin
from tinysaver_edge.testing import FAKE_PREPROCESS, FakeEngine, numbered_frame

SHA256 = hashlib.sha256(b"the calibrated model").hexdigest()
EASY, HARD = numbered_frame(0), numbered_frame(1)


class Host:
    """A transport to a host that is up or not, and tells its model's hash or not."""

    def __init__(self, *, up: bool = True, tells: bool = True) -> None:
        self.up, self.tells = up, tells

    def describe(self, *, timeout_s):
        self._check()
        image = TensorFacts("image", "UINT8", (-1, 8, 8, 3))
        return ModelFacts(
            (image,), (TensorFacts("scores", "FP32", (-1, 2)),), sha256=self._sha256()
        )

    def infer(self, tensor, contract, *, datatype, timeout_s):
        self._check()
        return Reply(np.tile(np.float32([0, 9]), (len(tensor), 1)), "1", self._sha256())

    def close(self):
        pass

    def _check(self):
        if not self.up:
            raise RequestError(Kind.UNREACHABLE, "is not up yet")

    def _sha256(self):
        return SHA256 if self.tells else None


def cascade_of(*hosts, **limits):
    """A certified cascade whose large model is on these hosts."""
    remote = RemoteModel(
        tuple(Address.parse(f"grpc://127.0.0.1:{1 + port}/m") for port in range(len(hosts))),
        optional=True,
        probe_s=0.02,
        **limits,
    )
    large = RemoteEngine(
        remote,
        preprocess=FAKE_PREPROCESS,
        output=OutputFormat(),
        classes=2,
        sha256=SHA256,
        opener=lambda address, model: hosts[address.port - 1],
    )
    policy = StagePolicy("saver", score=Margin(), threshold=0.5)
    saver = Stage(FakeEngine([[9.0, 0.0], [0.0, 0.0]]), preprocess=FAKE_PREPROCESS, policy=policy)
    stages = [saver, Stage(large, preprocess=FAKE_PREPROCESS, policy=StagePolicy("large"))]
    return Cascade(stages, certified=True)


def wait_for(cascade, *, closed):
    for _ in range(200):
        states = cascade.stages[-1].engine.states
        if sum(state is State.CLOSED for state in states.values()) == closed:
            return
        threading.Event().wait(0.01)
    pytest.fail(f"{states}")


def test_a_host_that_comes_late_is_covered_from_then_on():
    host = Host(up=False)
    with cascade_of(host) as cascade:
        assert cascade.doubt == "no host could be reached that would have told what it serves"
        assert not cascade.decide(EASY).certified
        assert not cascade.decide(HARD).certified
        host.up = True
        wait_for(cascade, closed=1)
        assert cascade.doubt is None
        assert cascade.decide(EASY).certified
        decision = cascade.decide(HARD)
        assert (decision.source, decision.certified) == (AnswerSource.LARGE, True)


@pytest.mark.parametrize("vouched", [False, True])
def test_a_late_host_that_does_not_tell_its_hash_is_not(vouched):
    host = Host(up=False, tells=False)
    with cascade_of(host, vouched=vouched) as cascade:
        host.up = True
        wait_for(cascade, closed=1)
        assert (cascade.doubt is None) == vouched
        assert cascade.decide(HARD).certified == vouched


def test_of_several_hosts_the_one_that_answered_counts():
    telling, silent = Host(), Host(tells=False)
    with cascade_of(telling, silent) as cascade:
        assert cascade.doubt == "a host does not tell the hash of the model it serves"
        decisions = [cascade.decide(HARD) for _ in range(20)]
        assert {one.source for one in decisions} == {AnswerSource.LARGE}
        for one in decisions:
            assert one.certified == (one.identity.sha256 == SHA256), one.identity
        silent.up = False
        for _ in range(10):
            one = cascade.decide(HARD)
            assert one.degraded or one.identity.sha256 is None or one.certified
        assert cascade.decide(HARD).certified


def test_one_that_told_its_hash_and_comes_back_without_is_not_asked():
    host = Host(up=False)
    with cascade_of(host) as cascade:
        host.up = True
        wait_for(cascade, closed=1)
        host.up = False
        while cascade.stages[-1].engine.states != {"grpc://127.0.0.1:1/m": State.OPEN}:
            assert cascade.decide(HARD).source is AnswerSource.FALLBACK
        host.up, host.tells = True, False
        for _ in range(200):
            decision = cascade.decide(HARD)
            assert decision.source is AnswerSource.FALLBACK
            if "does not tell the hash of its model" in decision.degraded:
                break
            threading.Event().wait(0.01)
        else:
            pytest.fail(decision.degraded)


def test_who_runs_it_is_told_when_that_changes(capsys):
    host = Host(up=False)
    with cascade_of(host) as cascade:
        doubts = Doubts(cascade)
        doubts.tell()
        doubts.tell()
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"warning: decisions are not certified: {cascade.doubt}"
        host.up = True
        wait_for(cascade, closed=1)
        doubts.tell()
        doubts.tell()
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("decisions are certified from here on")
