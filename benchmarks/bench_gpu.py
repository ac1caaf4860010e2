"""The large model on a GPU, the saver on the processor: what a cascade saves there.

    make test-gpu                                      # tests and this, within ten minutes
    python benchmarks/bench_gpu.py [--only PART ...] [--device cuda] [--models NAME ...]

"precisions": the torch engine in float32, TF32, float16 and bfloat16, at batches of 1, 8 and 32,
with CUDA graphs and without; how far each is from float32 on the processor. "cascade": frames a
second and joules a frame of whole cascades at five escalation rates, against the large model alone
on every frame with the same engine, in turns in the same run; frame by frame and in batches of 32.
"worker": `--large-worker` whose process is killed in the middle. "host": what a host of the large
model answers to eight devices, with the classes behind `serve` alone and, where kserve and
tritonclient are installed, through `serve` itself.

Models are of real size with random weights: what they take depends on nothing they have learnt.
Energy is what the card's own counter counts, idling included. Every part adds to
`results/gpu/bench_gpu.json`, so that one that does not end costs no other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from gpu_pair import (
    SAVER,
    SAVER_THREADS,
    Timed,
    frames_of,
    keep_busy,
    large_model,
    large_stage,
    middle,
    on,
    saver_model,
    saver_stage,
    show,
    spread,
    thresholds,
    used_gib,
)
from imagenet import RESULTS, table
from scipy.special import softmax

from tinysaver_edge import Cascade
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.engines.base import Precision
from tinysaver_edge.errors import EngineError
from tinysaver_edge.hardware.energy import open_meters
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.score import Margin

MODELS = ("convnextv2_huge", "swin_large_patch4_window7_224")
BATCHES = (1, 8, 32)
RATES = (0.1, 0.2, 0.3, 0.4, 0.5)
COMPARED = 2
"""Frames that the processor answers as well: a large model takes it seconds."""


class Run:
    """What all parts share: the options, the counters of energy, the figures so far.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out: Path = options.out
        self.work: Path = options.work
        self.on_gpu = options.device.startswith("cuda")
        self.meters = open_meters()
        self.gpu = [one for one in self.meters.found if one.source.startswith("NVML")]
        self.out.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(parents=True, exist_ok=True)
        self._file = self.out / "bench_gpu.json"
        kept = json.loads(self._file.read_text()) if self._file.is_file() else {}
        self.figures: dict[str, Any] = {**kept, "machine": machine(self)}
        self.parts: dict[str, Any] = self.figures.setdefault("parts", {})
        self._started_s = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        print(f"[{time.monotonic() - self._started_s:6.1f} s] {text}", flush=True)

    def keep(self, part: str, key: str, figures: Any) -> None:  # noqa: ANN401 - plain values
        """Add to what is known, and write it down at once."""
        self.parts.setdefault(part, {})[key] = figures
        self._file.write_text(json.dumps(self.figures, indent=2) + "\n", encoding="utf-8")
        (self.out / "bench_gpu.md").write_text(page(self.figures), encoding="utf-8")
        self.say(f"{part}, {key}: {json.dumps(figures)[:400]}")

    def large(self, name: str) -> Artefact:
        """Return one of the large models, written when it is first asked for."""
        started_s = time.monotonic()
        made = large_model(self.work, name, device=self.options.device, size=self.options.size)
        self.say(f"{name}: {made.files[0].stat().st_size / 1e9:.2f} GB of weights, "
                 f"{time.monotonic() - started_s:.1f} s")  # fmt: skip
        return made


def machine(run: Run) -> dict[str, Any]:
    """Describe the machine that measures."""
    import torch

    card = torch.cuda.get_device_name(0) if run.on_gpu else None
    packages = ("torch", "timm", "onnxruntime", "numpy")
    return {
        "card": card,
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "packages": {name: version(name) for name in packages},
        "energy": [one.source for one in run.meters.found],
        "no_energy": [f"{one.name}: {one.reason}" for one in run.meters.absent],
    }


