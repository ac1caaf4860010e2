"""Overhead of `Cascade.decide` on an accepted 720p frame, over the raw engine call and the resize.

    python benchmarks/bench_decide.py

One thread, one process, rounds taken in turns; medians of at least 300. "raw" is the engine's own
call on a ready batch of the very artefact that ships, "resize" the bundle's resize alone.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from networks import mobilenet_v3_small_050

from tinysaver_edge import Cascade
from tinysaver_edge.calibrate.plan import ModelFile
from tinysaver_edge.calibrate.prepare import prepare
from tinysaver_edge.models.description import description_from
from tinysaver_edge.policy import StagePolicy
from tinysaver_edge.preprocess import Preprocessor
from tinysaver_edge.score import Margin
from tinysaver_edge.stage import Stage

ROUNDS = 600
TARGET = 1.2
DESCRIPTION = {
    "input": {
        "layout": "NCHW",
        "dtype": "float32",
        "color": "RGB",
        "size": [224, 224],
        "scale": "imagenet",
    },
    "output": {"kind": "logits"},
}


def main() -> int:
    """Measure both engines and print a table; exit 1 when a ratio misses the target."""
    cv2.setNumThreads(1)
    frame = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    missed = False
    print("engine        raw µs  resize µs  decide µs  ratio (target ≤ 1.2)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "mobilenetv3_small_050.onnx"
        mobilenet_v3_small_050(model)
        for engine in ("onnxruntime", "openvino"):
            raw, resize, decide = measure(model, engine, folder, frame)
            ratio = decide / (raw + resize)
            missed |= ratio > TARGET
            print(f"{engine:12} {raw:7.0f} {resize:10.0f} {decide:10.0f}  {ratio:.3f}")
    return int(missed)


def measure(
    model: Path, engine_name: str, folder: Path, frame: np.ndarray
) -> tuple[float, float, float]:
    """Return medians of raw call, resize and decide, in microseconds."""
    described = description_from(DESCRIPTION, model, folder=folder, source="benchmark")
    artefact = prepare(ModelFile(model, described, engine=engine_name), folder / engine_name)
    engine = artefact.with_threads(1).open()
    # A threshold below any margin: every frame is accepted by the first stage.
    policy = StagePolicy(artefact.name, artefact.macs, Margin(), -1.0)
    saver = Stage(engine, preprocess=artefact.preprocess, policy=policy)
    cascade = Cascade([saver, Stage(engine, preprocess=artefact.preprocess, policy=policy)])
    preprocessor = Preprocessor(artefact.preprocess)
    batch = preprocessor(frame)
    place = batch.copy()[0]
    raw = raw_call(engine_name, artefact.files[0], batch)
    steps: tuple[Callable[[], Any], ...] = (
        raw,
        lambda: preprocessor.into(frame, place),
        lambda: cascade.decide(frame),
    )
    times: list[list[float]] = [[], [], []]
    for turn in range(ROUNDS + 20):
        for step, kept in zip(steps, times, strict=True):
            start = time.perf_counter_ns()
            step()
            spent = time.perf_counter_ns() - start
            if turn >= 20:
                kept.append(spent / 1e3)
    cascade.close()
    medians = [statistics.median(kept) for kept in times]
    return medians[0], medians[1], medians[2]


def raw_call(engine: str, model: Path, batch: np.ndarray) -> Callable[[], Any]:
    """Return an engine's own call on a ready batch, without this package, on one thread."""
    if engine == "onnxruntime":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: batch}
        return lambda: session.run(None, feed)
    import openvino as ov

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = ov.Core()
    network = core.read_model(model)
    network.reshape(list(batch.shape))  # OpenVINO is quicker where the batch is known
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    return lambda: request.infer({0: batch}, share_inputs=True, share_outputs=True)


if __name__ == "__main__":
    sys.exit(main())
