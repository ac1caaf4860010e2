"""Chains: several savers asked in turn before the large model, and which of them are worth proof.

Twelve savers make 78 cascades of up to three stages. To certify all of them would share the risk
among 78, so a tenth of the samples is set aside: on it every cascade is estimated, and only the
best of two stages and the best longer ones are certified, on the other nine tenths. A search for
scores and fusions sets a tenth aside as well, and it serves for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tinysaver_edge.calibrate.costs import CascadeCosts
from tinysaver_edge.calibrate.methods.certify import CertifyRule, default_rule, split, trial_of
from tinysaver_edge.calibrate.methods.counts import CertifiedTest
from tinysaver_edge.calibrate.methods.path import Path
from tinysaver_edge.calibrate.methods.proposal import Proposal
from tinysaver_edge.calibrate.methods.reuse import EpochTest
from tinysaver_edge.calibrate.methods.search import Search
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.calibrate.targets import ALL, Method, Objective, Reference, Targets
from tinysaver_edge.certificate.p_values import EvidenceKind, count_p_values, walk
from tinysaver_edge.outputs import FloatArray, IntArray
from tinysaver_edge.questions.known import Known
from tinysaver_edge.score import Margin, MaxSoftmax, Score

SHARE = 0.1
"""Of the samples, to choose on."""

LEAST_UNITS, LEAST_EPOCHS = 2000, 1200
"""Samples (or groups), and epochs, from which longer cascades are looked at; of fewer, each counts
for proof (`benchmarks/bench_path.py`)."""

CHAINS_KEPT = 4
"""How many of more than two stages are certified, beside the best of two."""

SCALED = (Margin.name, MaxSoftmax.name)
"""Scores within 0..1 that a pool has as well."""


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """The models asked before the large one, and what was found of them.

    Attributes:
        early: in order; one of them makes a cascade of two stages.
        left_out: why it is not certified; empty where it is.
    """

    early: tuple[ModelAnswers, ...]
    left_out: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ChosenChains:
    """Cascades to certify, and those of two stages that are not.

    Attributes:
        chains: those of two stages in the order the savers were named, then the longer ones kept.
        tune: samples that the choice was made on; none where all are certified.
        told: what became of the longer ones that are not among them, for people; or empty.
    """

    chains: tuple[Chain, ...]
    tune: IntArray
    certify: IntArray
    score: Score
    told: str = ""


def chains_of(problem: Problem, targets: Targets) -> list[tuple[ModelAnswers, ...]]:
    """Return the savers of every cascade of more than two stages that may be looked at.

    There are none for methods that choose one threshold for one saver, nor with a score or fusion
    of the user's that a pool does not have, nor with fewer than `LEAST_UNITS` samples (of epochs
    `LEAST_EPOCHS`).
    """
    asked = targets.method is Method.CERTIFIED and why_no_pool(targets) is None
    least = LEAST_UNITS if problem.timeline is None else LEAST_EPOCHS
    if not asked or _units(problem)[1] < least:
        return []
    savers = sorted(problem.savers, key=lambda saver: saver.macs)
    lengths = range(2, min(targets.max_stages - 1, len(savers)) + 1)
    return [chain for length in lengths for chain in combinations(savers, length)]


def why_no_pool(targets: Targets) -> str | None:
    """Say which score or fusion that is asked for a pool of several models has not; None for none.

    `ALL` asks for those that there are.
    """
    score, fusion = targets.score, targets.fusion
    if score is not None and score not in (ALL, *SCALED):
        return f"score {score} is one model's own: of a pool there are {' and '.join(SCALED)}"
    if fusion is not None and fusion != ALL:
        return f"fusion {fusion} joins the answers of two models: longer cascades pool theirs"
    return None


def best_chains(problem: Problem, targets: Targets, *, seed: int) -> ChosenChains:
    """Choose what to certify, by an estimate of what each would cost."""
    units, count = _units(problem)
    longer = chains_of(problem, targets)
    rule = default_rule(
        units=count,
        max_drop_points=_drop(targets),
        labelled=targets.reference is Reference.LABELS,
        score=targets.score,
    )
    pairs = [(saver,) for saver in problem.savers]
    score = rule.plain_score
    if len(pairs) + len(longer) <= CHAINS_KEPT + 1:  # as few as are certified in any case
        everything = tuple(Chain(one) for one in (*pairs, *longer))
        index = np.arange(len(problem.labels))
        return ChosenChains(everything, index[:0], index, score)
    tune, certify = split(units, share=SHARE, seed=seed)
    table = _Estimates(
        problem.subset(tune), targets, rule, samples=len(certify), units=count - _count(units, tune)
    )
    of_pairs = {one: table.of(early) for one, early in enumerate(_on(table.problem, pairs))}
    best_pair = min(of_pairs, key=of_pairs.__getitem__)
    bound = of_pairs[best_pair] if targets.aim is Objective.MACS else np.inf
    seen = [one for one in longer if one[0].macs < bound]
    best = pairs[best_pair][0].name
    chains = [
        Chain(one, "" if place == best_pair else table.told(of_pairs[place], best, bound))
        for place, one in enumerate(pairs)
    ]
    return ChosenChains(
        chains=(*chains, *(Chain(early) for early, _ in _best_of((table,), seen))),
        tune=tune,
        certify=certify,
        score=score,
        told=_told(len(longer), len(seen), best=best, tuned=len(tune)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class SearchedChains:
    """Cascades of more than two stages beside what a search for scores and fusions found.

    Attributes:
        chains: the models asked before the large one, and the score of their pools.
        told: what became of the others, for people; or empty.
    """

    chains: tuple[tuple[tuple[ModelAnswers, ...], Score], ...] = ()
    told: str = ""


def chains_beside(problem: Problem, targets: Targets, found: Search) -> SearchedChains:
    """Choose the longer cascades to certify beside a search's, by the same tune samples."""
    longer = chains_of(problem, targets)
    if not longer or found.tune is None:
        return SearchedChains()
    tuned, (_, count) = problem.subset(found.tune), _units(problem)
    names = SCALED if targets.score == ALL else (targets.score or Margin.name,)
    rules = [
        default_rule(
            units=count,
            max_drop_points=_drop(targets),
            labelled=targets.reference is Reference.LABELS,
            score=name,
        )
        for name in names
    ]
    samples = len(problem.labels) - len(found.tune)
    tables = [_Estimates(tuned, targets, rule, samples=samples, units=count) for rule in rules]
    best = found.best
    bound = best.estimate * problem.large.macs if targets.aim is Objective.MACS else np.inf
    seen = [one for one in longer if one[0].macs < bound]
    return SearchedChains(
        tuple(_best_of(tables, seen)),
        _told(len(longer), len(seen), best=best.saver, tuned=len(found.tune)),
    )


