"""Overhead of `Cascade.decide` on an accepted 720p frame, over the raw engine call and the resize.

    python benchmarks/bench_decide.py [MODEL ...] [--builds 5] [--turns 300]

MODEL is a file that describes itself, as `tinysaver-edge models export` writes it. Without any,
mobilenetv3_small_050 and repghostnet_050 are exported with random weights where the extra `timm` is
installed; where it is not, the first is built of ONNX nodes.

One thread, one process. "raw" is the engine's own call on a ready batch of the very artefact that
ships, "resize" the bundle's resize alone. Each turn makes the three calls in an order drawn anew.
Other programs and a drifting clock speed meet all three, so a ratio is taken of the medians of 50
turns at a time, and the median of these ratios counts. Two sessions of one model differ by up to
4 %, where their memory happens to lie: everything is built several times, and the median build
counts. Where other programs run as well, give it precedence:

    chrt -r 20 python benchmarks/bench_decide.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from imagenet import save, table
from networks import mobilenet_v3_small_050

from tinysaver_edge import Cascade
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.calibrate.measured.prepare import prepare
from tinysaver_edge.calibrate.plan import ModelFile
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.models.description.description import (
    ModelDescription,
    description_from,
    find_description,
)
from tinysaver_edge.preprocess import Frame, Preprocessor
from tinysaver_edge.score import Margin

ENGINES = ("onnxruntime", "openvino")
BLOCK = 50
TARGET = 1.1
TIMM = ("mobilenetv3_small_050", "repghostnet_050")
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


class Build(NamedTuple):
    """One build's medians over blocks, in microseconds, and the median of the blocks' ratios."""

    raw: float
    resize: float
    decide: float
    ratio: float


def main() -> int:
    """Measure both engines and print a table; exit 1 when a ratio misses the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="files to measure")
    parser.add_argument("--builds", type=int, default=5, help="times everything is built anew")
    parser.add_argument("--turns", type=int, default=300, help="calls of each kind, each build")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    frame = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    found: dict[tuple[str, str], list[Build]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = [find_description(one) for one in asked.models] or own_models(folder)
        artefacts = {
            (model.name, engine): artefact_of(model, engine, folder)
            for model in models
            for engine in ENGINES
        }
        for _ in range(asked.builds):
            for key, artefact in artefacts.items():
                build = measure(artefact, frame, turns=asked.turns)
                found.setdefault(key, []).append(build)
    return report(found)


def own_models(folder: Path) -> list[ModelDescription]:
    """Export timm's models with random weights; build one of ONNX nodes where timm is not there."""
    if find_spec("timm") is None:
        print("timm is not installed: repghostnet_050 is left out", file=sys.stderr)
        model = mobilenet_v3_small_050(folder / "mobilenetv3_small_050.onnx")
        return [description_from(DESCRIPTION, model, folder=folder, source="benchmark")]
    from tinysaver_edge.models.export.export import export
    from tinysaver_edge.models.export.timm_model import TimmSource

    for name in TIMM:
        export(TimmSource(name, random_seed=0), [folder / f"{name}.onnx"])
    return [find_description(folder / f"{name}.onnx") for name in TIMM]


def artefact_of(model: ModelDescription, engine: str, folder: Path) -> Artefact:
    """Prepare the model as a calibration does, its preprocessing folded in."""
    return prepare(ModelFile(model.file, model, engine=engine), folder / engine).with_threads(1)


def measure(artefact: Artefact, frame: Frame, *, turns: int) -> Build:
    """Build a cascade and the engine's own session, and time both."""
    # A threshold below any margin: every frame is accepted by the first stage.
    policy = StagePolicy(artefact.name, artefact.macs, Margin(), -1.0)
    engine = artefact.open()
    saver, large = (Stage(engine, preprocess=artefact.preprocess, policy=policy) for _ in range(2))
    preprocessor = Preprocessor(artefact.preprocess)
    batch = preprocessor(frame)
    place = batch.copy()[0]
    with Cascade([saver, large]) as cascade:
        steps: tuple[Callable[[], Any], ...] = (
            raw_call(artefact.engine, artefact.files[0], batch),
            lambda: preprocessor.into(frame, place),
            lambda: cascade.decide(frame),
        )
        spent = times_us(steps, turns=turns)
    blocks = np.median(spent.reshape(-1, BLOCK, len(steps)), axis=1)
    raw, resize, decide = np.median(blocks, axis=0)
    ratios = blocks[:, 2] / (blocks[:, 0] + blocks[:, 1])
    return Build(float(raw), float(resize), float(decide), float(np.median(ratios)))


def times_us(steps: tuple[Callable[[], Any], ...], *, turns: int) -> np.ndarray:
    """Make the calls in turns, after a warm-up; return microseconds ``(turns, steps)``."""
    draw = np.random.default_rng(0)
    warm_up, turns = 30, -(-turns // BLOCK) * BLOCK
    spent = np.zeros((warm_up + turns, len(steps)))
    for turn in range(len(spent)):
        for step in draw.permutation(len(steps)).tolist():
            start = time.perf_counter_ns()
            steps[step]()
            spent[turn, step] = (time.perf_counter_ns() - start) / 1e3
    return spent[warm_up:]


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


def report(found: dict[tuple[str, str], list[Build]]) -> int:
    """Write the results; return 1 when a ratio misses the target."""
    rows, missed = [], False
    for (model, engine), builds in found.items():
        ratio = statistics.median(build.ratio for build in builds)
        missed |= ratio > TARGET
        medians = [statistics.median(values) for values in zip(*builds, strict=True)]
        spread = f"{min(one.ratio for one in builds):.3f} to {max(one.ratio for one in builds):.3f}"
        times = (f"{value:.0f}" for value in medians[:3])
        rows.append((model, engine, *times, f"{ratio:.3f}", spread))
    head = ("model", "engine", "raw, µs", "resize, µs", "decide, µs", "ratio", "of the builds")
    count = max(len(builds) for builds in found.values())
    text = (
        f"1280×720 to the model's own picture, one thread; medians of {count} builds. "
        f"Target: decide ≤ {TARGET:.2f} × (raw + resize). A frame goes to the engine as uint8, a "
        f"quarter of float32's bytes.\n\n{table(head, rows)}"
    )
    figures = {
        f"{model} {engine}": [build._asdict() for build in builds]
        for (model, engine), builds in found.items()
    }
    save("bench_decide", title="The overhead of a decision", text=text, figures=figures)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
