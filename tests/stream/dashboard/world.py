"""A dashboard over five minutes of a stream that a clock of ours has let pass."""

from __future__ import annotations

import cv2
import numpy as np

from tests.stream.decisions import decision, escalated
from tinysaver_edge.decision import AnswerSource, ModelIdentity
from tinysaver_edge.engines.remote.traffic import HostState, State, Traffic
from tinysaver_edge.stream.dashboard import DashboardState
from tinysaver_edge.stream.drift.drift import DriftState
from tinysaver_edge.stream.sources.source import Frame
from tinysaver_edge.stream.telemetry.events import Connected, Drift, Lost, Reconnected
from tinysaver_edge.stream.telemetry.health import Health
from tinysaver_edge.stream.telemetry.metrics import AllMetrics, Counter, Gauge, Measure
from tinysaver_edge.stream.telemetry.promise import Promise
from tinysaver_edge.testing import FakeClock

CALM = DriftState(214, 5, 0.031, 0.021, 0, None, True)
ALARM = DriftState(
    1259, 31, 0.031, 1.7, 2, 0.9125, True, "12 of 40 audited answers of yard differed"
)
PROMISE = Promise(certified_points=0.5, measured_points=0.2, gain_points=40.0)
RATE_HZ = 15


class Hosts:
    """What the dashboard asks of a `RemoteEngine`: two hosts, one of which has been away."""

    traffic = Traffic(1204, 1187, 9, 31, 181_000_000, 4_900_000, {"unreachable": 26})
    hosts = (
        HostState(
            "grpcs://gpu-1.plant.example:8001/large", State.CLOSED, True, 901, 0, 21.4,
            ModelIdentity("grpcs://gpu-1.plant.example:8001/large", "3", "5f" * 32),
        ),
        HostState("grpcs://gpu-2.plant.example:8001/large", State.OPEN, False, 286, 2, 38.0, None),
    )  # fmt: skip


def picture(number: int, *, width: int = 640, height: int = 360) -> np.ndarray:
    """A disc that moves over a gradient."""
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(60, 190, width, dtype=np.uint8)
    image[..., 1] = np.linspace(160, 70, height, dtype=np.uint8)[:, None]
    image[..., 2] = 90
    centre = (40 + 7 * number % (width - 80), height // 2)
    return cv2.circle(image, centre, 36, (240, 240, 250), -1, cv2.LINE_AA)


class World:
    """The state and what feeds it."""

    def __init__(self, *, drift: DriftState | None = CALM, hosts=None) -> None:
        self.clock = FakeClock(1000.0)
        self.health = Health(clock=self.clock)
        self.state = DashboardState(
            clock=self.clock,
            health=self.health,
            drift=lambda: drift,
            promise=lambda: PROMISE,
            hosts=hosts,
        )
        self.metrics = AllMetrics(self.state, self.health)
        self.numbers = {"door": 0, "yard": 0}
        self._rng = np.random.default_rng(4)

    def tell(self, event) -> None:
        self.state(event)
        self.health(event)

    def start(self) -> None:
        self.health.started()
        for name in self.numbers:
            self.tell(Connected(name, self.clock.now_s))

    def frame(self, name: str) -> None:
        """One frame's way through the stream."""
        number = self.numbers[name]
        self.numbers[name] += 1
        self.metrics.count(Counter.FRAMES, name)
        wants = self.state.wants_frames
        given = Frame(picture(number), self.clock.now_s, number, name) if wants else None
        drawn = self._rng.random()
        if drawn < 0.72:
            one, age = decision(number, source_id=name, label="nine-volt battery"), 4.0
        elif drawn < 0.95:
            one = escalated(number, source_id=name, label="pomegranate", source=AnswerSource.FUSED)
            age = 60.0
        else:
            late = "big had not answered within 200 ms"
            one = escalated(
                number, source_id=name, source=AnswerSource.FALLBACK, degraded=late, certified=False
            )
            age = 200.0
        age *= float(self._rng.lognormal(0, 0.25))
        self.metrics.measure(Measure.AGE_MS, name, age, detail=one.source.value)
        self.metrics.count(Counter.DECISIONS, name, detail=one.source.value)
        self.metrics.gauge(Gauge.IN_FLIGHT, "", 2)
        self.state.write(one, given)

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * RATE_HZ)):
            for name in self.numbers:
                self.frame(name)
            self.clock.advance(1 / RATE_HZ)


def five_minutes(*, drift: DriftState | None = CALM, hosts=None) -> World:
    """A stream that has had a loss and, perhaps, an alarm."""
    world = World(drift=drift, hosts=hosts)
    world.start()
    world.run(150)
    world.tell(Lost("yard", world.clock.now_s, "no frame for 3 s"))
    world.clock.advance(12)
    world.tell(Reconnected("yard", world.clock.now_s, 12.0, 3))
    world.run(110)
    if drift is ALARM:
        raised = "threshold raised to 0.9125"
        world.tell(Drift("yard", world.clock.now_s, 40, 12, 130.0, 120.0, 0.05, raised))
    world.run(20)
    return world