# precisions


def precisions(run: Run) -> None:
    """Time the engine by itself, and hold its answers against the processor's."""
    for name in run.options.models:
        large = run.large(name)
        size = large.preprocess.shape(1)[1:]
        batches = np.random.default_rng(1).integers(0, 256, (max(BATCHES), *size), np.uint8)
        with on(large, "cpu", Precision.FLOAT32).open() as engine:
            reference = softmax(engine.infer(batches[:COMPARED]), axis=1)
        exact: np.ndarray | None = None
        for precision in Precision:
            try:
                rows, logits = one_precision(run, large, precision, batches, graphs=True)
            except EngineError as error:
                run.keep("precisions", f"{name} {precision.value}", {"refused": str(error)})
                continue
            probabilities = softmax(logits, axis=1)
            exact = probabilities if exact is None else exact
            apart = float(np.abs(probabilities[:COMPARED] - reference).max())
            same = float((probabilities.argmax(1) == exact.argmax(1)).mean())
            figures = {**rows, "from_cpu_float32": apart, "same_class_as_float32": same}
            run.keep("precisions", f"{name} {precision.value}", figures)
        if run.on_gpu:
            graphs_or_not(run, large, batches)


def one_precision(
    run: Run, large: Artefact, precision: Precision, batches: np.ndarray, *, graphs: bool
) -> tuple[dict[str, Any], np.ndarray]:
    """Return figures of an engine, and its answers to the longest batch."""
    import torch

    if run.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    started_s = time.monotonic()
    with on(large, run.options.device, precision, graphs=graphs).open() as engine:
        opened_s = time.monotonic() - started_s
        rows = {}
        for count in run.options.batches:
            timed, times = busy(run, lambda count=count: engine.infer(batches[:count]), count)
            rows[f"batch {count}"] = {
                "frames_per_s": timed.frames_per_s,
                "p50_ms": statistics.median(times),
                "p95_ms": float(np.percentile(times, 95)),
                "joules_per_frame": timed.joules_per_frame(),
            }
        logits = engine.infer(batches[: max(run.options.batches)]).copy()
        figures = {
            "open_s": opened_s,
            "memory_gib": used_gib(torch) if run.on_gpu else None,
            "graphs": list(engine.graphed),
            "refused_graphs": {str(size): why for size, why in engine.refused_graphs.items()},
            **rows,
        }
    return figures, logits


def busy(run: Run, ask: Callable[[], object], count: int) -> tuple[Timed, list[float]]:
    """Ask for a while, after two calls that prepare; return the sum, and milliseconds a call."""
    times: list[float] = []

    def answer() -> int:
        started_s = time.perf_counter()
        ask()
        times.append((time.perf_counter() - started_s) * 1e3)
        return count

    ask()
    ask()
    return keep_busy(answer, run.options.seconds, run.gpu), times


def graphs_or_not(run: Run, large: Artefact, batches: np.ndarray) -> None:
    """Compare replayed graphs with kernels started one by one: time, and answers to the bit."""
    precision, device = Precision(run.options.precision), run.options.device
    with (
        on(large, device, precision).open() as replayed,
        on(large, device, precision, graphs=False).open() as eager,
    ):
        figures = {}
        for count in run.options.batches:
            ask = {"graph": replayed, "eager": eager}
            same = np.array_equal(
                replayed.infer(batches[:count]).copy(), eager.infer(batches[:count])
            )
            found = {
                way: busy(run, lambda e=engine, n=count: e.infer(batches[:n]), count)
                for way, engine in ask.items()
            }
            figures[f"batch {count}"] = {
                "equal": bool(same),
                **{f"{way}_p50_ms": statistics.median(times) for way, (_, times) in found.items()},
                **{f"{way}_joules": timed.joules_per_frame() for way, (timed, _) in found.items()},
            }
        figures["graphed"] = list(replayed.graphed)  # type: ignore[attr-defined]
    run.keep("graphs", f"{large.name} {precision.value}", figures)


