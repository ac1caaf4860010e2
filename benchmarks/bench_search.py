"""The search over savers, scores and fusions: how long it takes, and what it brings.

    python benchmarks/bench_search.py [search] [rules]

Without a name both parts are measured; with one, the other keeps its last results. `search`: 12
savers before nasnetlarge and all cascades of up to three stages, 50,000 images, every score that a
record of the best five allows, every fusion; to the certified choice, the reading of the records
included. `rules`, of two stages: what the
chosen cascades cost on all 50,000 images, and how often their true drop exceeds ε, where each run
calibrates on 10,000 of them, drawn without replacement. Beside the search as it is: the default,
which searches nothing, and searches by other rules.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from imagenet import RESULTS, Records, called_with, read_records, save, table

from tinysaver_edge.calibrate.calibration import Candidate
from tinysaver_edge.calibrate.chosen.choose import choose
from tinysaver_edge.calibrate.methods.certify import CertifiedChoice, certify_pair
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.methods.search import SearchRule, search
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.calibrate.targets import ALL, Targets

LIMIT_S = 60.0
LIMIT_MB = 2000.0
LARGE = ("nasnetlarge", "xception", "inceptionresnetv2")
SAMPLES = 10_000
RUNS = 20
POINTS = 0.5
SEARCHED = Targets(max_drop_points=POINTS, score=ALL, fusion=ALL)
RULES = {
    "the search": SearchRule(),
    "only the one saver that looks best": SearchRule(drop_out=-1e9),
    "every saver": SearchRule(drop_out=1e9),
    "whatever looks best": SearchRule(take=0.0),
    "a twentieth to search on": SearchRule(share=0.05),
    "a fifth to search on": SearchRule(share=0.2),
}


@dataclass(frozen=True)
class Outcome:
    """A cascade that was chosen, on all images.

    Attributes:
        saver: its saver, "none" where nothing was certified.
        cost: of an image, relative to the large model alone.
        drop_points: accuracy lost, in points.
    """

    saver: str
    cost: float
    drop_points: float


def main() -> int:
    """Measure the parts asked for and print both; exit 1 where a target is missed."""
    parts = ("search", "rules")
    words = called_with(__doc__, names=parts) or parts
    kept = RESULTS / "bench_search.json"
    figures: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    if "search" in words:
        figures["search"] = searched()
    if "rules" in words:
        text, rules, broken = all_rules(read_records())
        figures["rules"] = {"rows": rules, "broken": broken, "text": text}
    found, rules = figures["search"], figures["rules"]
    save(
        "bench_search",
        title="The search",
        text=f"{found['text']}\n\n{rules['text']}",
        figures={"search": found, "rules": rules},
    )
    slow, large = found["seconds"] > LIMIT_S, found["peak_mb"] > LIMIT_MB
    return int(slow or large or rules["broken"] > 0.1)


def searched() -> dict[str, Any]:
    """Time and memory of one search, and what became of every cascade."""
    started = time.perf_counter()
    records = read_records()
    problem = problem_of(records, LARGE[0])
    proposals = propose_all(problem, SEARCHED, seed=0, candidates=len(problem.savers))
    choice = choose(problem, proposals, SEARCHED)
    seconds = time.perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    text = (
        f"{len(problem.savers)} savers before {LARGE[0]}, cascades of up to three stages, "
        f"{len(problem.labels):,} images, ε = {POINTS} points, δ = 0.1: {seconds:.1f} s (target ≤ "
        f"{LIMIT_S:g} s), {peak_mb:.0f} MB at most (target ≤ {LIMIT_MB:g}); "
        f"{choice.proposal.told or 'no longer cascade was chosen'}.\n\n"
        + table(
            ("savers", "score", "fusion", "tried", "estimate", "cost", "result"),
            [candidate_row(row) for row in choice.candidates],
        )
    )
    return {"seconds": seconds, "peak_mb": peak_mb, "text": text}


def candidate_row(row: Candidate) -> tuple[object, ...]:
    """A cascade's row of the first table."""
    fitted = row.tried[0].fitted if row.tried else ()
    fusion = (row.fusion or "none") if row.tried else "pool"
    return (
        row.saver,
        f"{row.score}{', fitted' if 'score' in fitted else ''}",
        f"{fusion}{', fitted' if 'fusion' in fitted else ''}",
        sum(one.estimate is not None for one in row.tried) or "",
        "" if row.estimate is None else f"{row.estimate:.3f}",
        "" if row.cost_macs_ratio is None else f"{row.cost_macs_ratio:.3f}",
        row.why,
    )


