"""`calibrate --on ray`: how much faster two nodes measure than one, and whether records are equal.

    .venv-ray/bin/python benchmarks/bench_ray.py

A head without cores and nodes of one core each are started on this machine, so that two cores must
be free. A node of one core has that core and no other: it and all that it starts are bound to one.
One model (MobileNetV3-small, twice as wide, of random weights) runs over pictures, on one node and
on two by turns. The rate is the slope of the chunks that are done over time, from a quarter of them
on, when all workers have started; the whole time is printed beside it. A task is one chunk, for
finer times. Records are compared with one that was measured here.
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
        artefact, data = made(folder)
        here = measure(artefact, data, folder / "here", fingerprint="f").outputs.logits
        cluster = Cluster(
            initialize_head=True,
            head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False},
        )
        os.environ["RAY_ADDRESS"] = cluster.address
        node_of(cluster, core=0)
        rates: dict[int, list[float]] = {1: [], 2: []}
        whole: dict[int, list[float]] = {1: [], 2: []}
        try:
            workers = RayWorkers.joined("ray")
            for turn in range(ROUNDS):
                for nodes in (1, 2):
                    second = node_of(cluster, core=1) if nodes == 2 else None
                    timed = Timed(workers)
                    place = folder / f"{turn}-{nodes}"
                    record = measure(artefact, data, place, fingerprint="f", do=timed)
                    assert np.array_equal(record.outputs.logits, here), "records differ"
                    rates[nodes].append(timed.rate)
                    print(
                        f"{nodes} nodes: {timed.rate:.0f}/s, {timed.whole_s:.1f} s", file=sys.stderr
                    )
                    whole[nodes].append(timed.whole_s)
                    if second is not None:
                        cluster.remove_node(second, allow_graceful=False)
            workers.close()
        finally:
            cluster.shutdown()
    factor = median(rates[2]) / median(rates[1])
    rows = [
        (nodes, ", ".join(f"{one:.0f}" for one in rates[nodes]), f"{median(whole[nodes]):.1f}")
        for nodes in rates
    ]
    load = os.getloadavg()[0]
    text = (
        f"{PICTURES:,} pictures, {ROUNDS} turns, on a machine of {os.cpu_count()} cores (load "
        f"{load:.1f} at the end, these workers included); records equal to the bit. Two nodes "
        f"measure **{factor:.2f} ×** as fast as one (target ≥ {FACTOR}).\n\n"
        + table(("nodes", "pictures a second", "whole, s (median)"), rows)
    )
    figures: dict[str, Any] = {"rates": rates, "whole_s": whole, "factor": factor, "load": load}
    save("bench_ray", title="A calibration on a cluster", text=text, figures=figures)
    return int(factor < FACTOR)


def node_of(cluster: Cluster, *, core: int) -> Any:  # noqa: ANN401
    """Start a node that has one of this machine's cores and no other."""
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(all_cores)[core % len(all_cores)]})
    try:
        return cluster.add_node(**NODE)
    finally:
        os.sched_setaffinity(0, all_cores)


def made(folder: Path) -> tuple[Artefact, Any]:
    """Write a model and pictures."""
    path = mobilenet_v3_small(folder / "model.onnx", width=2.0)
    description = description_from(DESCRIPTION, path, folder=folder, source="benchmark")
    pictures = folder / "pictures" / "any"
    pictures.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(pictures / f"{number:05d}.jpg"), cv2.resize(coarse, (256, 256)))
    return prepare(ModelFile(path, description), folder / "models"), open_data(pictures.parent)


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
