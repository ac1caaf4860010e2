"""Throughput: how many frames a second a model answers when several are on their way at once."""

from __future__ import annotations

import math
import os
import threading
import time
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from tinysaver_edge._support.packages import import_engine
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.timing import Clock
from tinysaver_edge.engines.base import Precision
from tinysaver_edge.errors import EngineError
from tinysaver_edge.hardware.cpu import read_cpu
from tinysaver_edge.preprocess import Batch

_HINTS = MappingProxyType(
    {Precision.FLOAT32: "f32", Precision.FLOAT16: "f16", Precision.BFLOAT16: "bf16"}
)

_WARM_UP = 4
"""Runs of each request before the count begins."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """What a model answers when it is kept busy.

    Attributes:
        frames_per_s: answers a second, one frame each.
        parallel: how many frames were on their way at once.
        how: in which way.
    """

    frames_per_s: float
    parallel: int
    how: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)


def measure_throughput(
    artefact: Artefact, *, seconds: float, clock: Clock = time.perf_counter
) -> Throughput:
    """Keep a model busy for some seconds.

    With OpenVINO by its own queue, of as many requests as it holds best, compiled for throughput;
    with every other engine by one engine a thread, each on one thread of its own.

    Raises:
        EngineError: the model cannot be run so.
    """
    batch = np.zeros(artefact.preprocess.shape(1), np.dtype(artefact.preprocess.format.dtype))
    if artefact.engine == "openvino":
        return _openvino(artefact, batch, seconds=seconds, clock=clock)
    return _threads(artefact, batch, seconds=seconds, clock=clock)


def _openvino(artefact: Artefact, batch: Batch, *, seconds: float, clock: Clock) -> Throughput:
    from tinysaver_edge.engines.openvino import open_core, read_model

    core = open_core()
    options = artefact.options
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": _HINTS[options.precision],
    }
    if options.threads is not None:
        settings["INFERENCE_NUM_THREADS"] = options.threads
    device = options.device or "CPU"
    try:
        openvino = import_engine("openvino")
        graph = read_model(core, artefact.files[0])
        queue = openvino.AsyncInferQueue(core.compile_model(graph, device, settings))
        requests = len(queue)
        inputs = {0: batch}
        for _ in range(_WARM_UP * requests):
            queue.start_async(inputs, share_inputs=True)
        queue.wait_all()
        frames, started = 0, clock()
        while clock() - started < seconds:
            queue.start_async(inputs, share_inputs=True)
            frames += 1
        queue.wait_all()
    except RuntimeError as error:
        raise EngineError(
            f"{artefact.name}: openvino cannot run it on {device} for throughput: {error}"
        ) from error
    return Throughput(frames / (clock() - started), requests, "requests of OpenVINO's async queue")


def _threads(artefact: Artefact, batch: Batch, *, seconds: float, clock: Clock) -> Throughput:
    workers = _workers(artefact)
    alone = replace(artefact, options=replace(artefact.options, threads=1))
    counts, failures = [0] * workers, list[BaseException]()
    ready = threading.Barrier(workers + 1)

    def work(number: int) -> None:
        try:
            with alone.open() as engine:
                for _ in range(_WARM_UP):
                    engine.infer(batch)
                ready.wait()
                end = clock() + seconds
                while clock() < end:
                    engine.infer(batch)
                    counts[number] += 1
        except BaseException as error:
            failures.append(error)
            ready.abort()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    try:
        ready.wait()
        started = clock()
    except threading.BrokenBarrierError:
        started = clock()
    for thread in threads:
        thread.join()
    told = [one for one in failures if not isinstance(one, threading.BrokenBarrierError)]
    if told:
        raise told[0]
    return Throughput(sum(counts) / (clock() - started), workers, "threads with an engine each")


def _workers(artefact: Artefact) -> int:
    """Return one a usable processor; two where another device does the work."""
    device = (artefact.options.device or "CPU").lower()
    if not device.startswith("cpu"):
        return 2
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:
        processors = os.cpu_count() or 1
    cpu = read_cpu()
    return max(1, min(processors, math.floor(cpu.usable) if cpu is not None else processors))
