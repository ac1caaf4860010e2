"""Ten million samples and three models: how much memory and time a calibration takes.

    python benchmarks/bench_huge.py [SAMPLES] [FOLDER] [empirical | certified]

With a folder the records stay there for the next time; with a method the other keeps its figures.

Records of the best five classes are drawn (nothing is measured on pictures here): a truth, how hard
each sample is, and three models of different skill that find hard what is hard. Then, each in a
process of its own, `calibrate --records` with `--method empirical`, which sweeps every threshold
there is, and with the certificate, which walks its own. Printed are the seconds for reading, for
sweep and certificate, and the most memory that the process held.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from imagenet import RESULTS, called_with, save, table

from tinysaver_edge.calibrate import calibrate, run
from tinysaver_edge.calibrate.gathered import gather
from tinysaver_edge.calibrate.plan import Plan, RecordInput
from tinysaver_edge.calibrate.targets import Method, Targets

SAMPLES = 10_000_000
CLASSES = 1000
LIMIT_S = 120.0
LIMIT_MB = 8192.0
MODELS = {"tiny": (0.9, 40e6), "small": (1.3, 300e6), "large": (1.8, 4e9)}
"""Skill and MACs."""

SURE = 1.3
"""Models are surer of themselves than they are right."""

BLOCK = 250_000


def main() -> int:
    """Draw, calibrate twice and print; exit 1 where a target is missed."""
    words = called_with(__doc__, most=2 + len(WAYS))
    samples = int(words[0]) if words else SAMPLES
    kept = RESULTS / "bench_huge.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    if found.get("samples") != samples or len(words) <= 2:
        found = {"samples": samples}
    with tempfile.TemporaryDirectory(prefix="huge") as name:
        folder = Path(words[1] if len(words) > 1 else name)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "macs.csv").is_file():
            in_process(draw, folder, samples)
        for way in words[2:] or [one.value for one in WAYS]:
            found[way] = in_process(measured, folder, way)
    ways = {way.value: found[way.value] for way in WAYS if way.value in found}
    rows = [
        (
            way,
            f"{one['reading_s']:.1f}",
            f"{one['rest_s']:.1f}",
            f"{one['cpu_s']:.1f}",
            f"{one['peak_mb']:.0f}",
            one["said"],
        )
        for way, one in ways.items()
    ]
    text = (
        f"{samples:,} samples × {len(MODELS)} models of {CLASSES:,} classes, the best five kept; "
        f"targets: ≤ {LIMIT_S:g} s after reading, ≤ {LIMIT_MB:g} MB.\n\n"
        + table(
            ("", "reading, s", "after reading, s", "processor in all, s", "at most, MB", "found"),
            rows,
        )
    )
    save("bench_huge", title="Millions of samples", text=text, figures=found)
    rest = sum(one["rest_s"] for one in ways.values())
    return int(rest > LIMIT_S or max(one["peak_mb"] for one in ways.values()) > LIMIT_MB)


WAYS = (Method.EMPIRICAL, Method.CERTIFIED)


def in_process(function: Any, *arguments: Any) -> Any:  # noqa: ANN401
    """Call a function in a process of its own, so that its peak of memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def draw(folder: Path, samples: int) -> None:
    """Write records, labels and MACs."""
    tables = {
        name: (
            np.lib.format.open_memmap(folder / f"{name}.class.npy", "w+", np.int16, (samples, 5)),
            np.lib.format.open_memmap(folder / f"{name}.prob.npy", "w+", np.float32, (samples, 5)),
        )
        for name in MODELS
    }
    labels = np.lib.format.open_memmap(folder / "labels.npy", "w+", np.int16, (samples,))
    for start in range(0, samples, BLOCK):
        rng = np.random.default_rng([7, start])
        part = slice(start, min(samples, start + BLOCK))
        count = part.stop - start
        labels[part] = rng.integers(0, CLASSES, count)
        hard = rng.gumbel(size=count)
        for name, (skill, _) in MODELS.items():
            classes, logits = answers(rng, labels[part], skill, hard)
            tables[name][0][part], tables[name][1][part] = best_of(classes, logits)
    for name, (classes, prob) in tables.items():
        np.savez(folder / f"{name}.npz", top5_class=classes, top5_prob=prob)
        for what in ("class", "prob"):
            (folder / f"{name}.{what}.npy").unlink()
    rows = "".join(f"{name},{macs:.0f}\n" for name, (_, macs) in MODELS.items())
    (folder / "macs.csv").write_text(f"name,macs\n{rows}")


def answers(
    rng: np.random.Generator, labels: np.ndarray, skill: float, hard: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Five classes, the true one first, and their logits over the rest of the classes."""
    count = len(labels)
    others = rng.integers(1, CLASSES // 4, (count, 4)) + np.arange(4) * (CLASSES // 4)
    classes = np.concatenate([labels[:, None], (labels[:, None] + others) % CLASSES], axis=1)
    logits = rng.gumbel(size=(count, 5)).astype(np.float32)
    logits[:, 0] += 3.0 * skill - 1.5 * hard
    return classes.astype(np.int16), logits


def best_of(classes: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes by falling probability, with what all others share left to them."""
    logits = SURE * logits
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    prob = weights / (
        weights.sum(axis=1, keepdims=True) + 0.01 * weights.min(axis=1, keepdims=True)
    )
    order = np.argsort(-prob, axis=1, kind="stable")
    return np.take_along_axis(classes, order, 1), np.take_along_axis(prob, order, 1)


def measured(folder: Path, way: str) -> dict[str, Any]:
    """Read, then calibrate, and say what it took."""
    plan = Plan(
        RecordInput(folder, folder / "labels.npy", folder / "macs.csv", "large", ("tiny", "small")),
        targets=Targets(method=Method(way)),
        report=False,
    )
    reading = 0.0

    def timed(*arguments: Any) -> Any:  # noqa: ANN401
        nonlocal reading
        started = time.perf_counter()
        found = gather(*arguments)
        reading = time.perf_counter() - started
        return found

    run.gather = timed
    started = time.perf_counter()
    result = calibrate(plan)
    whole = time.perf_counter() - started
    figures = result.calibration
    return {
        "reading_s": reading,
        "rest_s": whole - reading,
        "cpu_s": time.process_time(),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "said": f"{result.policy.stages[0].model}: {figures.accept_rate:.4f} accepted",
        "drop_points": figures.drop_points,
    }


if __name__ == "__main__":
    sys.exit(main())