def _best_of(
    tables: Sequence[_Estimates], seen: Sequence[tuple[ModelAnswers, ...]]
) -> list[tuple[tuple[ModelAnswers, ...], Score]]:
    """Return the cascades that are expected to be the best, each with the better of the scores."""
    if not seen:
        return []
    costs = np.array([[one.of(early) for early in _on(one.problem, seen)] for one in tables])
    order = np.argsort(costs.min(axis=0), kind="stable")[:CHAINS_KEPT]
    of_score = costs.argmin(axis=0)
    return [(seen[place], tables[of_score[place]].rule.plain_score) for place in order]


def _told(longer: int, seen: int, *, best: str, tuned: int) -> str:
    kept = min(seen, CHAINS_KEPT)
    told = (
        f"of {longer} cascades with more than two stages {seen} were estimated on {tuned} tune "
        f"samples and the best {kept} certified"
    )
    if seen < longer:
        told += (
            f"; in the other {longer - seen} the first model alone costs at least what {best} does "
            f"with the large model in all"
        )
    return told


def _on(
    problem: Problem, chains: Sequence[tuple[ModelAnswers, ...]]
) -> list[tuple[ModelAnswers, ...]]:
    """Return the same savers with their answers on a problem's samples."""
    known = {saver.name: saver for saver in problem.savers}
    return [tuple(known[one.name] for one in early) for early in chains]


