"""What `Engine.infer` adds to the engine's own call, on a network the size of a small saver.

    python benchmarks/bench_engines.py [--calls 600]

Both calls get the same ready batch of one, on one thread, in turns, in one process. Medians count;
the tenth percentile is what a machine with other work on it does in its quiet moments. Two sessions
built alike differ by up to 4 % (where their memory happens to lie), so smaller differences say
nothing; what `infer` itself does takes 2 us.

The engine's own call is its quickest form: a session that is built once, for OpenVINO a graph of a
fixed batch of one and an input tensor that is already bound. Also measured: the same network with
its preprocessing in the graph (`models.embed`), on the frame's pixels, against the plain one on a
batch that numpy prepared beforehand.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from networks import mobilenet_v3_small_050

from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.engines.registry import create_engine
from tinysaver_edge.models.description.description import ModelDescription
from tinysaver_edge.models.embed.embed import embed
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import (
    ColorOrder,
    InputFormat,
    Layout,
    Preprocess,
    Preprocessor,
    Resize,
)

Call = Callable[[], object]
OPTIONS = EngineOptions(threads=1)
IMAGENET = InputFormat(
    Layout.NCHW,
    "float32",
    ColorOrder.RGB,
    tuple(1 / (255 * std) for std in (0.229, 0.224, 0.225)),
    (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
)


def times_us(calls: dict[str, Call], count: int) -> dict[str, np.ndarray]:
    """Run the calls in turns, in an order drawn anew each turn; return their microseconds."""
    times: dict[str, list[int]] = {name: [] for name in calls}
    names, draw = list(calls), np.random.default_rng(0)
    for turn in range(count + 30):
        for name in draw.permutation(names).tolist():
            call = calls[name]
            start = time.perf_counter_ns()
            call()
            if turn >= 30:
                times[name].append(time.perf_counter_ns() - start)
    return {name: np.array(spent) / 1e3 for name, spent in times.items()}


def onnxruntime_call(model: Path, batch: np.ndarray) -> Call:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    names, feed = [session.get_outputs()[0].name], {session.get_inputs()[0].name: batch}
    return lambda: session.run(names, feed)


def openvino_call(model: Path, batch: np.ndarray) -> Call:
    import openvino

    core = openvino.Core()
    graph = core.read_model(str(model))
    graph.reshape(list(batch.shape))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
    }
    request = core.compile_model(graph, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(batch, shared_memory=True))
    return lambda: request.infer(share_outputs=True)


RAW_CALLS = {"onnxruntime": onnxruntime_call, "openvino": openvino_call}


def measure(engine: str, folder: Path, count: int) -> dict[str, dict[str, float]]:
    """Measure one engine; returns microseconds by kind of call, and their ratios."""
    model = mobilenet_v3_small_050(folder / "mobilenetv3_small_050.onnx")
    preprocess, output = Preprocess(Resize(224, 224), IMAGENET), OutputFormat()
    frame = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    batch = Preprocessor(preprocess)(frame)
    folded = embed(model, ModelDescription(model, "saver", preprocess, output), folder / "folded")
    plain_engine = create_engine(
        engine, model, preprocess=preprocess, output=output, options=OPTIONS
    )
    folded_engine = create_engine(
        engine, folded.path, preprocess=folded.preprocess, output=output, options=OPTIONS
    )
    pixels = Preprocessor(folded.preprocess)(frame)
    raw = RAW_CALLS[engine]
    spent = times_us(
        {
            "raw call": raw(model, batch),
            "Engine.infer": lambda: plain_engine.infer(batch),
            "raw call, folded": raw(folded.path, pixels),
            "Engine.infer, folded": lambda: folded_engine.infer(pixels),
        },
        count,
    )
    return {
        figure: summary({name: float(np.quantile(times, at)) for name, times in spent.items()})
        for figure, at in (("median", 0.5), ("tenth percentile", 0.1))
    }


def summary(spent: dict[str, float]) -> dict[str, float]:
    """Add the ratios to the engine's own call on the plain network."""
    base = spent["raw call"]
    return {
        **{f"{name}, us": round(value, 1) for name, value in spent.items()},
        "infer / raw": round(spent["Engine.infer"] / base, 3),
        "folded infer / raw": round(spent["Engine.infer, folded"] / base, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=600, help="calls of each kind")
    count = parser.parse_args().calls
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measure(name, Path(folder) / name, count) for name in RAW_CALLS}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
