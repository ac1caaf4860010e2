"""Is the promise kept? Calibrate on resamples of the real records, look at the true drop.

    python benchmarks/bench_validity.py [pairs] [whole]

Without a name both parts are measured; with one, the other keeps its last results.

The 50,000 images are the population. Each run draws n of them with replacement, calibrates, and
looks up the drop of the threshold it got on the whole population. `certified` promises that this
exceeds ε in at most δ of the runs. Beside it, on the same draws: `empirical` (loosest threshold
within ε on the draw), `crc` (whose promise is about the mean only) and `ltt-hb`, all with the
certified method's score and fusion, and `tinysaver`, the paper's own rule. That is `pairs`.

`whole` resamples the whole of what `calibrate --saver all` does: a tenth of the draw decides which
cascades of up to three stages are certified, the rest certifies them, the cheapest is taken.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bench_search import problem_of
from imagenet import FOUR_PAIRS, RESULTS, Records, called_with, read_records, save, table
from scipy import stats

from tinysaver_edge.calibrate.chosen.choose import choose, policy_of
from tinysaver_edge.calibrate.methods.certify import CertifiedChoice, certify_pair
from tinysaver_edge.calibrate.methods.counts import SortedScores, WalkCounts
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.methods.sweep import (
    Sweep,
    crc,
    ltt_hoeffding_bentkus,
    tinysaver_threshold,
)
from tinysaver_edge.calibrate.targets import Targets
from tinysaver_edge.deciding.figures import cost_ratio
from tinysaver_edge.deciding.policy import replay
from tinysaver_edge.errors import InfeasibleError
from tinysaver_edge.fusion import Fusion
from tinysaver_edge.outputs import IntArray

RUNS = 300
RISK = 0.1
CELLS = tuple((n, points) for n in (2000, 10_000) for points in (0.5, 1.0))
WHOLE = ("nasnetlarge", "inceptionresnetv2", "xception")
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
    """Measure the parts asked for and print both; exit 1 when the promise is not kept."""
    words = called_with(__doc__, names=PARTS) or list(PARTS)
    records = read_records()
    measured = {name: PARTS[name][0](records) for name in words}
    kept = RESULTS / "bench_validity.json"
    figures = (json.loads(kept.read_text()) if kept.is_file() else {}) | measured
    told = {name: PARTS[name][1](figures[name]) for name in PARTS if name in figures}
    save(
        "bench_validity",
        title="Is the promise kept?",
        text="\n\n".join(text for text, _ in told.values()),
        figures={name: figures[name] for name in told},
    )
    return int(any(broken for _, broken in told.values()))


def pairs(records: Records) -> list[dict[str, Any]]:
    """What every method does with four pairs."""
    found = []
    for i, pair in enumerate(FOUR_PAIRS):
        for j, (n, points) in enumerate(CELLS):
            methods = run_cell(records, pair, (n, points), seed=17 * i + j)
            found.append(
                {"saver": pair[0], "large": pair[1], "samples": n, "max_drop_points": points}
                | {
                    method: {"broken": int(tally.broken), "cost": float(np.mean(tally.costs))}
                    for method, tally in methods.items()
                }
            )
    return found


def told_pairs(found: list[dict[str, Any]]) -> tuple[str, bool]:
    """Say how often each method broke its promise."""
    rows: list[tuple[object, ...]] = [
        (
            f"{one['saver']} → {one['large']}",
            one["samples"],
            one["max_drop_points"],
            *(f"{one[method]['broken'] / RUNS:.3f}" for method in METHODS),
            *(f"{one[method]['cost']:.3f}" for method in ("certified", "empirical")),
        )
        for one in found
    ]
    total = RUNS * len(found)
    pooled = {m: sum(one[m]["broken"] for one in found) / total for m in METHODS}
    rows.append(("pooled", "", "", *(f"{pooled[m]:.3f}" for m in METHODS), "", ""))
    worst = max(lower_limit(one["certified"]["broken"]) for one in found)
    text = (
        f"{RUNS} runs a cell, δ = {RISK}. Share of runs whose true drop exceeds ε, and mean true "
        "cost.\n\n"
        + table(("pair", "n", "ε, points", *METHODS, "cost certified", "cost empirical"), rows)
        + f"\n\nTargets: certified ≤ {RISK} pooled ({pooled['certified']:.3f}); no cell's "
        f"lower 95 % limit above {RISK} (the highest is {worst:.3f})."
    )
    return text, pooled["certified"] > RISK or worst > RISK


def whole(records: Records) -> list[dict[str, Any]]:
    """The choice among all savers and chains resampled as well."""
    found = []
    for i, large in enumerate(WHOLE):
        population = problem_of(records, large)
        for j, (n, points) in enumerate(CELLS):
            rng, tally, lengths = np.random.default_rng(101 + 17 * i + j), Tally(), Counter[int]()
            asked = Targets(max_drop_points=points, confidence=1 - RISK)
            for run in range(RUNS):
                drawn = population.subset(rng.integers(0, len(population.labels), size=n))
                proposals = propose_all(drawn, asked, seed=run, candidates=len(drawn.savers))
                try:
                    policy = policy_of(choose(drawn, proposals, asked))
                except InfeasibleError:
                    tally.costs.append(1.0)
                    continue
                truth = replay(policy, population.outputs_of(policy))
                right = truth.predictions == population.labels
                lost = int(records.correct(large).sum()) - int(right.sum())
                tally.broken += 100 * lost > points * len(right)
                tally.costs.append(cost_ratio(policy, truth) or 1.0)
                lengths[len(policy.asked)] += 1
            found.append(
                {
                    "large": large,
                    "savers": len(population.savers),
                    "samples": n,
                    "max_drop_points": points,
                    "broken": int(tally.broken),
                    "cost": float(np.mean(tally.costs)),
                    "three_stages": lengths[3],
                }
            )
            print(found[-1], file=sys.stderr)
    return found


def told_whole(found: list[dict[str, Any]]) -> tuple[str, bool]:
    """Say how often the whole procedure broke its promise."""
    rows = [
        (
            one["large"],
            one["savers"],
            one["samples"],
            one["max_drop_points"],
            f"{one['broken'] / RUNS:.3f}",
            f"{one['cost']:.3f}",
            f"{one['three_stages'] / RUNS:.2f}",
        )
        for one in found
    ]
    pooled = sum(one["broken"] for one in found) / (RUNS * len(found))
    worst = max(lower_limit(one["broken"]) for one in found)
    text = (
        f"The whole procedure, {RUNS} runs a cell: all savers, up to three stages, chosen on a "
        f"tenth of each draw and certified on the rest. Share of runs whose true drop exceeds ε: "
        f"pooled {pooled:.3f} (target ≤ {RISK}); the highest lower 95 % limit of a cell is "
        f"{worst:.3f} (target ≤ {RISK}).\n\n"
    )
    head = ("large model", "savers", "n", "ε, points", "broken", "cost", "of three stages")
    return text + table(head, rows), pooled > RISK or worst > RISK


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


PARTS: dict[str, tuple[Callable[[Records], Any], Callable[[Any], tuple[str, bool]]]] = {
    "pairs": (pairs, told_pairs),
    "whole": (whole, told_whole),
}


if __name__ == "__main__":
    sys.exit(main())