def problem_of(records: Records, large: str) -> Problem:
    """A large model and every saver that takes fewer MACs, the cheapest first."""
    cheaper = [m for m in records.macs if records.macs[m] < records.macs[large]]
    savers = sorted(cheaper, key=lambda model: records.macs[model])
    models = [ModelAnswers(m, records.outputs[m], records.macs[m]) for m in (large, *savers)]
    return Problem(models[0], tuple(models[1:]), records.labels)


def all_rules(records: Records) -> tuple[str, list[dict[str, object]], float]:
    """Mean true cost of every rule before every large model, and the search's broken promises."""
    names = ("the default", *RULES)
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    for large in LARGE:
        whole = problem_of(records, large)
        for run in range(RUNS):
            draw = np.random.default_rng([17, run]).permutation(len(records.labels))[:SAMPLES]
            problem = whole.subset(np.sort(draw))
            for name in names:
                found = calibrated(records, problem, RULES.get(name), seed=run)
                outcomes.setdefault((name, large), []).append(found)
    rows, figures = [], []
    for name in names:
        relative = [ratio(outcomes, name, large) for large in LARGE]
        every = [one for large in LARGE for one in outcomes[name, large]]
        share = sum(one.drop_points > POINTS for one in every) / len(every)
        means = [np.mean([one.cost for one in outcomes[name, large]]) for large in LARGE]
        cells = [f"{m:.3f} ({r[0]:.3f} ± {r[1]:.3f})" for m, r in zip(means, relative, strict=True)]
        rows.append((name, *cells, f"{np.mean([r[0] for r in relative]):.3f}", f"{share:.2f}"))
        figures.append({"rule": name, "costs": list(map(float, means)), "broken": share})
    text = (
        f"Mean true cost over {RUNS} runs of {SAMPLES:,} images (relative to the default ± a "
        "standard error), and the share of all runs whose true drop exceeds ε.\n\n"
        + table(("", *LARGE, "relative to the default", "broken"), rows)
        + "\n\nSavers that the search chose: "
        + "; ".join(f"before {large} {chosen(outcomes['the search', large])}" for large in LARGE)
        + "."
    )
    return text, figures, float(figures[1]["broken"])  # type: ignore[arg-type]


def ratio(
    outcomes: dict[tuple[str, str], list[Outcome]], name: str, large: str
) -> tuple[float, float]:
    """A rule's mean cost relative to the default's, with a standard error; same draws in both."""
    mine, base = (
        np.array([one.cost for one in outcomes[way, large]]) for way in (name, "the default")
    )
    difference = (mine - base) / base.mean()
    return 1 + float(difference.mean()), float(difference.std() / np.sqrt(len(mine)))


def chosen(outcomes: list[Outcome]) -> str:
    """How often each saver was chosen."""
    counts = Counter(one.saver for one in outcomes).most_common()
    return ", ".join(f"{saver} {times}" for saver, times in counts)


def calibrated(
    records: Records, problem: Problem, rule: SearchRule | None, *, seed: int
) -> Outcome:
    """Choose on a draw, by the default where there is no rule, and look it up on all images."""
    best: tuple[float, Outcome] = (math.inf, Outcome("none", 1.0, 0.0))
    found = None if rule is None else search(problem, SEARCHED, seed=seed, rule=rule)
    for place, saver in enumerate(problem.savers):
        one = None if found is None else found.savers[place]
        if one is not None and one.left_out:
            continue
        choice = certify_pair(
            saver.outputs,
            problem.large.outputs,
            problem.labels,
            max_drop_points=POINTS,
            candidates=len(problem.savers) if found is None else found.kept,
            score=None if one is None else one.score,
            fusion=None if one is None else one.fusion,
            tune=None if found is None else found.tune,
        )
        if choice.certificate is not None:
            rate = choice.certificate.steps[-1].accepted / choice.certificate.samples
            cost = records.kappa(saver.name, problem.large.name) + 1 - rate
            if cost < best[0]:
                best = cost, on_all_images(records, saver.name, problem.large.name, choice)
    return best[1]


def on_all_images(records: Records, saver: str, large: str, choice: CertifiedChoice) -> Outcome:
    """Cost and drop of a certified threshold on all 50,000 images."""
    accept = choice.score(records.outputs[saver]) >= choice.threshold
    fused, _ = choice.fusion.fuse(records.outputs[saver], records.outputs[large])
    right = np.where(accept, records.correct(saver), fused == records.labels)
    return Outcome(
        saver,
        records.kappa(saver, large) + 1 - float(accept.mean()),
        100 * float(records.correct(large).mean() - right.mean()),
    )


if __name__ == "__main__":
    sys.exit(main())
