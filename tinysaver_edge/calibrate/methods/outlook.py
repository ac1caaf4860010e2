"""What questions would buy: what is certified without any, and how many take a cascade how far.

Of what people will say only shares are expected, measured once and never relied on: a plan promises
nothing, the certificate counts answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from tinysaver_edge.calibrate.calibration import Milestone, Prospect
from tinysaver_edge.calibrate.methods.proposal import Proposal
from tinysaver_edge.calibrate.targets import Objective, Targets
from tinysaver_edge.certificate import EvidenceKind, WalkStep, count_p_values, step_p_values
from tinysaver_edge.certificate import walk as last_passed
from tinysaver_edge.outputs import IntArray
from tinysaver_edge.questions import KEPT, Walk

AGREEMENTS = (0.999, 0.995, 0.99, 0.98, 0.95, 0.9)
"""Levels of agreement with the large model that a plan certifies; fixed, since each is a test."""

_STEPS = 14  # halvings, of the number of answers that a threshold needs


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """One cascade's walk before anybody has answered, and how far it is expected to go.

    Attributes:
        proposal: of the cascade, made without an answer.
        walk: what its certificate would be computed from.
        target: number of the threshold that all answers are expected to reach, or None.
        rank: what is least for the best.
    """

    proposal: Proposal
    walk: Walk
    target: int | None
    rank: tuple[bool, float]

    @classmethod
    def at(cls, proposal: Proposal, targets: Targets) -> Outlook:
        """Look at a proposal that was made without an answer, and has a trial."""
        trial = proposal.trial
        assert trial is not None
        drop = targets.allowed_drop_points
        if drop is None:  # the one threshold that the budgets leave
            trial = replace(trial, thresholds=proposal.thresholds)
        counts = trial.counted(trial.thresholds)
        nothing = np.zeros(len(counts.thresholds), np.int64)
        whole = replace(
            proposal,
            thresholds=counts.thresholds,
            accepted=counts.accepted,
            lost=nothing,
            allowed=np.ones(len(nothing), bool),
            reached=counts.reached if trial.path.stages > 1 else None,
        )
        walk = Walk(
            thresholds=counts.thresholds,
            accepted=counts.accepted,
            costs=whole.mean_macs() / proposal.costs.large.macs,
            pairs=trial.pairs(),
            samples=trial.samples,
            evidence=trial.evidence,
            groups=trial.groups,
            max_drop_points=drop,
            share=trial.share,
        )
        if drop is None:
            target = 0 if proposal.allowed.any() else None
        else:
            target = last_passed(_expected(walk, drop), risk=walk.share)
        timed = targets.aim is Objective.LATENCY and proposal.costs.timed
        spent = whole.mean_latency_ms() if timed else walk.costs
        end = 0 if target is None else target
        fits = drop is None or bool(whole.within(targets.budgets)[: end + 1].any())
        return cls(proposal, walk, target, (not fits, float(spent[end])))

    def prospect(self) -> Prospect:
        """Say what questions would buy."""
        return Prospect(
            cascade=self.proposal.name,
            fusion=None if self.proposal.fusion is None else self.proposal.fusion.name,
            agreements=tuple(_agreements(self.walk)),
            milestones=tuple(self._milestones()),
        )

    def _milestones(self) -> Iterator[Milestone]:
        if self.target is None:
            return
        needed = _answers_needed(self.walk)[: self.target + 1]
        costs = self.walk.costs[: self.target + 1]
        free = int(np.flatnonzero(needed == 0)[-1]) if (needed == 0).any() else None
        start = 1.0 if free is None else float(costs[free])
        if free is not None and start < 1:
            yield Milestone(start, 0)
        told = {0: None}
        for part in (1 / 3, 2 / 3, 1):
            place = int(np.argmax(costs <= start - part * (start - costs[-1]) + 1e-12))
            if costs[place] < 1 and int(needed[place]) not in told:
                told[int(needed[place])] = None
                yield Milestone(float(costs[place]), int(needed[place]))


def _expected(walk: Walk, drop: float) -> list[float]:
    """Return p-values up to the first failure, if all answers turn out as expected."""
    if walk.groups is None:
        lost, gained = walk.pairs.expected(len(walk.thresholds))
        return _p_values(walk, np.ceil(lost), np.floor(gained), drop)
    drawn = np.random.default_rng(0).random(walk.samples)[walk.pairs.sample]
    losses = (drawn < KEPT.lost).astype(np.int64) - (drawn > 1 - KEPT.gained)
    return _grouped_p_values(walk, losses, drop, walk.evidence)


def _p_values(walk: Walk, lost: ArrayLike, gained: ArrayLike, drop: float) -> list[float]:
    p: list[float] = count_p_values(
        lost,
        gained,
        evidence=walk.evidence,
        samples=walk.samples,
        max_drop_points=drop,
        risk=walk.share,
    ).tolist()
    return p


def _grouped_p_values(
    walk: Walk, losses: IntArray, drop: float, evidence: EvidenceKind
) -> list[float]:
    """Return p-values up to the first failure, given each pair's loss."""
    assert walk.groups is not None
    pairs, sizes = walk.pairs, np.bincount(walk.groups)
    change = np.zeros((len(walk.thresholds) + 1, len(sizes)))
    np.add.at(change, (pairs.first, walk.groups[pairs.sample]), losses)
    np.add.at(change, (pairs.end, walk.groups[pairs.sample]), -losses)
    means = np.cumsum(change, axis=0)[:-1] / sizes
    found = []
    for threshold, row in zip(walk.thresholds.tolist(), means, strict=True):
        values, counts = np.unique(row, return_counts=True)
        step = WalkStep(
            threshold, 0, 0, 0, tuple(zip(values.tolist(), counts.tolist(), strict=True))
        )
        found += step_p_values(
            [step], evidence=evidence, samples=walk.samples, max_drop_points=drop, risk=walk.share
        )
        if found[-1] > walk.share:
            break
    return found


