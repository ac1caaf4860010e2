"""Sustained: does it get slower while it runs on, as a processor does that gets hot?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinysaver_edge.bench.timing import Clock
from tinysaver_edge.errors import InputError
from tinysaver_edge.hardware.system_files import ROOT
from tinysaver_edge.hardware.thermal import temperatures_c
from tinysaver_edge.latency import LatencySamples

WINDOW = 0.1
"""Share of the time that the first and the last window take."""


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
