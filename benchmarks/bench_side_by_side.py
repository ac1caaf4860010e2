"""Saver and large model at work at the same time, in one process, with one thread each.

    python benchmarks/bench_side_by_side.py [--rounds 5] [--seconds 2]

The ImageNet pair on OpenVINO: inferences a second of each alone, and of both at once from two
threads; with the engine's settings, and with OpenVINO's own, which bind the threads of every model
to the same first cores. On a machine with two cores to spare, both at once should be as quick as
each alone. Medians of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from imagenet import save, table
from pair import LARGE, SAVER, artefacts, need_data, stage_of

from tinysaver_edge.deciding.policy import StagePolicy

NAMES = (SAVER, LARGE)


def rate(ask: Callable[[], object], seconds: float) -> float:
    """Return how often a second it can be called."""
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        ask()
        count += 1
    return count / (time.perf_counter() - begun)


def at_once(asks: list[Callable[[], object]], seconds: float) -> list[float]:
    """Return the rates of several, each in a thread of its own."""
    found = [0.0] * len(asks)

    def go_on(place: int) -> None:
        found[place] = rate(asks[place], seconds)

    threads = [threading.Thread(target=go_on, args=(place,)) for place in range(len(asks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def bound(model: Path, batch: np.ndarray) -> Callable[[], object]:
    """Return what runs a model as OpenVINO compiles it by itself for one thread."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}  # fmt: skip
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer({0: batch})


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    asked = parser.parse_args()
    need_data()
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        made = artefacts(Path(folder))
        stages = [stage_of(made[name], StagePolicy(name), 1) for name in NAMES]
        ways = {
            "the engine's": [partial(stage.ask, stage.blank) for stage in stages],
            "OpenVINO's own": [
                bound(made[name].files[0], stage.blank)
                for name, stage in zip(NAMES, stages, strict=True)
            ],
        }
        for _ in range(asked.rounds):
            for way, asks in ways.items():
                alone = [rate(ask, asked.seconds) for ask in asks]
                found.setdefault(f"{way}, alone", []).append(alone)
                together = at_once(asks, asked.seconds)
                found.setdefault(f"{way}, both at once", []).append(together)
        for stage in stages:
            stage.close()
    rows = [
        (way, *(f"{statistics.median(column):.0f}" for column in zip(*rates, strict=True)))
        for way, rates in found.items()
    ]
    text = "Inferences a second.\n\n" + table(("settings", *NAMES), rows)
    save("bench_side_by_side", title="Two models at work at once", text=text, figures=found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
