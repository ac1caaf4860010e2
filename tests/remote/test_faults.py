"""A real Triton that fails in every way it can while frames come: none is lost, late or doubled."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from tests.colours import NAMES, colour_picture
from tests.remote.hosts import Repository, lateness, remote, repository
from tests.remote.triton import Triton, needs_triton
from tests.small_bundle import small_bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.decision import Decision

pytestmark = [pytest.mark.slow, needs_triton]

RATE_HZ = 40.0
DEADLINE_S = 0.4
GRACE_S = 0.005
RECOVERY_S = 2.0


@dataclass
class Run:
    """What became of the frames: the decision, when it came, and when the frame was taken."""

    taken_s: list[float] = field(default_factory=list)
    decisions: list[tuple[float, Decision]] = field(default_factory=list)
    late_machine_s: float = 0.0


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Repository:
    return repository(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def host(tmp_path, served):
    served.delay(0)
    triton = Triton(tmp_path, served.path).start()
    yield triton
    triton.stop()


def run_through(served, host, steps, *, escalation="wait", large=None) -> tuple[Run, dict]:
    """Stream frames while, one after the other, steps are taken; each is (name, seconds, action).

    The last step is the healing; the time when it has been taken is kept, and frames go on until
    `RECOVERY_S` and a second have passed since.
    """
    run, times, over = Run(), {}, threading.Event()

    def frames():
        number = 0
        while not over.is_set():
            run.taken_s.append(time.monotonic())
            yield colour_picture(number % len(NAMES), number)
            number += 1
            time.sleep(1 / RATE_HZ)

    def act() -> None:
        try:
            for name, after_s, action in steps:
                time.sleep(after_s)
                times[name] = time.monotonic()
                action()
                times[f"{name} done"] = time.monotonic()
            time.sleep(RECOVERY_S + 1)
        finally:
            over.set()

    bundle = served.folder.parent / "bundle"
    large = large or remote(host.url("large"), timeout_s=DEADLINE_S, probe_s=0.25)
    with Cascade.load(bundle, large=large) as cascade, lateness() as worst:
        actor = threading.Thread(target=act)
        actor.start()
        for decision in cascade.stream(
            frames(), escalation=escalation, deadline_ms=DEADLINE_S * 1e3, max_in_flight=4
        ):
            run.decisions.append((time.monotonic(), decision))
        actor.join()
        run.late_machine_s = worst()
        times["traffic"] = cascade.stages[-1].engine.traffic
    return run, times


def check(run: Run, healed_s: float, *, faulty_from_s: float) -> None:
    """Every frame has exactly one final decision in time; the large model answers again at once."""
    sequences = [decision.frame_id.sequence for _, decision in run.decisions]
    assert sequences == list(range(len(run.taken_s)))
    late = [
        came_s - run.taken_s[decision.frame_id.sequence] - DEADLINE_S
        for came_s, decision in run.decisions
    ]
    print(
        f"{len(late)} frames, the last answer at deadline {max(late) * 1e3:+.1f} ms, the machine "
        f"wakes up to {run.late_machine_s * 1e3:.1f} ms late"
    )
    assert max(late) <= GRACE_S + run.late_machine_s
    degraded = [
        run.taken_s[one.frame_id.sequence] for _, one in run.decisions if one.degraded is not None
    ]
    assert degraded, "nothing failed"
    assert min(degraded) >= faulty_from_s - DEADLINE_S
    answered = [
        came_s
        for came_s, one in run.decisions
        if one.escalated and one.degraded is None and came_s > healed_s
    ]
    assert answered, "the large model was not asked again"
    assert answered[0] - healed_s <= RECOVERY_S
    assert all(one.source == "fallback" for _, one in run.decisions if one.degraded)
    assert all(not one.certified for _, one in run.decisions if one.degraded)


def test_killed_with_requests_under_way(served, host) -> None:
    steps = [
        ("slow", 0.5, lambda: served.delay(0.1)),
        ("kill", 0.5, host.kill),
        ("heal", 1.5, lambda: (served.delay(0), host.start())),
    ]
    run, times = run_through(served, host, steps)
    check(run, times["heal done"], faulty_from_s=times["slow"])


def test_frozen(served, host) -> None:
    steps = [("freeze", 1.0, host.freeze), ("thaw", 3.0, host.thaw)]
    run, times = run_through(served, host, steps)
    check(run, times["thaw done"], faulty_from_s=times["freeze"])


def test_slow(served, host) -> None:
    steps = [
        ("slow", 1.0, lambda: served.delay(1.0)),
        ("heal", 3.0, lambda: served.delay(0)),
    ]
    run, times = run_through(served, host, steps)
    # What the host had begun with, it ends first: one request of a second, at most two.
    check(run, times["heal done"] + 1.0, faulty_from_s=times["slow"])


def test_refusing(served, host) -> None:
    steps = [("stop", 1.0, host.stop), ("start", 1.5, host.start)]
    run, times = run_through(served, host, steps)
    check(run, times["start done"], faulty_from_s=times["stop"])


def test_draining(served, host) -> None:
    def drain() -> None:
        host.terminate()
        host.process.wait(20)

    steps = [
        ("slow", 0.5, lambda: served.delay(0.2)),
        ("drain", 0.3, drain),
        ("heal", 0.2, lambda: (served.delay(0), host.start())),
    ]
    run, times = run_through(served, host, steps)
    check(run, times["heal done"], faulty_from_s=times["slow"])


def test_flapping_every_second(served, host) -> None:
    steps = [("first", 0.5, lambda: None)]
    for turn in range(4):
        steps += [(f"kill {turn}", 1.0, host.kill), (f"start {turn}", 0.0, host.start)]
    run, times = run_through(served, host, steps)
    check(run, times["start 3 done"], faulty_from_s=times["kill 0"])


def test_another_model_in_its_place(served, host, tmp_path) -> None:
    other = Repository(tmp_path / "other", small_bundle(tmp_path / "b", names=("saver", "middle")))

    def swap(path) -> None:
        host.kill()
        host.repository = path
        host.start()

    steps = [
        ("swap", 1.0, lambda: swap(other.path)),
        ("back", 1.5, lambda: swap(served.path)),
    ]
    run, times = run_through(served, host, steps)
    check(run, times["back done"], faulty_from_s=times["swap"])
    between = [
        one.degraded
        for came_s, one in run.decisions
        if times["swap done"] + 1.0 < came_s < times["back"] and one.degraded
    ]
    assert between
    assert all("serves the model with hash" in reason for reason in between)


def test_another_shape_in_its_place(served, host, tmp_path) -> None:
    other = served.copy(tmp_path / "other")
    config = other / "large/config.pbtxt"
    config.write_text(config.read_text().replace("3, 16, 16", "3, 16, 17"))

    def swap(path) -> None:
        host.kill()
        host.repository = path
        host.start()

    steps = [("swap", 1.0, lambda: swap(other)), ("back", 1.5, lambda: swap(served.path))]
    run, times = run_through(served, host, steps)
    check(run, times["back done"], faulty_from_s=times["swap"])
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
        run, times = run_through(served, host, steps)
    finally:
        model.write_text(kept)
    check(run, times["heal done"], faulty_from_s=times["nan"])


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

    run, times = run_through(served, host, [("babble", 1.0, start), ("heal", 1.5, heal)])
    check(run, times["heal done"], faulty_from_s=times["babble"])


def test_revisions_are_final_and_single(served, host) -> None:
    steps = [("kill", 1.0, host.kill), ("heal", 1.0, host.start)]
    run, _ = run_through(served, host, steps, escalation="revise")
    by_frame: dict[int, list[Decision]] = {}
    for _, decision in run.decisions:
        by_frame.setdefault(decision.frame_id.sequence, []).append(decision)
    assert sorted(by_frame) == list(range(len(run.taken_s)))
    for decisions in by_frame.values():
        assert [one.revision for one in decisions] in ([0], [0, 1])
        provisional = decisions[0].degraded and decisions[0].degraded.startswith("provisional")
        assert len(decisions) == (2 if provisional else 1)
