"""The saver's time while the large model runs in a worker of its own, as on an accelerator.

    python benchmarks/bench_worker.py [--rounds 5] [--seconds 3]

The saver is asked without a pause in one thread; the large model, in another process with one
processor thread, answers one frame after the other, or none. p50 and p95 of the saver's time, in
turns. Another program that runs the same model, and knows nothing of this one, tells what shared
cores, caches and memory cost; what goes beyond that is the worker's doing. A program that only
burns a core is there to compare.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from imagenet import save, table
from networks import mobilenet_v3_small, mobilenet_v3_small_050

from tinysaver_edge.engines.base import Engine, EngineOptions
from tinysaver_edge.engines.registry import create_engine, inspect
from tinysaver_edge.engines.worker import Setup, WorkerEngine
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import ColorOrder, InputFormat, Layout, Preprocess, Resize

TARGET = 1.10
STARTS_S = 2.0
PREPROCESS = Preprocess(
    Resize(224, 224), InputFormat(Layout.NCHW, "float32", ColorOrder.RGB, (1 / 255,), (0.0,))
)
BURN = "while True: pass"
RUN = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
batch = np.zeros([int(axis) for axis in sys.argv[2:]], np.float32)
given = {session.get_inputs()[0].name: batch}
while True:
    session.run(None, given)
"""


def ask_for(engine: Engine, batch: np.ndarray, seconds: float) -> list[float]:
    """Return the milliseconds of each inference."""
    times, due = [], time.monotonic() + seconds
    while time.monotonic() < due:
        started = time.perf_counter()
        engine.infer(batch)
        times.append((time.perf_counter() - started) * 1e3)
    return times


def while_doing(work: Callable[[], object], measure: Callable[[], list[float]]) -> list[float]:
    """Measure while a thread does some work again and again."""
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            work()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        return measure()
    finally:
        over.set()
        thread.join()


def while_running(
    program: str, arguments: Sequence[str], measure: Callable[[], list[float]]
) -> list[float]:
    """Measure while another program runs."""
    process = subprocess.Popen([sys.executable, "-c", program, *arguments])
    time.sleep(STARTS_S)
    try:
        return measure()
    finally:
        process.kill()
        process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    one = EngineOptions(threads=1)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "saver.onnx"
        mobilenet_v3_small_050(model)
        assert inspect(model).input_shape[1:] == PREPROCESS.shape(1)[1:]
        batch = np.random.default_rng(0).random(PREPROCESS.shape(1), dtype=np.float32)
        large = Path(scratch) / "large.onnx"
        mobilenet_v3_small(large, width=4.0)
        setup = Setup("onnxruntime", large, PREPROCESS, OutputFormat(), one)
        with (
            create_engine(
                "onnxruntime", model, preprocess=PREPROCESS, output=OutputFormat(), options=one
            ) as saver,
            WorkerEngine(setup) as worker,
        ):
            elsewhere = (str(large), *map(str, PREPROCESS.shape(1)))

            def measure() -> list[float]:
                return ask_for(saver, batch, options.seconds)

            ways: dict[str, Callable[[], list[float]]] = {
                "alone": measure,
                "a core taken": lambda: while_running(BURN, (), measure),
                "another program runs it": lambda: while_running(RUN, elsewhere, measure),
                "worker at work": lambda: while_doing(lambda: worker.infer(batch), measure),
            }
            rounds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for _ in range(options.rounds):
                for way, run in ways.items():
                    times = run()
                    rounds[way].append((statistics.median(times), float(np.percentile(times, 95))))
    middle = {
        way: tuple(statistics.median(column) for column in zip(*found, strict=True))
        for way, found in rounds.items()
    }
    beyond = statistics.median(
        work[1] / burn[1]
        for work, burn in zip(
            rounds["worker at work"], rounds["another program runs it"], strict=True
        )
    )
    rows = [(way, f"{p50:.3f}", f"{p95:.3f}") for way, (p50, p95) in middle.items()]
    text = table(("meanwhile", "saver p50, ms", "p95, ms"), rows)
    text += f"\n\np95 with the worker ÷ p95 with another program, median of rounds: {beyond:.2f}"
    save(
        "bench_worker",
        title="The saver while the large model works in a process of its own",
        text=text,
        figures={"rounds": rounds, "p95_beyond_shared_cores": beyond},
    )
    return 0 if beyond <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
