"""The exact sweep: all 78 pairs of the ImageNet records, and one pair against a scan with masks.

    python benchmarks/bench_sweep.py

The scan tries 1,000 thresholds, one mask each, for the figures that TinySaver's own code takes at
each: accept rate, both models' accuracy on the accepted samples, and the cascade's accuracy.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from imagenet import Records, called_with, read_records, save, table

from tinysaver_edge.calibrate.methods.counts import SortedScores
from tinysaver_edge.calibrate.methods.sweep import Sweep
from tinysaver_edge.outputs import BoolArray, FloatArray
from tinysaver_edge.score import Margin

ROUNDS = 15
ALL_PAIRS_S = 0.5
FASTER_THAN_MASKS = 100


def main() -> int:
    """Print the table; exit 1 when a target is missed."""
    called_with(__doc__)
    records = read_records()
    correct = {model: records.correct(model) for model in records.macs}
    saver, large = correct["mobilenetV2"], correct["nasnetlarge"]
    score = Margin()(records.outputs["mobilenetV2"])
    ordered = SortedScores.of(score)
    everything = seconds(lambda: sweep_all(records, correct))
    one = seconds(
        lambda: Sweep.of(SortedScores.of(score), saver_correct=saver, large_correct=large)
    )
    again = seconds(lambda: Sweep.of(ordered, saver_correct=saver, large_correct=large))
    masks = seconds(lambda: scan(score, saver, large), rounds=3)
    rows = [
        ("78 pairs × 50,000: score, sort, sweep, pick", f"{everything:.3f} s", "≤ 0.5 s"),
        ("one pair, sort included", f"{1e3 * one:.2f} ms", ""),
        ("one pair, saver sorted already", f"{1e3 * again:.2f} ms", ""),
        ("one pair, 1,000 masks", f"{1e3 * masks:.0f} ms", ""),
        ("exact sweep with sort, times faster", f"{masks / one:.0f}", "≥ 100"),
        ("exact sweep after sort, times faster", f"{masks / again:.0f}", ""),
    ]
    figures = {
        "all_pairs_s": everything,
        "one_pair_ms": 1e3 * one,
        "one_pair_after_sort_ms": 1e3 * again,
        "masks_ms": 1e3 * masks,
        "times_faster_than_masks": masks / one,
    }
    text = f"Median of {ROUNDS} runs.\n\n" + table(("what", "measured", "target"), rows)
    save("bench_sweep", title="The exact sweep", text=text, figures=figures)
    return int(everything > ALL_PAIRS_S or masks / one < FASTER_THAN_MASKS)


def seconds(work: Callable[[], object], *, rounds: int = ROUNDS) -> float:
    """Median wall time of a piece of work."""
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def sweep_all(records: Records, correct: dict[str, BoolArray]) -> list[float]:
    """Accept rates of the loosest thresholds within half a point, for all pairs."""
    margin = Margin()
    ordered = {m: SortedScores.of(margin(outputs)) for m, outputs in records.outputs.items()}
    found = []
    for saver, large in records.pairs:
        sweep = Sweep.of(ordered[saver], saver_correct=correct[saver], large_correct=correct[large])
        point = sweep.loosest_within(0.5)
        found.append(0.0 if point is None else point.accept_rate)
    return found


def scan(score: FloatArray, saver: BoolArray, large: BoolArray) -> list[tuple[float, ...]]:
    """A thousand thresholds, a mask each."""
    found = []
    for threshold in np.linspace(0.999, 0.0, 1000):
        accept = score >= threshold
        some = bool(accept.any())
        found.append(
            (
                float(accept.mean()),
                float(saver[accept].mean()) if some else 0.0,
                float(large[accept].mean()) if some else 0.0,
                float(np.where(accept, saver, large).mean()),
            )
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