# cascade


def cascades(run: Run) -> None:
    """Race whole cascades against the large model alone."""
    frames = frames_of()
    saver = saver_stage(saver_model(run.work))
    cuts = thresholds(saver, frames, RATES)
    precision = Precision(run.options.precision)
    order = np.random.default_rng(2).permutation(len(frames))
    frames = [frames[place] for place in order]
    for name in run.options.models:
        large = large_stage(on(run.large(name), run.options.device, precision))
        idle = None
        if run.gpu:
            time.sleep(1.0)
            idle = keep_busy(lambda: time.sleep(0.1) or 1, 2.0, run.gpu).energy[0].watts
        for way, decide in (("one by one", one_by_one), ("batches of 32", batched)):
            figures = race(run, saver, large, cuts, frames, decide)
            key = f"{name} {precision.value}, {way}"
            run.keep("cascade", key, {"idle_watts": idle, **figures})
        large.close()
    saver.close()


def one_by_one(cascade: Cascade, frames: Sequence[Frame]) -> list[bool]:
    return [cascade.decide(frame).escalated for frame in frames]


def batched(cascade: Cascade, frames: Sequence[Frame]) -> list[bool]:
    return [decision.escalated for decision in cascade.decide_many(frames)]


def race(
    run: Run,
    saver: Stage,
    large: Stage,
    cuts: dict[float, float],
    frames: Sequence[Frame],
    decide: Callable[[Cascade, Sequence[Frame]], list[bool]],
) -> dict[str, Any]:
    """Take the large model alone and a cascade a rate in turns; return medians and spreads."""
    ways = {"large alone": Cascade([large])}
    for rate, threshold in cuts.items():
        early = saver.with_policy(StagePolicy(SAVER, None, Margin(), threshold))
        ways[f"{rate:g} escalated"] = Cascade([early, large])
    found: dict[str, list[Timed]] = {way: [] for way in ways}
    escalated = {}
    for way, cascade in ways.items():
        escalated[way] = float(np.mean(decide(cascade, frames)))
    for _ in range(run.options.rounds):
        for way, cascade in ways.items():
            timed = keep_busy(
                lambda cascade=cascade: len(decide(cascade, frames)), run.options.seconds, run.gpu
            )
            found[way].append(timed)
    alone = found["large alone"]
    rows = {}
    for way, timed in found.items():
        rates = [one.frames_per_s for one in timed]
        joules = [one.joules_per_frame() for one in timed]
        rows[way] = {
            "escalated": None if way == "large alone" else escalated[way],
            "frames_per_s": middle(rates),
            "frames_per_s_spread": spread(rates),
            "joules_per_frame": middle(joules),
            "joules_per_frame_spread": spread(joules),
            "times_the_rate": middle(
                [one.frames_per_s / of.frames_per_s for one, of in zip(timed, alone, strict=True)]
            ),
        }
        mine, of = rows[way]["joules_per_frame"], middle([one.joules_per_frame() for one in alone])
        rows[way]["share_of_energy"] = mine / of if mine is not None and of else None
    return rows


# the page


def page(figures: dict[str, Any]) -> str:
    """Write all figures as a page."""
    told = figures["machine"]
    what = told["card"] or f"no GPU: a rehearsal on {told['cores']} cores"
    packages = ", ".join(f"{name} {number}" for name, number in told["packages"].items())
    lines = [
        "# A cascade whose large model runs on a GPU",
        f"`python benchmarks/bench_gpu.py`\n\n**{what}**, {told['cores']} cores, CUDA "
        f"{told['cuda']}, Python {told['python']}, {packages}. Energy: "
        f"{'; '.join(told['energy']) or 'no counter'}"
        + "".join(f"; {why}" for why in told["no_energy"])
        + f". Saver: {SAVER}, ONNX Runtime on the processor, {SAVER_THREADS} threads. "
        "Frames: 720p. Weights are random; energy is the card's alone and counts its idling.",
    ]
    for part, write in PAGES.items():
        found = figures["parts"].get(part)
        if found:
            lines.append(write(found))
    return "\n\n".join(lines) + "\n"


