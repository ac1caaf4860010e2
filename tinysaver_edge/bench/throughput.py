"""What a model that is kept busy does: frames a second, in batches as well, energy, a long run."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tinysaver_edge._support.packages import import_engine
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.timing import Clock, Effort, measure_with
from tinysaver_edge.engines.base import Precision
from tinysaver_edge.engines.batching import SIZES, SLOW_S
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.hardware.cpu import read_cpu, temperatures_c
from tinysaver_edge.hardware.energy import EnergyMeter, Metering, total
from tinysaver_edge.hardware.finding import ROOT
from tinysaver_edge.latency import LatencySamples
from tinysaver_edge.preprocess import Batch

WINDOW = 0.1
"""Share of the time that the first and the last window take."""

_HINTS = MappingProxyType(
    {Precision.FLOAT32: "f32", Precision.FLOAT16: "f16", Precision.BFLOAT16: "bf16"}
)

ENERGY_S = 1.0
"""So long energy is counted at least: some counters are brought up to date ten times a second."""

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


@dataclass(frozen=True, slots=True)
class InferenceEnergy:
    """What one frame takes of energy, while a model is asked about one after the other.

    Attributes:
        mj: millijoules a frame by the counters, what the machine takes when idle included.
        idle_w: watts by the same counters just before, with nothing to do.
        source: which counters were read.
        runs: how many frames that were.
        seconds: how long they took.
    """

    mj: float
    idle_w: float
    source: str
    runs: int
    seconds: float

    @property
    def above_idle_mj(self) -> float:
        """Millijoules a frame beyond what the machine takes when idle."""
        return self.mj - 1e3 * self.idle_w * self.seconds / self.runs

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self) | {"above_idle_mj": self.above_idle_mj}


def measure_energy(
    run: Callable[[], object],
    meters: Sequence[EnergyMeter],
    *,
    seconds: float = ENERGY_S,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> InferenceEnergy | None:
    """Idle, then run something over and over, and read the counters; None where there are none.

    Args:
        run: what is measured; it should be warm.
        meters: counters of the machine.
        seconds: how long to idle and to run, each.
        clock: seconds.
        sleep: idles for so many seconds.
    """
    if not meters:
        return None
    with Metering(meters, clock=clock) as idle:
        sleep(seconds)
    runs, started = 0, clock()
    with Metering(meters, clock=clock) as busy:
        while clock() - started < seconds or not runs:
            run()
            runs += 1
    before, used = total(idle.used), total(busy.used)
    assert before is not None
    assert used is not None
    return InferenceEnergy(1e3 * used.joules / runs, before.watts, used.source, runs, used.seconds)


def measure_batches(
    infer: Callable[[Batch], object], sample: Batch, *, effort: Effort, clock: Clock
) -> dict[int, LatencySamples]:
    """Time batches of each size that a host may run at once, one frame first.

    Args:
        infer: runs a batch of any length.
        sample: a batch of one.
        effort: how long to measure each.
        clock: seconds.

    Returns:
        How long a call takes by its size; of one that is slow alone, of which hosts make no
        batches, of no other size.
    """
    found: dict[int, LatencySamples] = {}
    for size in (1, *SIZES):
        batch = np.repeat(sample, size, axis=0)
        found[size] = measure_with(effort, partial(infer, batch), clock=clock)
        if found[1].median_ms > 1e3 * SLOW_S:
            break
    return found


@dataclass(frozen=True, slots=True)
class Sustained:
    """A long run's first and last part.

    Attributes:
        seconds: how long it ran.
        runs: how many runs that were.
        first: the runs of the first window.
        last: those of the last.
        start_c: the hottest zone before, in degrees Celsius; None where none tells.
        end_c: the hottest zone after.
    """

    seconds: float
    runs: int
    first: LatencySamples
    last: LatencySamples
    start_c: float | None
    end_c: float | None

    @property
    def drift(self) -> float:
        """How much longer a run takes in the end, at the median: 0.1 is a tenth longer."""
        return self.last.median_ms / self.first.median_ms - 1

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "seconds": self.seconds,
            "runs": self.runs,
            "drift": self.drift,
            "first": self.first.summary(),
            "last": self.last.summary(),
            "start_c": self.start_c,
            "end_c": self.end_c,
        }


def sustain(
    run: Callable[[], object],
    *,
    seconds: float,
    clock: Clock = time.perf_counter,
    root: Path = ROOT,
) -> Sustained:
    """Run something over and over.

    Args:
        run: what is timed; it should be warm.
        seconds: how long.
        clock: seconds.
        root: folder that stands for ``/``, for temperatures.

    Raises:
        InputError: the time is not above 0.
    """
    if not seconds > 0:
        raise InputError(f"to sustain for {seconds} seconds: must be above 0")
    start_c = _hottest(root)
    ends: list[float] = []
    took: list[float] = []
    begun = clock()
    while not ends or ends[-1] < seconds:
        started = clock()
        run()
        ended = clock()
        took.append((ended - started) * 1e3)
        ends.append(ended - begun)
    end, samples = np.array(ends), np.array(took)
    window = WINDOW * end[-1]
    early, late = end <= window, end > end[-1] - window
    early[0] = late[-1] = True
    return Sustained(
        seconds=float(end[-1]),
        runs=len(took),
        first=LatencySamples(samples[early]),
        last=LatencySamples(samples[late]),
        start_c=start_c,
        end_c=_hottest(root),
    )


def _hottest(root: Path) -> float | None:
    return max(temperatures_c(root).values(), default=None)
