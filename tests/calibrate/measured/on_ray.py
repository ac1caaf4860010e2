"""One calibration three times: here, on two nodes of a Ray cluster, and with one of them killed.

python -m tests.calibrate.measured.on_ray RECIPE PICTURES OUT    (in an environment with Ray)
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from tinysaver_edge._support.progress import SILENT
from tinysaver_edge.calibrate import calibrate
from tinysaver_edge.calibrate.measured import ray_workers
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.records import measure


class Heard:
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(SILENT, name)

    def note(self, message: str) -> None:
        self.notes.append(message)


def calibrated(recipe: Path, pictures: Path, out: Path, **more: object) -> dict[str, Any]:
    heard = Heard()
    given = {"data": pictures, "out": out, "max_drop": 20.0, "no_report": True, **more}
    plan = plan_of(load_recipe(str(recipe)).overridden(given))
    result = calibrate(plan, out=out, progress=heard)
    return {"warnings": result.warnings, "notes": heard.notes}


def main() -> None:
    recipe, pictures, out = map(Path, sys.argv[1:])
    ray_workers.SPAN, measure.CHUNK_SAMPLES = 1, 16
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    bare = {"num_cpus": 1, "object_store_memory": 80_000_000}
    node = {**bare, "resources": {ray_workers.RESOURCE: 1}}
    said = {"here": calibrated(recipe, pictures, out / "here", no_timing=True)}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        doomed = cluster.add_node(**node)
        cluster.add_node(**bare)  # is not asked, since others have the resource
        os.environ["RAY_ADDRESS"] = cluster.address
        worked: dict[str, int] = {}
        hand_out, done = ray_workers._Crew._hand_out, ray_workers._Crew._done

        def killing(self: Any) -> None:
            if self._starting:  # so little is to be done that the first would do it all
                return
            hand_out(self)
            on_it = any(one.node == doomed.node_id and one.tasks for one in self._hands)
            on_it &= self._job.engine is not None  # looking at the images is over
            if on_it and doomed in cluster.worker_nodes and "killed" in said:
                cluster.remove_node(doomed, allow_graceful=False)
                time.sleep(3.0)  # its worker outlives it by a moment, and is quick

        def counting(self: Any, ref: Any) -> None:
            worker, _ = self._doing.get(ref, (None, None))
            done(self, ref)
            if worker is not None:
                worked[worker.node] = worked.get(worker.node, 0) + 1

        ray_workers._Crew._hand_out, ray_workers._Crew._done = killing, counting
        said["ray"] = calibrated(recipe, pictures, out / "ray", on="ray")
        said["nodes that worked"] = len(worked)
        said["killed"] = {}
        said["killed"] = calibrated(recipe, pictures, out / "killed", on="ray")
        said["nodes left"] = len(cluster.list_all_nodes())
    finally:
        cluster.shutdown()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
