"""Cascades of three stages: what they cost certified, whether the promise holds, how long it takes.

    python benchmarks/bench_chains.py

First: three chains that are named beforehand, at the default's path, on disjoint draws of the
50,000 images; beside each the best two stages of the same models. Second: `--saver all` with up to
three stages against two, before every large model; the chains are chosen on samples that do not
certify. Third: the promise, on resamples with replacement as in `bench_validity`, the true drop
being that on all images. Last: time and memory of the search over twelve savers. ε = 0.5 points
unless a row says otherwise, δ = 0.1. Ratio and weights of the path were chosen on these records.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
from bench_search import problem_of
from bench_validity import RISK, lower_limit
from imagenet import Records, read_records, save, table

from tinysaver_edge.calibrate.chosen.choose import choose, policy_of
from tinysaver_edge.calibrate.methods.certify import certify, trial_of
from tinysaver_edge.calibrate.methods.counts import CertifiedTest
from tinysaver_edge.calibrate.methods.path import Path
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.targets import Targets
from tinysaver_edge.certificate import EvidenceKind
from tinysaver_edge.deciding.figures import figures
from tinysaver_edge.fusion import NoFusion
from tinysaver_edge.questions import Known
from tinysaver_edge.score import Margin

CHAINS = (
    ("mobilenetV2", "nasnetmobile", "nasnetlarge"),
    ("mobilenetV2", "nasnetmobile", "inceptionresnetv2"),
    ("mobilenetV2", "nasnetmobile", "xception"),
)
SIZES = (40_000, 10_000)
DRAWS = 20
SEARCH_DRAWS = 4
RUNS = 300
POINTS = 0.5
CELLS = tuple((n, points) for n in (2000, 10_000) for points in (0.5, 1.0))


def main() -> int:
    """Print all tables; exit 1 when the promise is not kept or two stages would be cheaper."""
    records = read_records()
    named, of_named = named_chains(records)
    kept, of_runs, broken = promise(records)
    spent, of_search = search_time(records)
    every, of_every, dearest = all_large(records)
    save(
        "bench_chains",
        title="Cascades of three stages",
        text="\n\n".join((named, every, kept, spent)),
        figures={
            "named": of_named,
            "all": of_every,
            "promise": of_runs,
            "search": of_search,
        },
    )
    return int(broken or dearest > 1.01)


def tested(records: Records, chain: tuple[str, ...]) -> CertifiedTest:
    """Scores and verdicts of a chain on all images."""
    return trial_of(
        Margin(),
        NoFusion(),
        Path.of(len(chain) - 1),
        tune_saver=records.outputs[chain[0]],
        stages=[records.outputs[name] for name in chain],
        known=Known.of_labels(records.labels),
        groups=None,
        evidence=EvidenceKind.LABELS,
        risk=RISK,
        candidates=1,
    )


def on(whole: CertifiedTest, index: np.ndarray) -> CertifiedTest:
    """The same on a draw."""
    return CertifiedTest(
        path=whole.path,
        scores=whole.scores[:, index],
        answers=whole.answers.subset(index),
        given=whole.given[:, index],
        large=whole.large[index],
        thresholds=whole.thresholds,
        evidence=whole.evidence,
        groups=None,
        risk=whole.risk,
        candidates=1,
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


def named_chains(records: Records) -> tuple[str, list[dict[str, object]]]:
    """Certified cost of the named chains and of the two-stage cascades of the same models."""
    rows, found = [], []
    for chain in CHAINS:
        whole, large = tested(records, chain), chain[-1]
        for n in SIZES:
            costs: dict[tuple[str, ...], list[float]] = {}
            rng = np.random.default_rng(1)
            for _ in range(DRAWS):
                index = rng.permutation(len(records.labels))[:n]
                certificate, _ = on(whole, index).certify(POINTS)
                threshold = None if certificate is None else certificate.threshold
                costs.setdefault(chain, []).append(true_cost(records, chain, whole, threshold))
                for saver in chain[:-1]:
                    costs.setdefault((saver, large), []).append(
                        two_stages(records, saver, large, index)
                    )
            means = {one: float(np.mean(values)) for one, values in costs.items()}
            two = min(cost for one, cost in means.items() if len(one) == 2)
            ratio = means[chain] / two
            rows.append((" → ".join(chain), n, f"{means[chain]:.3f}", f"{two:.3f}", f"{ratio:.3f}"))
            found.append({"chain": chain, "samples": n, "cost": means[chain], "two_stages": two})
    head = ("cascade", "n", "cost", "best two stages of these", "ratio")
    text = f"Mean true cost over {DRAWS} draws without replacement, nothing tuned.\n\n"
    return text + table(head, rows), found


def two_stages(records: Records, saver: str, large: str, index: np.ndarray) -> float:
    """True cost of the default with one saver, certified on a draw."""
    stages = [records.outputs[name] for name in (saver, large)]
    choice = certify(
        [one.subset(index) for one in stages], records.labels[index], max_drop_points=POINTS
    )
    if choice.threshold is None:
        return 1.0
    return records.kappa(saver, large) + float((choice.score(stages[0]) < choice.threshold).mean())


def all_large(records: Records) -> tuple[str, list[dict[str, object]], float]:
    """`--saver all` before every large model: up to three stages against two."""
    rows, found = [], []
    by_cost = sorted(records.macs, key=lambda name: records.macs[name])
    for large in by_cost[2:]:
        whole = problem_of(records, large)
        for n in SIZES:
            costs: dict[int, list[float]] = {2: [], 3: []}
            for run in range(SEARCH_DRAWS):
                draw = np.sort(np.random.default_rng([5, run]).permutation(len(whole.labels))[:n])
                problem = whole.subset(draw)
                for stages, values in costs.items():
                    asked = Targets(max_drop_points=POINTS, max_stages=stages)
                    count = len(problem.savers)
                    choice = choose(
                        problem, propose_all(problem, asked, seed=run, candidates=count), asked
                    )
                    policy = policy_of(choice)
                    truth = figures(policy, whole.outputs_of(policy), whole.labels)
                    values.append(float(truth.cost_macs_ratio or 1.0))
            two, three = (float(np.mean(costs[stages])) for stages in (2, 3))
            rows.append(
                (large, n, len(whole.savers), f"{two:.3f}", f"{three:.3f}", f"{three / two:.3f}")
            )
            found.append({"large": large, "samples": n, "two": two, "three": three})
    dearest = max(row["three"] / row["two"] for row in found)  # type: ignore[operator]
    text = (
        f"`--saver all`, mean true cost over {SEARCH_DRAWS} draws without replacement; the dearest "
        f"ratio is {dearest:.3f} (target ≤ 1.01).\n\n"
    )
    head = ("large model", "n", "savers", "two stages", "up to three", "ratio")
    return text + table(head, rows), found, dearest


def promise(records: Records) -> tuple[str, list[dict[str, object]], bool]:
    """How often the true drop exceeds ε."""
    rows, found = [], []
    for place, chain in enumerate(CHAINS):
        whole = tested(records, chain)
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
            rows.append(
                (" → ".join(chain), n, points, f"{broken / RUNS:.3f}", f"{np.mean(costs):.3f}")
            )
            found.append(
                {"chain": chain, "samples": n, "max_drop_points": points, "broken": broken}
            )
    pooled = sum(int(str(row["broken"])) for row in found) / (RUNS * len(found))
    worst = max(lower_limit(int(str(row["broken"]))) for row in found)
    text = (
        f"{RUNS} resamples a cell: share whose true drop exceeds ε. Pooled {pooled:.3f} (target ≤ "
        f"{RISK}); the highest lower 95 % limit of a cell is {worst:.3f} (target ≤ {RISK}).\n\n"
    )
    head = ("cascade", "n", "ε, points", "broken", "cost")
    return text + table(head, rows), found, pooled > RISK or worst > RISK


def search_time(records: Records) -> tuple[str, dict[str, float]]:
    """The search over twelve savers and 50,000 images."""
    problem, asked = problem_of(records, "nasnetlarge"), Targets(max_drop_points=POINTS)
    spent = {}
    for stages in (3, 4):
        started = time.perf_counter()
        wanted = Targets(max_drop_points=POINTS, max_stages=stages)
        choose(problem, propose_all(problem, wanted, seed=0, candidates=12), asked)
        spent[f"seconds_{stages}"] = time.perf_counter() - started
    spent["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    text = (
        f"12 savers before nasnetlarge, 50,000 images: {spent['seconds_3']:.1f} s for up to three "
        f"stages, {spent['seconds_4']:.1f} s for four (target ≤ 60 s); {spent['peak_mb']:.0f} MB "
        f"at most so far, records included (target ≤ 2,000)."
    )
    return text, spent


if __name__ == "__main__":
    sys.exit(main())