def precisions_page(found: dict[str, Any]) -> str:
    rows = []
    for key, one in found.items():
        if "refused" in one:
            rows.append((key, "", "", "", "", "", one["refused"]))
            continue
        for batch in [name for name in one if name.startswith("batch ")]:
            row = one[batch]
            rows.append(
                (key, batch.removeprefix("batch "), show(row["p50_ms"]), show(row["p95_ms"]),
                 show(row["frames_per_s"]), show(row["joules_per_frame"]),
                 f"{one['from_cpu_float32']:.1e}")
            )  # fmt: skip
    head = ("model", "batch", "p50, ms", "p95, ms", "frames/s", "J/frame",
            "largest difference of a probability from float32 on the processor")  # fmt: skip
    return "## The engine alone\n\n" + table(head, rows)


def graphs_page(found: dict[str, Any]) -> str:
    rows = []
    for key, one in found.items():
        for batch in [name for name in one if name.startswith("batch ")]:
            row = one[batch]
            rows.append(
                (key, batch.removeprefix("batch "), show(row["graph_p50_ms"]),
                 show(row["eager_p50_ms"]), show(row["graph_joules"]), show(row["eager_joules"]),
                 "yes" if row["equal"] else "no")
            )  # fmt: skip
    head = ("model", "batch", "graph p50, ms", "kernel by kernel, ms", "graph J/frame",
            "kernel by kernel J/frame", "answers equal to the bit")  # fmt: skip
    return "## CUDA graphs\n\n" + table(head, rows)


def cascade_page(found: dict[str, Any]) -> str:
    rows = []
    for key, one in found.items():
        for way, row in one.items():
            if way == "idle_watts":
                continue
            low, high = row["frames_per_s_spread"]
            rows.append(
                (key, way, show(row["frames_per_s"]), f"{show(low)} to {show(high)}",
                 show(row["times_the_rate"]), show(row["joules_per_frame"]),
                 show(row["share_of_energy"]))
            )  # fmt: skip
    head = ("large model", "way", "frames/s", "of the rounds", "times the rate", "J/frame",
            "share of the energy")  # fmt: skip
    idle = {one["idle_watts"] for one in found.values() if one["idle_watts"]}
    told = f"\n\nIdle, the model loaded: {show(max(idle))} W." if idle else ""
    return "## Cascades against the large model alone\n\n" + table(head, rows) + told


def plain_page(title: str) -> Callable[[dict[str, Any]], str]:
    def write(found: dict[str, Any]) -> str:
        rows = [
            (key, name, show(value) if isinstance(value, float) else value)
            for key, one in found.items()
            for name, value in one.items()
        ]
        return f"## {title}\n\n" + table(("run", "what", "measured"), rows)

    return write


PAGES: dict[str, Callable[[dict[str, Any]], str]] = {
    "precisions": precisions_page,
    "graphs": graphs_page,
    "cascade": cascade_page,
    "worker": plain_page("`--large-worker`, its process killed in the middle"),
    "host": plain_page("A host of the large model, asked by eight devices"),
}


def main() -> int:
    """Run the parts that are asked for."""
    from gpu_hosts import host
    from gpu_worker import worker

    parts: dict[str, Callable[[Run], None]] = {
        "precisions": precisions,
        "cascade": cascades,
        "worker": worker,
        "host": host,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(parts), default=list(parts))
    parser.add_argument("--device", default="cuda", help="as the torch engine names it")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME")
    parser.add_argument("--size", type=int, help="side of the picture. [default: the model's own]")
    parser.add_argument("--precision", default="float16", choices=[one.value for one in Precision],
                        help="of the cascades")  # fmt: skip
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES), metavar="N")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "bench-gpu",
                        help="folder for models, kept")  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu", help="folder for results")
    run = Run(parser.parse_args())
    for name in run.options.only:
        parts[name](run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