def _answers_needed(walk: Walk) -> IntArray:
    """Return about how many answers each threshold takes to pass, if they are as expected, (k,)."""
    count, drop = len(walk.thresholds), walk.max_drop_points
    differing = walk.pairs.counts(np.ones(len(walk.pairs), bool), count)
    if walk.groups is not None or drop is None:
        return np.maximum.accumulate(differing)
    lost, gained = (part / np.maximum(differing, 1) for part in walk.pairs.expected(count))
    low, high = np.full(count, -1), differing.copy()
    for _ in range(_STEPS + 3):
        middle = (low + high) // 2
        worst = np.ceil(lost * middle) + differing - middle
        p = _p_values(walk, worst, np.floor(gained * middle), drop)
        passes = (np.asarray(p, np.float64) <= walk.share) & (middle >= 0)
        low, high = np.where(passes, low, middle), np.where(passes, middle, high)
    return np.maximum.accumulate(high)


def _agreements(walk: Walk) -> Iterator[tuple[float, float]]:
    """Yield each agreement that is certified by the answers alone, and the cost that it allows."""
    grouped = walk.groups is not None
    evidence = EvidenceKind.CONSISTENCY_GROUPS if grouped else EvidenceKind.CONSISTENCY
    without = replace(walk, evidence=evidence)
    differing = walk.pairs.counts(np.ones(len(walk.pairs), bool), len(walk.thresholds))
    cheapest = 1.0
    for level in AGREEMENTS:
        drop = 100 * (1 - level)
        if grouped:
            p = _grouped_p_values(without, np.ones(len(walk.pairs), np.int64), drop, evidence)
        else:
            p = _p_values(without, differing, np.zeros(len(differing)), drop)
        last = last_passed(p, risk=walk.share)
        if last is not None and walk.costs[last] < cheapest:
            cheapest = float(walk.costs[last])
            yield level, cheapest
