"""The CIFAR-10 recipe over ten seeds: hold-out cost and drop, certified and empirical.

    python benchmarks/bench_cifar10.py [WORK_DIR]

The first run measures three models on 10,000 images (minutes); records are kept in WORK_DIR.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bench_resize import DATA

from tinysaver_edge.calibrate import Method, calibrate
from tinysaver_edge.calibrate.recipe import load_recipe


def main() -> int:
    """Print a row a method."""
    work = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="cifar10-"))
    settings = load_recipe("cifar10", root=DATA / "cifar10")
    asked = replace(settings, holdout=0.5, work_dir=work, no_timing=True)
    print("method     mean cost  mean drop  worst drop  large alone   (hold-out, seeds 0 to 9)")
    for method in (Method.CERTIFIED, Method.EMPIRICAL):
        found = [
            calibrate(replace(asked, seed=seed, method=method.value).plan()).holdout
            for seed in range(10)
        ]
        rows = [one for one in found if one is not None]
        costs = [one.cost_macs_ratio for one in rows if one.cost_macs_ratio is not None]
        drops = [one.drop_points for one in rows]
        large = statistics.fmean(one.accuracy_large for one in rows)
        print(
            f"{method.value:10} {statistics.fmean(costs):9.3f} {statistics.fmean(drops):+10.2f} "
            f"{max(drops):+11.2f} {100 * large:10.2f} %"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
