"""The time of a certificate: 100 thresholds on 50,000 samples, after the sort.

python benchmarks/bench_certificate.py
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
from imagenet import called_with, read_records, save, table

from tinysaver_edge.calibrate.methods.counts import SortedScores, Verdicts, WalkCounts
from tinysaver_edge.certificate.p_values import p_value, walk
from tinysaver_edge.fusion import ConditionalLogit
from tinysaver_edge.score import Margin

ROUNDS = 200
TARGET_MS = 5.0


def main() -> int:
    """Print the table; exit 1 when the target is missed."""
    called_with(__doc__)
    records = read_records()
    saver, large = records.outputs["mobilenetV2"], records.outputs["nasnetlarge"]
    final = ConditionalLogit().fuse(saver, large)[0] == records.labels
    answers = Verdicts.of((records.correct("mobilenetV2"), final), records.correct("nasnetlarge"))
    scores = SortedScores.of(Margin()(saver))
    thresholds = {
        "100 thresholds": np.linspace(0.999, 0.0, 100),
        "the margin's own 310": Margin().fixed_thresholds(),
    }
    rows, figures = [], {}
    for name, grid in thresholds.items():
        counting, testing = [], []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            counts = WalkCounts.of(scores, answers, grid)
            counted = time.perf_counter()
            same = counts.samples - counts.lost - counts.gained
            walk(p_value(counts.lost, counts.gained, same, epsilon=0.005, risk=0.1), risk=0.1)
            counting.append(1e3 * (counted - start))
            testing.append(1e3 * (time.perf_counter() - counted))
        count, test = statistics.median(counting), statistics.median(testing)
        rows.append((name, f"{count:.2f}", f"{test:.2f}", f"{count + test:.2f}"))
        figures[name] = {"count_ms": count, "p_value_ms": test, "total_ms": count + test}
    text = f"mobilenetV2 → nasnetlarge, 50,000 samples, median of {ROUNDS}; target ≤ 5 ms.\n\n"
    text += table(("thresholds", "count, ms", "p-values and walk, ms", "together, ms"), rows)
    save("bench_certificate", title="The time of a certificate", text=text, figures=figures)
    return int(figures["100 thresholds"]["total_ms"] > TARGET_MS)


if __name__ == "__main__":
    sys.exit(main())
