"""`calibrate --on ray`: how much faster two nodes measure than one, and whether records are equal.

    .venv-ray/bin/python benchmarks/bench_ray.py

A head without cores and nodes of one core each are started on this machine, so that two cores must
be free. A node of one core has that core and no other: it and all that it starts are bound to one.
A calibration's two models run over its pictures, a saver and a large one (MobileNetV3-small, twice
and five times as wide, of random weights), on one node and on two by turns. The rate of a model is
the slope of the chunks that are done over time, from a quarter of them on, when all workers have
started, and that of both is of a picture that both have answered; whole times are printed beside
it. A task is one chunk, for finer times. Records are compared with some that were measured here.

The driver and Ray's own processes share the two cores with the workers, which they would not where
there are more: with the saver alone, whose chunks come quickest, they take most.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from bench_decide import DESCRIPTION
from imagenet import called_with, save, table
from networks import mobilenet_v3_small

from tinysaver_edge._support.progress import SILENT
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.calibrate.measured import ray_workers
from tinysaver_edge.calibrate.measured.prepare import prepare
from tinysaver_edge.calibrate.measured.ray_workers import RayWorkers
from tinysaver_edge.calibrate.plan import ModelFile
from tinysaver_edge.data.files import open_data
from tinysaver_edge.models.description.description import description_from
from tinysaver_edge.records.measure import Answered, MeasureJob, measure

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

PICTURES = 3072
WIDTHS = {"saver": 2.0, "large": 5.0}
ROUNDS = 3
FACTOR = 1.8
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


def main() -> int:
    """Measure by turns and print; exit 1 where the target is missed."""
    called_with(__doc__)
    from ray.cluster_utils import Cluster

    ray_workers.SPAN = 1
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artefacts, data = made(folder)
        here = {
            model: measure(one, data, folder / "here", fingerprint="f").outputs.logits
            for model, one in artefacts.items()
        }
        cluster = Cluster(
            initialize_head=True,
            head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False},
        )
        os.environ["RAY_ADDRESS"] = cluster.address
        node_of(cluster, core=0)
        told: list[tuple[str, int, float, float]] = []
        try:
            workers = RayWorkers.joined("ray")
            for turn in range(ROUNDS):
                for nodes in (1, 2):
                    second = node_of(cluster, core=1) if nodes == 2 else None
                    for model, artefact in artefacts.items():
                        timed = Timed(workers)
                        place = folder / f"{turn}-{nodes}"
                        record = measure(artefact, data, place, fingerprint="f", do=timed)
                        assert np.array_equal(record.outputs.logits, here[model]), "records differ"
                        told.append((model, nodes, timed.rate, timed.whole_s))
                        print(*told[-1], file=sys.stderr)
                    if second is not None:
                        gone(cluster, second)
            workers.close()
        finally:
            cluster.shutdown()
    return report(told)


def report(told: list[tuple[str, int, float, float]]) -> int:
    """Say what was measured, and whether the target was met: model, nodes, rate, whole time."""

    def of(which: str, nodes: int, field: int) -> list[float]:
        return [one[field] for one in told if one[:2] == (which, nodes)]

    rates = {(model, nodes): of(model, nodes, 2) for model in WIDTHS for nodes in (1, 2)}
    for nodes in (1, 2):  # a picture is done when both models have answered
        both = zip(*(rates[model, nodes] for model in WIDTHS), strict=True)
        rates["both", nodes] = [1 / sum(1 / rate for rate in pair) for pair in both]
    whole = {(model, nodes): median(of(model, nodes, 3)) for model in WIDTHS for nodes in (1, 2)}
    whole |= {("both", nodes): sum(whole[model, nodes] for model in WIDTHS) for nodes in (1, 2)}
    factors = {
        model: median(rates[model, 2]) / median(rates[model, 1]) for model in (*WIDTHS, "both")
    }
    rows = [
        (
            model,
            ", ".join(f"{one:.0f}" for one in rates[model, 1]),
            ", ".join(f"{one:.0f}" for one in rates[model, 2]),
            f"{factors[model]:.2f}",
            f"{whole[model, 1]:.1f}",
            f"{whole[model, 2]:.1f}",
        )
        for model in factors
    ]
    load = os.getloadavg()[0]
    text = (
        f"{PICTURES:,} pictures, {ROUNDS} turns, on a machine of {os.cpu_count()} cores (load "
        f"{load:.1f} at the end, these workers included); records equal to the bit. Two nodes "
        f"calibrate **{factors['both']:.2f} ×** as fast as one (target ≥ {FACTOR}).\n\n"
        + table(
            ("model", "pictures/s, one node", "two nodes", "ratio", "whole, s, one node", "two"),
            rows,
        )
    )
    figures: dict[str, Any] = {"told": told, "factors": factors, "load": load}
    save("bench_ray", title="A calibration on a cluster", text=text, figures=figures)
    return int(factors["both"] < FACTOR)


def node_of(cluster: Cluster, *, core: int) -> Any:  # noqa: ANN401
    """Start a node that has one of this machine's cores and no other."""
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(all_cores)[core % len(all_cores)]})
    try:
        return cluster.add_node(**NODE)
    finally:
        os.sched_setaffinity(0, all_cores)


def gone(cluster: Cluster, node: Any) -> None:  # noqa: ANN401
    """End a node, and wait until the cluster has noticed."""
    import ray

    cluster.remove_node(node, allow_graceful=False)
    while sum(one["Alive"] for one in ray.nodes()) > 2:
        time.sleep(0.1)


def made(folder: Path) -> tuple[dict[str, Artefact], Any]:
    """Write two models and pictures."""
    artefacts = {}
    for model, width in WIDTHS.items():
        path = mobilenet_v3_small(folder / f"{model}.onnx", width=width)
        description = description_from(DESCRIPTION, path, folder=folder, source="benchmark")
        artefacts[model] = prepare(ModelFile(path, description), folder / "models")
    pictures = folder / "pictures" / "any"
    pictures.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(pictures / f"{number:05d}.jpg"), cv2.resize(coarse, (256, 256)))
    return artefacts, open_data(pictures.parent)


class Timed:
    """Has a cluster do the chunks, and keeps when each came."""

    def __init__(self, workers: RayWorkers) -> None:
        self._workers = workers
        self._came: list[float] = []
        self._chunk = 0
        self.whole_s = 0.0

    def __call__(self, job: MeasureJob, starts: Any, progress: Any, keep: Any) -> None:  # noqa: ANN401
        """Do them."""

        def kept(answered: Answered) -> None:
            self._came.append(time.perf_counter())
            keep(answered)

        self._chunk = job.chunk
        started = time.perf_counter()
        self._workers.run(job, starts, SILENT, kept)
        self.whole_s = time.perf_counter() - started

    @property
    def rate(self) -> float:
        """Pictures a second while all workers are at work: a line through what came by then."""
        times = self._came[len(self._came) // 4 : -2]
        return self._chunk * float(np.polyfit(times, np.arange(len(times)), 1)[0])


if __name__ == "__main__":
    sys.exit(main())
