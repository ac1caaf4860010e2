"""Frames through a cascade while its host fails, and what must then hold of their decisions.

Four things: every frame has exactly one final decision, in its order; it comes within the deadline
and 5 ms; what the large model could not answer is said to be the saver's; and two seconds after the
host is back the large model answers again.

A thread that does nothing but wait tells how late this machine wakes whoever waits. What it loses
from one frame's deadline to its answer, for each thread that hands the answer on, is added to that
frame's 5 ms. It is a thread of this process: what Python's own lock holds up counts as the
machine's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.colours import NAMES, colour_picture
from tests.remote.hosts import remote
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.decision import Decision, Reason
from tinysaver_edge.engines.remote import RemoteModel
from tinysaver_edge.engines.remote.traffic import Traffic

RATE_HZ = 40.0
DEADLINE_S = 0.4
GRACE_S = 0.005
HANDS = 3  # whoever keeps the deadlines, gives decisions out, takes them
RECOVERY_S = 2.0
TICK_S = 0.005

Step = tuple[str, float, Callable[[], object]]
"""A name, the seconds before it, and what is then done."""


class Lateness:
    """How late this machine wakes a thread that waits, and when."""

    def __init__(self) -> None:
        self._late: list[tuple[float, float, float]] = []

    def measure(self, ending: threading.Event) -> None:
        """Wait again and again; for a thread of its own."""
        condition = threading.Condition()
        while not ending.is_set():
            started_s = time.monotonic()
            with condition:
                condition.wait(TICK_S)
            woken_s = time.monotonic()
            self._late.append((started_s, woken_s, woken_s - started_s - TICK_S))

    def lost_s(self, since_s: float, until_s: float) -> float:
        """Return by how much waits that touch a span of time came back late, in seconds."""
        return sum(
            late_s
            for started_s, woken_s, late_s in self._late
            if woken_s >= since_s and started_s <= until_s
        )


@contextmanager
def measured_lateness() -> Iterator[Lateness]:
    lateness, ending = Lateness(), threading.Event()
    thread = threading.Thread(target=lateness.measure, args=(ending,), daemon=True)
    thread.start()
    try:
        yield lateness
    finally:
        ending.set()
        thread.join()


@dataclass
class Run:
    """What became of the frames.

    Attributes:
        taken_s: when each frame was taken.
        decisions: every decision, and when it came.
        times: when each step was begun (its name) and had been done (``"NAME done"``).
        lateness: the machine's.
        traffic: the large model's.
    """

    taken_s: list[float] = field(default_factory=list)
    decisions: list[tuple[float, Decision]] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    lateness: Lateness = field(default_factory=Lateness)
    traffic: Traffic | None = None

    @property
    def final(self) -> list[tuple[float, Decision]]:
        """The decisions that no revision follows."""
        return [
            (came_s, one) for came_s, one in self.decisions if one.reason is not Reason.PROVISIONAL
        ]


def limits(url: str | list[str], **more) -> RemoteModel:
    """Return the remote model of the tests, whose time-out is the frames' deadline."""
    return remote(url, **{"timeout_s": DEADLINE_S, "probe_s": 0.25, **more})


def run_through(
    bundle: Path, large: RemoteModel, steps: Sequence[Step], *, escalation: str = "wait"
) -> Run:
    """Stream frames while steps are taken, one after the other; the last one is the healing.

    Frames go on until `RECOVERY_S` and a second have passed since it was done.
    """
    run, over = Run(), threading.Event()

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
                run.times[name] = time.monotonic()
                action()
                run.times[f"{name} done"] = time.monotonic()
            time.sleep(RECOVERY_S + 1)
        finally:
            over.set()

    with Cascade.load(bundle, large=large) as cascade, measured_lateness() as run.lateness:
        actor = threading.Thread(target=act)
        actor.start()
        for decision in cascade.stream(
            frames(), escalation=escalation, deadline_ms=DEADLINE_S * 1e3, max_in_flight=4
        ):
            run.decisions.append((time.monotonic(), decision))
        actor.join()
        run.traffic = cascade.stages[-1].engine.traffic
    return run


def check(run: Run, *, faulty_from: str, healed: str) -> None:
    """Hold a run against the four.

    Args:
        run: what became of the frames.
        faulty_from: the step from which on frames may be degraded.
        healed: the step after which the host is well again.
    """
    sequences = [decision.frame_id.sequence for _, decision in run.decisions]
    assert sequences == list(range(len(run.taken_s)))
    in_time(run)
    degraded = [(came_s, one) for came_s, one in run.decisions if one.degraded]
    assert degraded, "nothing failed"
    assert all(one.source == "fallback" and not one.certified for _, one in degraded)
    for came_s, one in degraded:
        taken_s = run.taken_s[one.frame_id.sequence]
        before = taken_s < run.times[faulty_from] - DEADLINE_S
        assert not before or run.lateness.lost_s(taken_s, came_s) > DEADLINE_S / 4, one.degraded
    recovered(run, run.times[f"{healed} done"])


def in_time(run: Run) -> None:
    """Every final decision came within the deadline and `GRACE_S`; of a hundred one within 3."""
    worst, spare = (float("-inf"), 0.0), len(run.final) // 100
    for came_s, decision in run.final:
        due_s = run.taken_s[decision.frame_id.sequence] + DEADLINE_S
        late_s = came_s - due_s
        lost_s = run.lateness.lost_s(due_s, came_s) if late_s > 0 else 0.0
        worst = max(worst, (late_s, lost_s))
        allowed_s = GRACE_S + HANDS * lost_s
        if allowed_s < late_s <= allowed_s + 2 * GRACE_S and spare:
            spare -= 1  # what no thread was awake to see
            continue
        assert late_s <= allowed_s, (
            f"frame {decision.frame_id.sequence}: {late_s * 1e3:.1f} ms after its deadline, and "
            f"the machine woke whoever waited {lost_s * 1e3:.1f} ms late"
        )
    print(
        f"{len(run.taken_s)} frames, the last answer at deadline {worst[0] * 1e3:+.1f} ms, the "
        f"machine {worst[1] * 1e3:.1f} ms late then"
    )


def recovered(run: Run, healed_s: float) -> None:
    """The large model answers within `RECOVERY_S`, and from then on as a rule."""
    asked = [(came_s, one) for came_s, one in run.final if one.escalated and came_s > healed_s]
    answered = [came_s - healed_s for came_s, one in asked if one.degraded is None]
    assert answered, "the large model was not asked again"
    print(f"the large model answered again after {answered[0]:.2f} s")
    assert answered[0] <= RECOVERY_S
    later = [
        one.degraded is None
        for _, one in asked
        if run.taken_s[one.frame_id.sequence] > healed_s + RECOVERY_S
    ]
    assert sum(later) > len(later) / 2
