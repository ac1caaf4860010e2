"""Whether a saver is quicker on several cameras' frames at once than on one after the other.

    python benchmarks/bench_batch.py

Milliseconds a frame, of the ImageNet saver on OpenVINO and the demo's saver on ONNX Runtime, on one
thread, at several batch sizes, in turns drawn anew. Streams batch nothing as long as this shows no
gain: a batch makes its first frame wait for its last.
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

from tinysaver_edge.policy import StagePolicy
from tinysaver_edge.stage import Stage

SIZES = (1, 2, 4, 8)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=100)
    asked = parser.parse_args()
    need_data()
    with tempfile.TemporaryDirectory() as name, demo_cascade() as demo:
        imagenet = stage_of(artefacts(Path(name))[SAVER], StagePolicy(SAVER), 1)
        found = {
            f"{SAVER}, OpenVINO": times_ms(imagenet, asked.turns),
            "the demo's saver, ONNX Runtime": times_ms(demo.stages[0], asked.turns),
        }
        imagenet.close()
    rows = [(name, *(f"{one:.3f}" for one in times.values())) for name, times in found.items()]
    text = "Milliseconds a frame, by frames in a batch; medians.\n\n" + table(
        ("saver", *map(str, SIZES)), rows
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
        for place in rng.permutation(len(SIZES)).tolist():
            started = time.perf_counter()
            stage.ask(batches[place])
            if turn >= 10:
                spent[place].append(1e3 * (time.perf_counter() - started) / SIZES[place])
    return {str(size): statistics.median(values) for size, values in zip(SIZES, spent, strict=True)}


if __name__ == "__main__":
    sys.exit(main())