@dataclass(frozen=True, slots=True, eq=False)
class _Estimates:
    """What cascades are expected to cost.

    Attributes:
        samples: how many are going to be certified on.
        units: how many epochs they are, where they are frames of such.
    """

    problem: Problem
    targets: Targets
    rule: CertifyRule
    samples: int
    units: int

    def of(self, early: tuple[ModelAnswers, ...]) -> float:
        """Return the least that is expected of a cascade, infinity where nothing is.

        In MACs, milliseconds or samples lost, as the objective has it.
        """
        trial = self._trial(early)
        counts = trial.counted(trial.thresholds)
        bounded = self.targets.allowed_drop_points is not None
        walked = self._certifiable(trial) if bounded else len(counts.thresholds)
        tried = Proposal(
            costs=self._costs(early),
            score=self.rule.plain_score,
            fusion=None,
            thresholds=counts.thresholds,
            accepted=counts.accepted,
            lost=counts.lost - counts.gained,
            allowed=np.arange(len(counts.thresholds)) < walked,
            evidence=np.arange(len(self.problem.labels)),
            relaxed_drop=lambda: None,
            path=trial.path,
            reached=counts.reached if len(early) > 1 else None,
            asked=counts.asked,
        )
        usable = tried.allowed & tried.within(self.targets.budgets)
        if not usable.any():
            return float("inf")
        aim = self.targets.aim
        if aim is Objective.ACCURACY:
            # Where budgets alone limit, the strictest threshold within them is the one.
            lost = tried.lost[usable]
            return float(lost.min() if bounded else lost[0])
        timed = aim is Objective.LATENCY and tried.costs.timed
        spent = tried.mean_latency_ms() if timed else tried.mean_macs()
        return float(spent[usable].min())

    def _costs(self, early: tuple[ModelAnswers, ...]) -> CascadeCosts:
        costs = CascadeCosts.of(early[0], self.problem.large, early[1:])
        return costs if self.problem.timeline is None else costs.reusing(self.problem.look)

    def told(self, value: float, best: str, least: float) -> str:
        """Say why a cascade of two stages is not certified."""
        large = self.problem.large.macs
        if self.targets.aim is Objective.MACS and np.isfinite(value):
            return (
                f"not certified: estimated at {value / large:.3f} on the tune samples, {best} at "
                f"{least / large:.3f}"
            )
        return f"not certified: on the tune samples {best} is expected to do better"

    def _trial(self, early: tuple[ModelAnswers, ...]) -> CertifiedTest:
        problem, labelled = self.problem, self.targets.reference is Reference.LABELS
        path = Path.of(len(early), final=self.rule.fuses)
        outputs = [one.outputs for one in (*early, problem.large)]
        return trial_of(
            self.rule.plain_score,
            self.rule.plain_fusion,
            path,
            tune_saver=outputs[0],
            stages=outputs,
            known=Known.of_labels(problem.labels if labelled else outputs[-1].predictions),
            groups=None if problem.timeline is None else problem.timeline.positions,
            evidence=(
                EvidenceKind.CONSISTENCY
                if self.targets.reference is Reference.LARGE
                else EvidenceKind.LABELS
            ),
            risk=self.targets.risk,
            candidates=CHAINS_KEPT + 1,
            timeline=problem.timeline,
        )

    def _certifiable(self, trial: CertifiedTest) -> int:
        """Return up to which threshold the walk would go, were all samples like these."""
        if isinstance(trial, EpochTest):
            return trial.expected_to_pass(_drop(self.targets), epochs=self.units)
        counts = trial.counted(trial.thresholds)
        scale = self.samples / counts.samples
        lost: FloatArray | IntArray = counts.lost
        gained: FloatArray | IntArray = counts.gained
        if self.targets.reference is Reference.QUESTIONS:
            lost, gained = trial.pairs().expected(len(counts.thresholds))
        p_values = count_p_values(
            np.round(scale * lost).astype(np.int64),
            np.round(scale * gained).astype(np.int64),
            evidence=trial.evidence,
            samples=self.samples,
            max_drop_points=_drop(self.targets),
            risk=trial.share,
        )
        last = walk(p_values, risk=trial.share)
        return 0 if last is None else last + 1


def _drop(targets: Targets) -> float:
    drop = targets.allowed_drop_points
    return 100.0 if drop is None else drop


def _count(units: int | IntArray, index: IntArray) -> int:
    """Return how many units some samples are of."""
    return len(index) if isinstance(units, int) else len(np.unique(units[index]))


def _units(problem: Problem) -> tuple[int | IntArray, int]:
    """Return samples, or each one's group numbered from 0, and how many of them there are."""
    if problem.groups is None:
        return len(problem.labels), len(problem.labels)
    numbers: IntArray = np.unique(problem.groups, return_inverse=True)[1].astype(np.int64)
    return numbers, int(numbers.max()) + 1
