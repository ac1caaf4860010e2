"""Is the promise kept? Calibrate on resamples of the real records, look at the true drop.

    python benchmarks/bench_validity.py

The 50,000 images are the population. Each run draws n of them with replacement, calibrates, and
looks up the drop of the threshold it got on the whole population. `certified` promises that this
exceeds ε in at most δ of the runs. Beside it, on the same draws: `empirical` (loosest threshold
within ε on the draw), `crc` (whose promise is about the mean only) and `ltt-hb`, all with the
certified method's score and fusion, and `tinysaver`, the paper's own rule.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from imagenet import FOUR_PAIRS, Records, read_records, save, table
from scipy import stats

from tinysaver_edge.calibrate.methods.certify import CertifiedChoice, certify_pair
from tinysaver_edge.calibrate.methods.counts import SortedScores, WalkCounts
from tinysaver_edge.calibrate.methods.sweep import (
    Sweep,
    crc,
    ltt_hoeffding_bentkus,
    tinysaver_threshold,
)
from tinysaver_edge.fusion import Fusion
from tinysaver_edge.outputs import IntArray

RUNS = 300
RISK = 0.1
CELLS = tuple((n, points) for n in (2000, 10_000) for points in (0.5, 1.0))
METHODS = ("certified", "ltt-hb", "crc", "empirical", "tinysaver")


@dataclass
class Tally:
    """What one method did over the runs of one cell.

    Attributes:
        broken: runs whose true drop exceeds ε.
        costs: true cost of each run; 1 where it abstained.
    """

    broken: int = 0
    costs: list[float] = field(default_factory=list)


class Population:
    """True drop and accept rate of any threshold of one pair, on all images."""

    def __init__(self, records: Records, saver: str, large: str) -> None:
        self.records, self.saver, self.large = records, saver, large
        self.sweeps: dict[str, Sweep] = {}

    def of(self, choice: CertifiedChoice) -> Sweep:
        """The sweep with a choice's score and fusion."""
        key = f"{choice.score.name} {choice.fusion.name}"
        if key not in self.sweeps:
            score = choice.score(self.records.outputs[self.saver])
            self.sweeps[key] = self.sweep(score, choice.fusion)
        return self.sweeps[key]

    @property
    def paper(self) -> Sweep:
        """The sweep of the paper's rule: the highest softmax, no fusion."""
        if "paper" not in self.sweeps:
            score = self.records.outputs[self.saver].confidences
            self.sweeps["paper"] = self.sweep(score, None)
        return self.sweeps["paper"]

    def sweep(self, score: np.ndarray, fusion: Fusion | None) -> Sweep:
        """Sweep all images."""
        records = self.records
        final = None
        if fusion is not None:
            outputs = records.outputs[self.saver], records.outputs[self.large]
            final = fusion.fuse(*outputs)[0] == records.labels
        return Sweep.of(
            SortedScores.of(score),
            saver_correct=records.correct(self.saver),
            large_correct=records.correct(self.large),
            final_correct=final,
        )


def main() -> int:
    """Print the table; exit 1 when the promise is not kept."""
    records = read_records()
    tallies = {
        (pair, cell): run_cell(records, pair, cell, seed=17 * i + j)
        for i, pair in enumerate(FOUR_PAIRS)
        for j, cell in enumerate(CELLS)
    }
    rows, figures = [], []
    for (pair, (n, points)), methods in tallies.items():
        shares = [f"{methods[m].broken / RUNS:.3f}" for m in METHODS]
        costs = [f"{np.mean(methods[m].costs):.3f}" for m in ("certified", "empirical")]
        rows.append((" → ".join(pair), n, points, *shares, *costs))
        figures.append(
            {"saver": pair[0], "large": pair[1], "samples": n, "max_drop_points": points}
            | {m: {"broken": t.broken, "cost": float(np.mean(t.costs))} for m, t in methods.items()}
        )
    pooled = Counter[str]()
    for methods in tallies.values():
        pooled.update({m: t.broken for m, t in methods.items()})
    total = RUNS * len(tallies)
    rows.append(("pooled", "", "", *(f"{pooled[m] / total:.3f}" for m in METHODS), "", ""))
    worst = max(lower_limit(methods["certified"].broken) for methods in tallies.values())
    text = (
        f"{RUNS} runs a cell, δ = {RISK}. Share of runs whose true drop exceeds ε, and mean true "
        "cost.\n\n"
        + table(("pair", "n", "ε, points", *METHODS, "cost certified", "cost empirical"), rows)
        + f"\n\nTargets: certified ≤ {RISK} pooled ({pooled['certified'] / total:.3f}); no cell's "
        f"lower 95 % limit above {RISK} (the highest is {worst:.3f})."
    )
    summary = {
        "runs": RUNS,
        "risk": RISK,
        "cells": figures,
        "pooled": {m: pooled[m] / total for m in METHODS},
        "highest_lower_limit": worst,
    }
    save("bench_validity", title="Is the promise kept?", text=text, figures=summary)
    return int(pooled["certified"] / total > RISK or worst > RISK)


def run_cell(
    records: Records, pair: tuple[str, str], cell: tuple[int, float], *, seed: int
) -> dict[str, Tally]:
    """Calibrate on many draws by every method."""
    population = Population(records, *pair)
    kappa = records.kappa(*pair)
    tallies = {method: Tally() for method in METHODS}
    rng = np.random.default_rng(seed)
    n, points = cell
    for _ in range(RUNS):
        index = rng.integers(0, len(records.labels), size=n)
        for method, (sweep, threshold) in thresholds(population, index, points).items():
            point = None if threshold is None else sweep.at(threshold)
            tally = tallies[method]
            if point is None:
                tally.costs.append(1.0)
                continue
            tally.broken += point.drop_points > points
            tally.costs.append(kappa + point.escalation_rate)
    return tallies


def thresholds(
    population: Population, index: IntArray, points: float
) -> dict[str, tuple[Sweep, float | None]]:
    """Each method's threshold on one draw, and the population's sweep that tells its drop."""
    records = population.records
    saver = records.outputs[population.saver].subset(index)
    large = records.outputs[population.large].subset(index)
    labels = records.labels[index]
    choice = certify_pair(saver, large, labels, max_drop_points=points, confidence=1 - RISK)
    trial, truth = choice.trial, population.of(choice)
    ordered = SortedScores.of(trial.scores[0])
    saver_right, large_right = saver.predictions == labels, large.predictions == labels
    drawn = Sweep.of(
        ordered,
        saver_correct=saver_right,
        large_correct=large_right,
        final_correct=large_right - trial.answers.losses[-1] == 1,
    )
    counts = WalkCounts.of(ordered, trial.answers, trial.thresholds)
    found = {
        "ltt-hb": ltt_hoeffding_bentkus(counts, points, risk=RISK),
        "crc": crc(drawn, points),
        "empirical": drawn.loosest_within(points),
    }
    paper = tinysaver_threshold(
        saver.confidences, saver_correct=saver_right, large_correct=large_right
    )
    return {
        "certified": (truth, choice.threshold),
        "tinysaver": (population.paper, paper.threshold),
    } | {m: (truth, None if p is None else p.threshold) for m, p in found.items()}


def lower_limit(broken: int) -> float:
    """One-sided lower 95 % limit (Clopper-Pearson) of the share of broken promises."""
    limit = float(stats.beta.ppf(0.05, broken, RUNS - broken + 1))
    return 0.0 if math.isnan(limit) else limit


if __name__ == "__main__":
    sys.exit(main())
