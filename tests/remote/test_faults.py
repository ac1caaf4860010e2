"""A real Triton that fails in every way it can while frames come: none is lost, late or doubled.

Certificates and tokens are in `test_faults_security.py`, the network in `test_faults_network.py`.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter

import pytest

from tests.remote.faulty import Step, check, in_time, limits, recovered, run_through
from tests.remote.hosts import Repository, repository
from tests.remote.triton import Triton, needs_triton
from tests.small_bundle import small_bundle
from tinysaver_edge.decision import Decision, Reason

pytestmark = [pytest.mark.slow, needs_triton]


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Repository:
    return repository(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def host(tmp_path, served):
    served.delay(0)
    triton = Triton(tmp_path, served.path).start()
    yield triton
    triton.stop()


def faults(served, host, steps, *, faulty_from: str, healed: str, scheme: str = "grpc"):
    """Run through the steps, hold the decisions against all four demands, and return the run."""
    run = run_through(served.bundle, limits(host.url("large", scheme=scheme)), steps)
    check(run, faulty_from=faulty_from, healed=healed)
    return run


BOTH = pytest.mark.parametrize("scheme", ["grpc", "http"])


@BOTH
def test_killed_with_requests_under_way(served, host, scheme) -> None:
    steps = [
        ("slow", 0.5, lambda: served.delay(0.1)),
        ("kill", 0.5, host.kill),
        ("heal", 1.5, lambda: (served.delay(0), host.start())),
    ]
    faults(served, host, steps, faulty_from="slow", healed="heal", scheme=scheme)


@BOTH
def test_frozen(served, host, scheme) -> None:
    steps = [("freeze", 1.0, host.freeze), ("thaw", 3.0, host.thaw)]
    faults(served, host, steps, faulty_from="freeze", healed="thaw", scheme=scheme)


@BOTH
def test_slow(served, host, scheme) -> None:
    steps = [
        ("slow", 1.0, lambda: served.delay(1.0)),
        ("heal", 3.0, lambda: served.delay(0)),
    ]
    faults(served, host, steps, faulty_from="slow", healed="heal", scheme=scheme)


def test_refusing(served, host) -> None:
    steps = [("stop", 1.0, host.stop), ("start", 1.5, host.start)]
    faults(served, host, steps, faulty_from="stop", healed="start")


def test_draining(served, host) -> None:
    def drain() -> None:
        host.terminate()
        host.process.wait(20)

    steps = [
        ("slow", 0.5, lambda: served.delay(0.2)),
        ("drain", 0.3, drain),
        ("heal", 0.2, lambda: (served.delay(0), host.start())),
    ]
    faults(served, host, steps, faulty_from="slow", healed="heal")


def test_flapping_every_second(served, host) -> None:
    steps = [("first", 0.5, lambda: None)]
    for turn in range(4):
        steps += [(f"kill {turn}", 1.0, host.kill), (f"start {turn}", 0.0, host.start)]
    faults(served, host, steps, faulty_from="kill 0", healed="start 3")


def swapped(host, other, *, back) -> list[Step]:
    """Serve another repository for a while."""

    def serve(path) -> None:
        host.kill()
        host.repository = path
        host.start()

    return [("swap", 1.0, lambda: serve(other)), ("back", 1.5, lambda: serve(back))]


def test_another_model_in_its_place(served, host, tmp_path) -> None:
    other = Repository(tmp_path / "other", small_bundle(tmp_path / "b", names=("saver", "middle")))

    steps = swapped(host, other.path, back=served.path)
    run = faults(served, host, steps, faulty_from="swap", healed="back")
    between = [
        one.degraded
        for came_s, one in run.decisions
        if run.times["swap done"] + 1.0 < came_s < run.times["back"] and one.degraded
    ]
    assert between
    assert all("serves the model with hash" in reason for reason in between)


def test_another_shape_in_its_place(served, host, tmp_path) -> None:
    other = served.copy(tmp_path / "other")
    config = other / "large/config.pbtxt"
    config.write_text(config.read_text().replace("3, 16, 16", "3, 16, 17"))

    steps = swapped(host, other, back=served.path)
    run = faults(served, host, steps, faulty_from="swap", healed="back")
    reasons = Counter(one.degraded for _, one in run.decisions if one.degraded)
    assert any("(n, 3, 16, 17), the bundle wants FP32 (n, 3, 16, 16)" in why for why in reasons)


def test_garbage_from_the_model(served, host, tmp_path) -> None:
    """It answers NaN for a while, without a restart: only the answers show it."""
    flag = tmp_path / "garbage"
    model = served.path / "large/1/model.py"
    kept = model.read_text()
    line = "            raw = self.session.run("
    trick = f"            import os\n            nan = os.path.exists({str(flag)!r})\n"
    after = "            ends = np.cumsum("
    text = kept.replace(line, trick + line).replace(
        after, "            raw = raw * np.nan if nan else raw\n" + after
    )
    assert text.count("nan") == 3
    host.stop()
    model.write_text(text)
    host.start()
    try:
        steps = [("nan", 1.0, flag.touch), ("heal", 1.5, flag.unlink)]
        faults(served, host, steps, faulty_from="nan", healed="heal")
    finally:
        model.write_text(kept)


def test_garbage_from_whatever_listens_there(served, host) -> None:
    over = threading.Event()

    def babble() -> None:
        with socket.create_server(("127.0.0.1", host.grpc_port), reuse_port=False) as server:
            server.settimeout(0.05)
            while not over.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(0.2)
                    try:
                        connection.sendall(os.urandom(4096))
                        connection.recv(4096)
                    except OSError:
                        pass

    babbler = threading.Thread(target=babble)

    def start() -> None:
        host.kill()
        babbler.start()

    def heal() -> None:
        over.set()
        babbler.join()
        host.start()

    steps = [("babble", 1.0, start), ("heal", 1.5, heal)]
    faults(served, host, steps, faulty_from="babble", healed="heal")


def test_revisions_are_final_and_single(served, host) -> None:
    steps = [("kill", 1.0, host.kill), ("heal", 1.0, host.start)]
    run = run_through(served.bundle, limits(host.url("large")), steps, escalation="revise")
    in_time(run)
    recovered(run, run.times["heal done"])
    by_frame: dict[int, list[Decision]] = {}
    for _, decision in run.decisions:
        by_frame.setdefault(decision.frame_id.sequence, []).append(decision)
    assert sorted(by_frame) == list(range(len(run.taken_s)))
    for decisions in by_frame.values():
        assert [one.revision for one in decisions] in ([0], [0, 1])
        assert len(decisions) == (2 if decisions[0].reason is Reason.PROVISIONAL else 1)
