"""Time one call again and again (at least N runs and T seconds), and weigh what it holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge.errors import InputError
from tinysaver_edge.hardware.finding import ROOT, fields, read
from tinysaver_edge.latency import LatencySamples
from tinysaver_edge.preprocess import Frame

if TYPE_CHECKING:
    from tinysaver_edge.deciding.stage import Stage


def resident_mb(root: Path = ROOT) -> float | None:
    """Return what the process holds in main memory now, in MiB; None where nobody tells."""
    return _status(root, "VmRSS")


def peak_mb(root: Path = ROOT) -> float | None:
    """Return the most that it ever held, in MiB; None where nobody tells."""
    return _status(root, "VmHWM")


def _status(root: Path, name: str) -> float | None:
    words = fields(read(root, "proc/self/status") or "").get(name, "").split()
    return int(words[0]) / 1024 if len(words) == 2 and words[0].isdigit() else None


Clock = Callable[[], float]
"""Seconds from any fixed point, never going back."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        warm_up: runs that do not count.
        min_runs: runs that count, at least.
        min_seconds: seconds that these take, at least.
        max_seconds: when to stop, warm-up included, however few runs there were; there is always
            one that counts.
        pause_s: seconds of idleness before each run that counts. Runs one on the heels of the
            other are quicker than those of a camera, between which caches and threads cool down.
    """

    warm_up: int = 10
    min_runs: int = 50
    min_seconds: float = 0.5
    max_seconds: float = 30.0
    pause_s: float = 0.0

    def __post_init__(self) -> None:
        if self.warm_up < 0 or self.min_runs < 1:
            raise InputError(
                f"{self.warm_up} runs of warm-up and {self.min_runs} to measure: "
                "at least 0 and 1 are needed"
            )
        if not 0 <= self.min_seconds <= self.max_seconds:
            raise InputError(
                f"to measure from {self.min_seconds} to {self.max_seconds} seconds: "
                "the first must not exceed the second, nor be negative"
            )
        if not 0 <= self.pause_s < float("inf"):
            raise InputError(f"pause of {self.pause_s} seconds between runs: must be 0 or more")


DEFAULT_EFFORT = Effort()
"""Enough for a p95 of a quiet machine; a large model may take 30 seconds."""


def measure(
    run: Callable[[], object],
    *,
    clock: Clock = time.perf_counter,
    warm_up: int = DEFAULT_EFFORT.warm_up,
    min_runs: int = DEFAULT_EFFORT.min_runs,
    min_seconds: float = DEFAULT_EFFORT.min_seconds,
    max_seconds: float = DEFAULT_EFFORT.max_seconds,
    pause_s: float = DEFAULT_EFFORT.pause_s,
    sleep: Callable[[float], object] = time.sleep,
) -> LatencySamples:
    """Time a call.

    Args:
        run: what is timed; what it returns is dropped.
        clock: seconds; read right before and right after each run that counts.
        warm_up: as for `Effort`; cut short when half of ``max_seconds`` is gone.
        min_runs: as for `Effort`.
        min_seconds: as for `Effort`.
        max_seconds: as for `Effort`.
        pause_s: as for `Effort`.
        sleep: idles for so many seconds.

    Raises:
        InputError: the numbers contradict each other.
    """
    effort = Effort(warm_up, min_runs, min_seconds, max_seconds, pause_s)
    begun = clock()
    for _ in range(effort.warm_up):
        run()
        if clock() - begun >= effort.max_seconds / 2:
            break
    samples: list[float] = []
    counted = clock()
    while True:
        if effort.pause_s:
            sleep(effort.pause_s)
        started = clock()
        run()
        ended = clock()
        samples.append((ended - started) * 1e3)
        enough = len(samples) >= effort.min_runs and ended - counted >= effort.min_seconds
        if enough or ended - begun >= effort.max_seconds:
            return LatencySamples(np.array(samples))


def measure_with(
    effort: Effort, run: Callable[[], object], *, clock: Clock = time.perf_counter
) -> LatencySamples:
    """Time a call for as long as an `Effort` says; see `measure`."""
    return measure(
        run,
        clock=clock,
        warm_up=effort.warm_up,
        min_runs=effort.min_runs,
        min_seconds=effort.min_seconds,
        max_seconds=effort.max_seconds,
        pause_s=effort.pause_s,
    )


def measure_stage(
    stage: Stage,
    frame: Frame,
    *,
    clock: Clock = time.perf_counter,
    effort: Effort = DEFAULT_EFFORT,
) -> LatencySamples:
    """Time one stage on a frame as a cascade runs it: resize, model, score.

    Args:
        stage: the stage; nothing else may use it meanwhile.
        frame: ``(height, width, 3)`` BGR uint8, of the size that the device will see.
        clock: seconds.
        effort: how long to measure.

    Raises:
        InputError: the frame is of another shape or type.
        EngineError: the model fails.
    """
    score = stage.policy.score

    def run() -> None:
        outputs = stage.ask(stage.prepare(frame))
        if score is not None:
            score(outputs)

    return measure_with(effort, run, clock=clock)
