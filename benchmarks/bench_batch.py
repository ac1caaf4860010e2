"""Whether a saver is quicker on several cameras' frames at once than on one after the other.

    python benchmarks/bench_batch.py

Milliseconds a frame, of the ImageNet saver on OpenVINO, with one thread and with its own number,
and of the demo's saver on ONNX Runtime, at several batch sizes, one after the other. A stream of
several sources times the same three sizes when it starts: the last column is what it then does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_soak import demo_cascade
from imagenet import save, table
from pair import SAVER, artefacts, need_data, stage_of

from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.engines.batching import SIZES as TRIED
from tinysaver_edge.engines.batching import quickest_size

SIZES = (1, *TRIED)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=100)
    asked = parser.parse_args()
    need_data()
    with tempfile.TemporaryDirectory() as name, demo_cascade() as demo:
        made = artefacts(Path(name))[SAVER]
        stages = {
            f"{SAVER}, OpenVINO, 1 thread": stage_of(made, StagePolicy(SAVER), 1),
            f"{SAVER}, OpenVINO": stage_of(made, StagePolicy(SAVER), None),
            "the demo's saver, ONNX Runtime": demo.stages[0],
        }
        found = {one: times_ms(stage, asked.turns) for one, stage in stages.items()}
        chosen = {one: quickest_size(stage.ask, stage.blank) for one, stage in stages.items()}
        for stage in stages.values():
            stage.close()
    rows = [
        (one, *(f"{each:.3f}" for each in times.values()), str(chosen[one]))
        for one, times in found.items()
    ]
    text = "Milliseconds a frame, by frames in a batch; medians.\n\n" + table(
        ("saver", *map(str, SIZES), "a stream takes"), rows
    )
    save("bench_batch", title="Batches of frames", text=text, figures=found)
    return 0


def times_ms(stage: Stage, turns: int) -> dict[str, float]:
    """Return the median time of a frame at each batch size."""
    rng = np.random.default_rng(0)
    dtype = np.dtype(stage.preprocess.format.dtype)
    batches = [rng.integers(0, 256, stage.preprocess.shape(size)).astype(dtype) for size in SIZES]
    spent: list[list[float]] = [[] for _ in SIZES]
    for turn in range(10 + turns):
        for place in range(len(SIZES)):
            started = time.perf_counter()
            stage.ask(batches[place])
            if turn >= 10:
                spent[place].append(1e3 * (time.perf_counter() - started) / SIZES[place])
    return {str(size): statistics.median(values) for size, values in zip(SIZES, spent, strict=True)}


if __name__ == "__main__":
    sys.exit(main())
