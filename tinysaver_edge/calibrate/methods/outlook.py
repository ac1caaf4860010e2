"""What questions would buy: what is certified without any, and how many take a cascade how far.

Of what people will say only shares are expected, measured once and never relied on: a plan promises
nothing, the certificate counts answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tinysaver_edge.calibrate.calibration import Milestone, Prospect
from tinysaver_edge.calibrate.methods.proposal import Proposal
from tinysaver_edge.calibrate.targets import Objective, Targets
from tinysaver_edge.certificate.p_values import EvidenceKind, group_p_values
from tinysaver_edge.certificate.p_values import walk as last_passed
from tinysaver_edge.outputs import FloatArray, IntArray
from tinysaver_edge.questions.tally import KEPT, Walk

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
            asked=counts.asked,
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
    """Return p-values, if all answers turn out as expected."""
    if walk.groups is None:
        lost, gained = walk.pairs.expected(len(walk.thresholds))
        return walk.p_values(np.ceil(lost), np.floor(gained), drop)
    return _grouped_p_values(walk, _expected_losses(walk), drop)


def _expected_losses(walk: Walk) -> IntArray:
    """Return what each pair may lose, drawn as it is expected."""
    # Frames of one run share what is to be seen.
    unit = walk.pairs.sample if walk.pairs.run is None else walk.pairs.run
    drawn = np.random.default_rng(0).random(max(walk.samples, 1 + unit.max(initial=0)))[unit]
    losses: IntArray = (drawn < KEPT.lost).astype(np.int64) - (drawn > 1 - KEPT.gained)
    return losses


def _grouped_p_values(walk: Walk, losses: IntArray, drop: float) -> list[float]:
    """Return p-values, given each pair's loss."""
    assert walk.groups is not None
    pairs, sizes = walk.pairs, np.bincount(walk.groups)
    change = np.zeros((len(walk.thresholds) + 1, len(sizes)))
    np.add.at(change, (pairs.first, walk.groups[pairs.sample]), losses)
    np.add.at(change, (pairs.end, walk.groups[pairs.sample]), -losses)
    means = np.cumsum(change, axis=0)[:-1] / sizes
    p_values: list[float] = group_p_values(means, epsilon=drop / 100, risk=walk.share).tolist()
    return p_values


def _answers_needed(walk: Walk) -> IntArray:
    """Return about how many answers each threshold takes to pass, if they are as expected, (k,)."""
    count, drop = len(walk.thresholds), walk.max_drop_points
    differing = walk.pairs.counts(np.ones(len(walk.pairs), bool), count)
    if (runs := walk.pairs.run) is not None:
        return np.array([len(np.unique(runs))]) if drop is None else _runs_needed(walk, runs, drop)
    if walk.groups is not None or drop is None:
        return np.maximum.accumulate(differing)
    lost, gained = (part / np.maximum(differing, 1) for part in walk.pairs.expected(count))
    low, high = np.full(count, -1), differing.copy()
    for _ in range(_STEPS + 3):
        middle = (low + high) // 2
        worst = np.ceil(lost * middle) + differing - middle
        p = walk.p_values(worst, np.floor(gained * middle), drop)
        passes = (np.asarray(p, np.float64) <= walk.share) & (middle >= 0)
        low, high = np.where(passes, low, middle), np.where(passes, middle, high)
    return np.maximum.accumulate(high)


def _runs_needed(walk: Walk, runs: IntArray, drop: float) -> IntArray:
    """Return the same where a question stands for a run of frames: how many, in their order."""
    pairs, count = walk.pairs, len(walk.thresholds)
    begins = np.full(1 + int(runs.max(initial=-1)), count)
    np.minimum.at(begins, runs, pairs.first)
    rank = np.empty(len(begins), np.int64)
    rank[np.argsort(begins, kind="stable")] = np.arange(len(begins))
    expected = _expected_losses(walk)
    low, high = np.full(count, -1), np.cumsum(np.bincount(begins, minlength=count)[:count])
    for _ in range(_STEPS):
        middle = (low + high) // 2
        means = np.stack(
            [
                _mean_losses(walk, place, np.where(rank[runs] < middle[place], expected, 1))
                for place in range(count)
            ]
        )
        p_values = group_p_values(means, epsilon=drop / 100, risk=walk.share)
        passes = (p_values <= walk.share) & (middle >= 0)
        low, high = np.where(passes, low, middle), np.where(passes, middle, high)
    return np.maximum.accumulate(high)


def _mean_losses(walk: Walk, place: int, losses: IntArray) -> FloatArray:
    """Return each group's mean loss at a threshold, given each pair's."""
    assert walk.groups is not None
    pairs, sizes = walk.pairs, np.bincount(walk.groups)
    holds = (pairs.first <= place) & (place < pairs.end)
    lost = np.bincount(
        walk.groups[pairs.sample[holds]], weights=losses[holds], minlength=len(sizes)
    )
    return lost / sizes


def _agreements(walk: Walk) -> Iterator[tuple[float, float]]:
    """Yield each agreement that is certified by the answers alone, and the cost that it allows."""
    without = replace(walk, evidence=EvidenceKind.CONSISTENCY)
    differing = walk.pairs.counts(np.ones(len(walk.pairs), bool), len(walk.thresholds))
    cheapest = 1.0
    for level in AGREEMENTS:
        drop = 100 * (1 - level)
        if walk.groups is not None:
            p = _grouped_p_values(walk, np.ones(len(walk.pairs), np.int64), drop)
        else:
            p = without.p_values(differing, np.zeros(len(differing)), drop)
        last = last_passed(p, risk=walk.share)
        if last is not None and walk.costs[last] < cheapest:
            cheapest = float(walk.costs[last])
            yield level, cheapest
