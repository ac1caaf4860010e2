"""Which engine opens an .onnx where nobody names one: ONNX Runtime and OpenVINO beside each other.

    python benchmarks/bench_default_engine.py [MODEL ...] [--turns 100]

Needs the extra `cpu`. Timed are the demo's models, resnet20 and resnet56 of the shared data where
there are any, mobilenetv3_small_050 of random weights, and every MODEL: a file with a description,
as `models export NAME --random 0` writes it.

Both engines run the artefact that would ship (preprocessing in its graph), on one frame and on as
many threads as they like, as a bundle does by default. They take turns in one process, in an order
drawn anew each turn, so that other programs and a drifting clock meet both; a ratio is taken of the
medians of 10 turns at a time, and the median of these and their quartiles count. Where other
programs run as well, give it precedence: `chrt -r 20 python …`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from imagenet import DATA, save, table
from networks import mobilenet_v3_small_050

from tinysaver_edge.calibrate.measured.prepare import prepare
from tinysaver_edge.calibrate.plan import ModelFile
from tinysaver_edge.demo.show import demo_model_paths
from tinysaver_edge.engines.registry import engine_for
from tinysaver_edge.models.description.describe import KnownAlready, describe
from tinysaver_edge.models.description.description import find_description
from tinysaver_edge.preprocess import ColorOrder

ENGINES = ("onnxruntime", "openvino")
BLOCK = 10


def models(folder: Path, named: list[Path]) -> Iterator[Path]:
    """Yield the models to time, with their descriptions beside them or within."""
    yield from (*demo_model_paths(), *named)
    known = [DATA / "cifar10" / f"{name}.onnx" for name in ("resnet20", "resnet56")]
    for path in [mobilenet_v3_small_050(folder / "mobilenetv3_small_050.onnx"), *known]:
        if path.is_file():
            link = folder / path.name
            if link != path:
                link.symlink_to(path.resolve())
            text = describe(link, KnownAlready(color=ColorOrder.RGB, scale="imagenet"))
            link.with_suffix(".toml").write_text(text)
            yield link


def times_ms(model: Path, folder: Path, turns: int) -> np.ndarray:
    """Run a model in both engines by turns; returns their milliseconds, (turns, engines)."""
    shipped = prepare(ModelFile(model, find_description(model)), folder)
    found = np.empty((turns, len(ENGINES)))
    draw = np.random.default_rng(0)
    with ExitStack() as stack:
        engines = [stack.enter_context(replace(shipped, engine=one).open()) for one in ENGINES]
        shape = shipped.preprocess.shape(1)
        batch = draw.integers(0, 256, shape).astype(shipped.preprocess.format.dtype)
        for turn in range(-BLOCK, turns):
            for place in draw.permutation(len(ENGINES)):
                started = time.perf_counter()
                engines[place].infer(batch)
                if turn >= 0:
                    found[turn, place] = 1e3 * (time.perf_counter() - started)
    return found


def figures(times: np.ndarray) -> dict[str, float]:
    """Return medians, and the ratio with its quartiles over blocks of turns."""
    blocks = np.median(times.reshape(-1, BLOCK, times.shape[1]), axis=1)
    low, middle, high = np.percentile(blocks[:, 0] / blocks[:, 1], (25, 50, 75))
    medians = np.median(times, axis=0)
    return {
        "onnxruntime_ms": round(float(medians[0]), 3),
        "openvino_ms": round(float(medians[1]), 3),
        "ratio": round(float(middle), 3),
        "ratio_low": round(float(low), 3),
        "ratio_high": round(float(high), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--turns", type=int, default=100, help=f"of each engine; {BLOCK} a block")
    arguments = parser.parse_args()
    turns = max(1, arguments.turns // BLOCK) * BLOCK
    with tempfile.TemporaryDirectory() as folder:
        found = {
            find_description(model).name: figures(times_ms(model, Path(folder) / "made", turns))
            for model in models(Path(folder), arguments.models)
        }
    rows = [
        (
            name,
            f"{one['onnxruntime_ms']:.2f}",
            f"{one['openvino_ms']:.2f}",
            f"{one['ratio']:.2f} ({one['ratio_low']:.2f} to {one['ratio_high']:.2f})",
        )
        for name, one in found.items()
    ]
    middle = statistics.median(one["ratio"] for one in found.values())
    default = engine_for(Path("model.onnx"))
    text = table(("model", "ONNX Runtime, ms", "OpenVINO, ms", "ratio (quartiles)"), rows)
    save(
        "bench_default_engine",
        title="ONNX Runtime and OpenVINO on the same .onnx, one frame",
        text=f"{text}\n\nMedian ratio over the models: {middle:.2f}. The default is {default}.",
        figures={"models": found, "median_ratio": middle, "default": default},
    )


if __name__ == "__main__":
    main()
