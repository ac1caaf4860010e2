"""Cascades of three stages: what they cost certified, whether the promise holds, how long it takes.

    python benchmarks/bench_chains.py [named] [all] [unseen] [promise] [search]

Without a name every part is measured; with some, the others keep their last results. ε = 0.5 points
unless a row says otherwise, δ = 0.1. Costs are true ones, on all images that a part measures on.

named    three chains that are named beforehand, at the default's path, on draws of the 50,000
         images without replacement; beside each the best two stages of the same models
all      `--saver all` with up to three stages against two, before every large model; the chains are
         chosen on samples that do not certify
unseen   ratio and weights of the path were chosen on these records: here they are chosen anew, for
         each large model on one half of the images and before the other large models only, and
         measured on the other half, beside the constants
promise  resamples with replacement as in `bench_validity`, the true drop being that on all images
search   time and memory of the search over twelve savers
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from bench_search import problem_of
from bench_validity import RISK, lower_limit
from imagenet import RESULTS, Records, called_with, read_records, save, table

from tinysaver_edge.calibrate.chosen.choose import choose, policy_of
from tinysaver_edge.calibrate.methods.certify import certify, trial_of
from tinysaver_edge.calibrate.methods.counts import CertifiedTest
from tinysaver_edge.calibrate.methods.path import BETWEEN, LAST, RATIO, Path
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.problem import Problem
from tinysaver_edge.calibrate.targets import ALL, Targets
from tinysaver_edge.certificate.p_values import EvidenceKind
from tinysaver_edge.deciding.figures import figures
from tinysaver_edge.errors import InfeasibleError
from tinysaver_edge.fusion import NoFusion
from tinysaver_edge.questions.known import Known
from tinysaver_edge.score import Margin

CHAINS = (
    ("mobilenetV2", "nasnetmobile", "nasnetlarge"),
    ("mobilenetV2", "nasnetmobile", "inceptionresnetv2"),
    ("mobilenetV2", "nasnetmobile", "xception"),
)
SIZES = (40_000, 10_000)
DRAWS = 20
SEARCH_DRAWS = 20
RUNS = 300
POINTS = 0.5
DEAREST = 1.01
TARGETS = {True: (0.405, 0.44), False: (0.85, 0.92)}
"""By whether the last is nasnetlarge: the most it may cost, or its ratio to two stages, by size."""

Numbers = tuple[float, float, float]
"""Ratio of the odds, weight between savers, weight before the large model."""

CONSTANTS: Numbers = (RATIO, BETWEEN, LAST)
GRID: tuple[Numbers, ...] = tuple(
    product((0.1, 0.2, 0.35, 0.6), (0.35, 0.5, 0.65), (0.2, 0.3, 0.4))
)
UNSEEN_LARGE = ("densenet201", "inceptionv3", "xception", "inceptionresnetv2", "nasnetlarge")
UNSEEN_SAVERS = (
    ("mobilenetV2", "nasnetmobile"),
    ("mobilenetV2", "densenet121"),
    ("nasnetmobile", "densenet169"),
)
UNSEEN_SAMPLES = 10_000
UNSEEN_DRAWS = 6

SEARCHES: dict[str, dict[str, Any]] = {
    "up to three stages": {"max_stages": 3},
    "up to four": {"max_stages": 4},
    "up to three, all scores and fusions": {"max_stages": 3, "score": ALL, "fusion": ALL},
}

Row = dict[str, Any]
Told = tuple[str, bool]
"""What is printed, and whether a target is missed."""

CELLS = tuple((n, points) for n in (2000, 10_000) for points in (0.5, 1.0))


def main() -> int:
    """Measure the parts asked for and print all; exit 1 where a target is missed."""
    words = called_with(__doc__, names=PARTS) or list(PARTS)
    records = read_records()
    measured = {name: PARTS[name][0](records) for name in words}
    kept = RESULTS / "bench_chains.json"
    figures_of = (json.loads(kept.read_text()) if kept.is_file() else {}) | measured
    told = {name: PARTS[name][1](figures_of[name]) for name in PARTS if name in figures_of}
    save(
        "bench_chains",
        title="Cascades of three stages",
        text="\n\n".join(text for text, _ in told.values()),
        figures={name: figures_of[name] for name in told},
    )
    return int(any(missed for _, missed in told.values()))


def whole_of(
    records: Records,
    chain: tuple[str, ...],
    *,
    path: Path | None = None,
    images: np.ndarray | None = None,
) -> CertifiedTest:
    """Scores and verdicts of a chain on all images, or on some."""
    stages = [records.outputs[name] for name in chain]
    return trial_of(
        Margin(),
        NoFusion(),
        path or Path.of(len(chain) - 1),
        tune_saver=stages[0],
        stages=stages if images is None else [one.subset(images) for one in stages],
        known=Known.of_labels(records.labels if images is None else records.labels[images]),
        groups=None,
        evidence=EvidenceKind.LABELS,
        risk=RISK,
        candidates=1,
    )


def on(whole: CertifiedTest, index: np.ndarray) -> CertifiedTest:
    """The same on a draw."""
    return replace(
        whole,
        scores=whole.scores[:, index],
        answers=whole.answers.subset(index),
        given=whole.given[:, index],
        large=whole.large[index],
    )


def true_cost(
    records: Records, chain: tuple[str, ...], whole: CertifiedTest, threshold: float | None
) -> float:
    """Cost of a threshold on all images; 1 where nothing was certified."""
    if threshold is None:
        return 1.0
    counts = whole.counted(np.array([threshold]))
    kappa = [records.kappa(name, chain[-1]) for name in chain]
    return float(kappa[0] + np.array(kappa[1:]) @ counts.reached[:, 0] / counts.samples)


def certified_cost(
    records: Records, chain: tuple[str, ...], whole: CertifiedTest, index: np.ndarray
) -> float:
    """True cost of what a draw certifies."""
    certificate, _ = on(whole, index).certify(POINTS)
    threshold = None if certificate is None else certificate.threshold
    return true_cost(records, chain, whole, threshold)


def named_chains(records: Records) -> list[Row]:
    """Certified cost of the named chains and of the two-stage cascades of the same models."""
    found = []
    for chain in CHAINS:
        whole, large = whole_of(records, chain), chain[-1]
        for n in SIZES:
            costs: dict[tuple[str, ...], list[float]] = {}
            rng = np.random.default_rng(1)
            for _ in range(DRAWS):
                index = rng.permutation(len(records.labels))[:n]
                costs.setdefault(chain, []).append(certified_cost(records, chain, whole, index))
                for saver in chain[:-1]:
                    costs.setdefault((saver, large), []).append(
                        two_stages(records, saver, large, index)
                    )
            means = {one: float(np.mean(values)) for one, values in costs.items()}
            two = min(cost for one, cost in means.items() if len(one) == 2)
            found.append({"chain": chain, "samples": n, "cost": means[chain], "two_stages": two})
    return found


def told_named(found: list[Row]) -> Told:
    """Say what the named chains cost."""
    rows, missed = [], False
    for row in found:
        ratio = row["cost"] / row["two_stages"]
        most = TARGETS[row["chain"][-1] == CHAINS[0][-1]][SIZES.index(row["samples"])]
        value = row["cost"] if row["chain"][-1] == CHAINS[0][-1] else ratio
        missed |= value > most
        rows.append(
            (
                " → ".join(row["chain"]),
                row["samples"],
                f"{row['cost']:.3f}",
                f"{row['two_stages']:.3f}",
                f"{ratio:.3f}",
                f"{'cost' if row['chain'][-1] == CHAINS[0][-1] else 'ratio'} ≤ {most:g}",
            )
        )
    head = ("cascade", "n", "cost", "best two stages of these", "ratio", "target")
    text = f"Mean true cost over {DRAWS} draws without replacement, nothing tuned.\n\n"
    return text + table(head, rows), missed


def two_stages(records: Records, saver: str, large: str, index: np.ndarray) -> float:
    """True cost of the default with one saver, certified on a draw."""
    stages = [records.outputs[name] for name in (saver, large)]
    choice = certify(
        [one.subset(index) for one in stages], records.labels[index], max_drop_points=POINTS
    )
    if choice.threshold is None:
        return 1.0
    return records.kappa(saver, large) + float((choice.score(stages[0]) < choice.threshold).mean())


def all_large(records: Records) -> list[Row]:
    """`--saver all` before every large model: up to three stages against two."""
    found = []
    by_cost = sorted(records.macs, key=lambda name: records.macs[name])
    for large in by_cost[2:]:
        whole = problem_of(records, large)
        for n in SIZES:
            costs: dict[int, list[float]] = {2: [], 3: []}
            for run in range(SEARCH_DRAWS):
                draw = np.sort(np.random.default_rng([5, run]).permutation(len(whole.labels))[:n])
                for stages, values in costs.items():
                    asked = Targets(max_drop_points=POINTS, max_stages=stages)
                    values.append(searched_cost(whole, whole.subset(draw), asked, seed=run))
            found.append(
                {
                    "large": large,
                    "samples": n,
                    "savers": len(whole.savers),
                    "two": costs[2],
                    "three": costs[3],
                }
            )
            print(found[-1]["large"], n, np.mean(costs[3]) / np.mean(costs[2]), file=sys.stderr)
    return found


def searched_cost(whole: Problem, problem: Problem, asked: Targets, *, seed: int) -> float:
    """True cost of what a search on a draw chooses; 1 where nothing is certified."""
    proposals = propose_all(problem, asked, seed=seed, candidates=len(problem.savers))
    try:
        policy = policy_of(choose(problem, proposals, asked))
    except InfeasibleError:
        return 1.0
    return float(figures(policy, whole.outputs_of(policy), whole.labels).cost_macs_ratio or 1.0)


def told_all(found: list[Row]) -> Told:
    """Say what longer cascades bring before every large model."""
    rows, dearest = [], 0.0
    for row in found:
        two, three = np.array(row["two"]), np.array(row["three"])
        ratio = three.mean() / two.mean()
        error = (three - ratio * two).std(ddof=1) / np.sqrt(len(two)) / two.mean()
        dearest = max(dearest, ratio)
        rows.append(
            (
                row["large"],
                row["samples"],
                row["savers"],
                f"{two.mean():.3f}",
                f"{three.mean():.3f}",
                f"{ratio:.3f} ± {error:.3f}",
            )
        )
    text = (
        f"`--saver all`, mean true cost over {len(found[0]['two'])} draws without replacement, and "
        f"their ratio with its standard error; the dearest is {dearest:.3f} (target ≤ "
        f"{DEAREST:g}).\n\n"
    )
    head = ("large model", "n", "savers", "two stages", "up to three", "ratio")
    return text + table(head, rows), dearest > DEAREST


def unseen(records: Records) -> list[Row]:
    """Ratio and weights chosen without the large model and the images that they are measured on."""
    drawn = np.random.default_rng(11).permutation(len(records.labels))
    halves = np.sort(drawn[: len(drawn) // 2]), np.sort(drawn[len(drawn) // 2 :])
    before = dict.fromkeys(UNSEEN_LARGE, UNSEEN_SAVERS)
    costs: dict[tuple[int, str, Numbers], float] = {}
    for half, images in enumerate(halves):
        for large, savers in before.items():
            for numbers in GRID:
                costs[half, large, numbers] = float(
                    np.mean([_cost_at(records, (*one, large), numbers, images) for one in savers])
                )
            print(half, large, file=sys.stderr)
    found = []
    for large in before:
        for half in (0, 1):
            others = [one for one in before if one != large]

            def elsewhere(numbers: Numbers, half: int = half, others: list[str] = others) -> float:
                return sum(
                    costs[1 - half, one, numbers] / costs[1 - half, one, CONSTANTS]
                    for one in others
                )

            chosen = min(GRID, key=elsewhere)
            best = min(GRID, key=lambda numbers: costs[half, large, numbers])
            found.append(
                {
                    "large": large,
                    "half": half,
                    "chosen": chosen,
                    "cost_chosen": costs[half, large, chosen],
                    "cost_constants": costs[half, large, CONSTANTS],
                    "best": best,
                    "cost_best": costs[half, large, best],
                }
            )
    return found


def _cost_at(
    records: Records, chain: tuple[str, ...], numbers: Numbers, images: np.ndarray
) -> float:
    """Mean certified cost of a chain at a ratio and weights, on draws of some images."""
    ratio, between, last = numbers
    path = Path(2, ratio=ratio, pool=(between, last))
    whole = whole_of(records, chain, path=path, images=images)
    rng = np.random.default_rng(3)
    draws = [rng.permutation(len(images))[:UNSEEN_SAMPLES] for _ in range(UNSEEN_DRAWS)]
    return float(np.mean([certified_cost(records, chain, whole, index) for index in draws]))


def told_unseen(found: list[Row]) -> Told:
    """Say what ratio and weights cost where they were not chosen."""
    rows = [
        (
            row["large"],
            "first" if row["half"] == 0 else "second",
            " / ".join(f"{one:g}" for one in row["chosen"]),
            f"{row['cost_chosen']:.4f}",
            f"{row['cost_constants']:.4f}",
            f"{row['cost_best']:.4f}",
        )
        for row in found
    ]
    chosen, constants, best = (
        np.array([row[f"cost_{name}"] for row in found]) for name in ("chosen", "constants", "best")
    )
    text = (
        f"Ratio and both weights chosen on one half of the images and before the other large "
        f"models, measured on the other half (n = {UNSEEN_SAMPLES}, {UNSEEN_DRAWS} draws, "
        f"{len(UNSEEN_SAVERS)} pairs of savers each). Chosen so they cost "
        f"{(chosen / constants).mean():.4f} × what the constants do on average "
        f"({(chosen / constants).min():.4f} to {(chosen / constants).max():.4f}); the best that "
        f"hindsight could choose of {len(GRID)} costs {(best / constants).mean():.4f} ×.\n\n"
    )
    head = ("large model", "half", "chosen ratio / weights", "cost", "constants", "hindsight")
    return text + table(head, rows), False


def promise(records: Records) -> list[Row]:
    """How often the true drop exceeds ε."""
    found = []
    for place, chain in enumerate(CHAINS):
        whole = whole_of(records, chain)
        for cell, (n, points) in enumerate(CELLS):
            rng, broken, costs = np.random.default_rng(17 * place + cell), 0, []
            for _ in range(RUNS):
                index = rng.integers(0, len(records.labels), size=n)
                certificate, _ = on(whole, index).certify(points)
                threshold = None if certificate is None else certificate.threshold
                costs.append(true_cost(records, chain, whole, threshold))
                if threshold is not None:
                    counts = whole.counted(np.array([threshold]))
                    lost = int(counts.lost[0] - counts.gained[0])
                    broken += 100 * lost > points * counts.samples
            found.append(
                {
                    "chain": chain,
                    "samples": n,
                    "max_drop_points": points,
                    "broken": int(broken),
                    "cost": float(np.mean(costs)),
                }
            )
    return found


def told_promise(found: list[Row]) -> Told:
    """Say how often the promise was broken."""
    rows = [
        (
            " → ".join(row["chain"]),
            row["samples"],
            row["max_drop_points"],
            f"{row['broken'] / RUNS:.3f}",
            f"{row['cost']:.3f}",
        )
        for row in found
    ]
    pooled = sum(row["broken"] for row in found) / (RUNS * len(found))
    worst = max(lower_limit(row["broken"]) for row in found)
    text = (
        f"{RUNS} resamples a cell: share whose true drop exceeds ε. Pooled {pooled:.3f} (target ≤ "
        f"{RISK}); the highest lower 95 % limit of a cell is {worst:.3f} (target ≤ {RISK}). The "
        f"choice of the chain is resampled as well in `bench_validity`.\n\n"
    )
    head = ("cascade", "n", "ε, points", "broken", "cost")
    return text + table(head, rows), pooled > RISK or worst > RISK


def search_time(records: Records) -> Row:
    """The search over twelve savers and 50,000 images."""
    problem = problem_of(records, "nasnetlarge")
    spent: Row = {}
    for name, more in SEARCHES.items():
        started = time.perf_counter()
        wanted = Targets(max_drop_points=POINTS, **more)
        choose(problem, propose_all(problem, wanted, seed=0, candidates=12), wanted)
        spent[name] = time.perf_counter() - started
    spent["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return spent


def told_search(spent: Row) -> Told:
    """Say how long the search took."""
    times = "; ".join(f"{name} {spent[name]:.1f} s" for name in SEARCHES)
    text = (
        f"12 savers before nasnetlarge, 50,000 images: {times} (target ≤ 60 s); "
        f"{spent['peak_mb']:.0f} MB at most, records included (target ≤ 2,000)."
    )
    return text, max(spent[name] for name in SEARCHES) > 60 or spent["peak_mb"] > 2000


PARTS: dict[str, tuple[Callable[[Records], Any], Callable[[Any], Told]]] = {
    "named": (named_chains, told_named),
    "all": (all_large, told_all),
    "unseen": (unseen, told_unseen),
    "promise": (promise, told_promise),
    "search": (search_time, told_search),
}


if __name__ == "__main__":
    sys.exit(main())
