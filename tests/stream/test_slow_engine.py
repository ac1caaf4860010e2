"""A real large model that takes several frames' time: the saver's answers do not wait for it."""

import statistics
import time

import numpy as np
import pytest

from tests.colours import COLOURS, NAMES, OUTPUT, SAVER, Kind, colour_model
from tests.stream.test_pipeline import numbers
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.decision import AnswerSource
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.engines.registry import create_engine
from tinysaver_edge.preprocess import ColorOrder, InputFormat, Layout, Preprocess, Resize
from tinysaver_edge.score import Margin
from tinysaver_edge.stream.sources.live import LiveSource
from tinysaver_edge.stream.telemetry.metrics import Gauge, Tally

FPS, FRAMES = 30.0, 120
SLOW = Kind(layers=1000, size=192)


class Camera:
    """Pictures of one colour after the other, every second one hard to tell, 30 a second."""

    live_wait_s = None

    def connect(self, options, stopping):
        self._number, self._next_s = 0, time.monotonic()
        return self

    def read(self, into):
        if self._number == FRAMES:
            return None
        self._next_s += 1 / FPS
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        self._number += 1
        colour = COLOURS[self._number % len(NAMES)]
        if self._number % 5 < 2:  # half-way to the next: 40 %
            colour = (colour + COLOURS[(self._number + 1) % len(NAMES)]) / 2
        picture = np.empty((240, 320, 3), np.uint8)
        picture[:] = 255 * colour[::-1]
        return picture

    def close(self):
        pass


class Peak(Tally):
    """Remembers how many frames waited at most."""

    most = 0.0

    def gauge(self, gauge, source_id, value):
        super().gauge(gauge, source_id, value)
        if gauge is Gauge.IN_FLIGHT:
            self.most = max(self.most, value)


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow")

    def stage(name, kind, policy):
        how = Preprocess(
            Resize(kind.size, kind.size),
            InputFormat(Layout.NCHW, "float32", ColorOrder.RGB, (1 / 255,), (0.0,)),
        )
        engine = create_engine(
            "onnxruntime",
            colour_model(folder / f"{name}.onnx", kind),
            preprocess=how,
            output=OUTPUT,
            options=EngineOptions(threads=1),
        )
        return Stage(engine, preprocess=how, policy=policy)

    stages = [
        stage("saver", SAVER, StagePolicy("saver", score=Margin(), threshold=0.9)),
        stage("large", SLOW, StagePolicy("large")),
    ]
    with Cascade(stages) as one:
        yield one


@pytest.mark.slow
@pytest.mark.parametrize("escalation", ["revise", "wait"])
def test_a_camera_while_the_large_model_is_slow(cascade, escalation):
    large = cascade.stages[1]
    spent = []
    for _ in range(3):
        started = time.monotonic()
        large.warm_up()
        spent.append(time.monotonic() - started)
    slow_s = statistics.median(spent)
    assert slow_s > 2 / FPS, "the large model is too quick for this test"
    tally = Peak()
    came = []
    stream = cascade.stream(
        LiveSource(Camera(), source_id="camera"),
        escalation=escalation,
        deadline_ms=150,
        max_in_flight=3,
        metrics=tally,
    )
    for one in stream:
        came.append((one, time.monotonic() - one.timestamp_s))
    first = [one for one, _ in came if not one.revision]
    assert numbers(first) == sorted(set(numbers(first)))
    assert len(first) > 0.7 * FRAMES  # behind the large model it would be half of them
    assert tally.most <= 3
    accepted = sorted(age for one, age in came if one.source is AnswerSource.SAVER)
    assert len(accepted) > 0.4 * FRAMES
    if escalation == "revise":
        assert accepted[int(0.9 * len(accepted))] < 0.5 * slow_s
        revised = [one.frame_id for one, _ in came if one.revision]
        assert len(revised) == len(set(revised)) > 10
    final = {one.frame_id: age for one, age in came}
    assert max(final.values()) < 0.150 + 0.3
