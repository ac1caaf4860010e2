"""The worker engine: the same answers from another process, and what happens when it dies."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

from tests.colours import NAMES, OUTPUT, PREPROCESS, SAVER, colour_model, colour_picture
from tests.small_bundle import small_bundle
from tests.waiting import wait_until
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.engines.registry import create_engine
from tinysaver_edge.engines.worker import Setup, WorkerEngine
from tinysaver_edge.errors import EngineError, ModelError
from tinysaver_edge.preprocess import Preprocessor

pytest.importorskip("onnxruntime")

FRAMES = [colour_picture(number % len(NAMES), number) for number in range(30)]


def setup_of(path, **options) -> Setup:
    return Setup("onnxruntime", path, PREPROCESS, OUTPUT, EngineOptions(threads=1, **options))


@pytest.fixture
def model(tmp_path):
    return colour_model(tmp_path / "model.onnx", SAVER)


def test_answers_are_those_of_the_engine_itself(model) -> None:
    batch = Preprocessor(PREPROCESS).batch(FRAMES)
    with (
        WorkerEngine(setup_of(model)) as worker,
        create_engine(
            "onnxruntime", model, preprocess=PREPROCESS, output=OUTPUT,
            options=EngineOptions(threads=1),
        ) as here,
    ):  # fmt: skip
        np.testing.assert_array_equal(worker.infer(batch), here.infer(batch))
        assert worker.pid not in (None, os.getpid())
        assert worker.device == here.device
        pid = worker.pid
    assert worker.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    worker.close()


def test_errors_of_opening_are_the_engines_own(tmp_path, model) -> None:
    with pytest.raises(ModelError, match="no such file"):
        WorkerEngine(setup_of(tmp_path / "none.onnx"))
    with pytest.raises(EngineError, match="TensorrtExecutionProvider"):
        WorkerEngine(setup_of(model, device="tensorrt"))


def test_a_worker_that_is_killed_comes_back(model) -> None:
    batch = Preprocessor(PREPROCESS).batch(FRAMES[:1])
    with WorkerEngine(setup_of(model)) as worker:
        expected = worker.infer(batch).copy()
        first = worker.pid
        os.kill(first, signal.SIGKILL)
        with pytest.raises(EngineError, match=r"its worker died \(SIGKILL\)"):
            worker.infer(batch)
        wait_until(lambda: worker.pid is not None)
        assert worker.pid != first
        np.testing.assert_array_equal(worker.infer(batch), expected)


def test_a_worker_that_hangs_is_killed_in_time(model) -> None:
    batch = Preprocessor(PREPROCESS).batch(FRAMES[:1])
    with WorkerEngine(setup_of(model), timeout_s=0.3) as worker:
        worker.infer(batch)
        first = worker.pid
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(EngineError, match=r"did not answer within 0\.3 s"):
            worker.infer(batch)
        with pytest.raises(EngineError, match="not back yet"):
            worker.infer(batch)
        wait_until(lambda: worker.pid is not None)
        worker.infer(batch)


def test_it_is_not_started_again_for_ever(model) -> None:
    batch = Preprocessor(PREPROCESS).batch(FRAMES[:1])
    with WorkerEngine(setup_of(model), restarts=1, window_s=3600) as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(EngineError):
            worker.infer(batch)
        wait_until(lambda: worker.pid is not None)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="died"):
            worker.infer(batch)
        time.sleep(0.5)
        assert worker.pid is None
        with pytest.raises(EngineError, match="not back yet"):
            worker.infer(batch)


def test_frames_go_on_while_it_is_away(tmp_path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    with Cascade.load(bundle) as here:
        expected = [here.decide(frame) for frame in FRAMES]
    with Cascade.load(bundle, large_worker=True) as cascade:
        worker = cascade.stages[-1].engine
        answers = [cascade.decide(frame) for frame in FRAMES]
        assert [(one.index, one.source) for one in answers] == [
            (one.index, one.source) for one in expected
        ]
        os.kill(worker.pid, signal.SIGKILL)
        away = [cascade.decide(frame) for frame in FRAMES]
        assert [bool(one.degraded) for one in away[:10]] == [one.escalated for one in expected[:10]]
        wait_until(lambda: worker.pid is not None)
        back = [cascade.decide(frame) for frame in FRAMES]
        assert not any(one.degraded for one in back)
    wait_until(lambda: not [one for one in threading.enumerate() if one.name == "worker-restart"])


def test_no_module_that_lies_where_the_user_stands_is_run(model, tmp_path, monkeypatch) -> None:
    for name in ("re", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger')")
    monkeypatch.chdir(tmp_path)
    with WorkerEngine(setup_of(model)) as worker:
        assert worker.infer(Preprocessor(PREPROCESS).batch(FRAMES[:1])).shape == (1, len(NAMES))
