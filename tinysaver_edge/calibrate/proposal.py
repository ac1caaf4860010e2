"""What a method allows for one saver: thresholds, and what each does on the samples it rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.problem import Answers, Problem
from tinysaver_edge.calibrate.sweep import SortedScores, Sweep, lost_allowed
from tinysaver_edge.calibrate.targets import Method, Targets
from tinysaver_edge.calibrate.tinysaver import tinysaver_threshold
from tinysaver_edge.score import Margin, MaxSoftmax, Score

if TYPE_CHECKING:
    from tinysaver_edge.fusion import Fusion

NOTHING = np.inf
"""Threshold that accepts nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """The thresholds that a method allows for one saver.

    Attributes:
        saver: the model.
        score: how far its answers are trusted.
        fusion: how answers are combined after an escalation, or None.
        thresholds: ``(k,)`` strictly falling; the first is infinity, which accepts nothing.
        accepted: ``(k,)`` samples that each accepts.
        lost: ``(k,)`` net samples that each loses against the large model alone.
        allowed: ``(k,)`` whether the method lets it be used.
        evidence: the samples of the problem that the decision rests on, rising.
    """

    saver: Answers
    score: Score
    fusion: Fusion | None
    thresholds: NDArray[np.float64]
    accepted: NDArray[np.int64]
    lost: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    evidence: NDArray[np.int64]

    @property
    def samples(self) -> int:
        """How many samples the decision rests on."""
        return len(self.evidence)

    @property
    def escalation_rates(self) -> NDArray[np.float64]:
        """Share of frames that each threshold escalates, ``(k,)``."""
        rates: NDArray[np.float64] = 1.0 - self.accepted / self.samples
        return rates

    @property
    def drop_points(self) -> NDArray[np.float64]:
        """Points that each threshold loses on the evidence, ``(k,)``."""
        points: NDArray[np.float64] = 100.0 * self.lost / self.samples
        return points

    def mean_macs(self, large: Answers) -> NDArray[np.float64]:
        """Expected MACs a frame at each threshold, ``(k,)``.

        The threshold that accepts nothing leaves the saver unasked.
        """
        macs: NDArray[np.float64] = self.saver.macs + self.escalation_rates * large.macs
        macs[np.isinf(self.thresholds)] = large.macs
        return macs


Proposer = Callable[[Problem, Answers, Targets], Proposal]


def propose(problem: Problem, saver: Answers, targets: Targets) -> Proposal:
    """Find the thresholds that the method asked for allows with one saver."""
    return _PROPOSERS[targets.method](problem, saver, targets)


def _empirical(problem: Problem, saver: Answers, targets: Targets) -> Proposal:
    score = Margin()
    swept = _sweep(problem, saver, score)
    drop = targets.allowed_drop_points
    samples = len(problem.labels)
    lost = np.concatenate(([swept.lost_without_accepting], swept.lost))
    allowed = np.ones(len(lost), bool)
    if drop is not None:
        allowed = lost <= lost_allowed(drop, samples=samples)
    return Proposal(
        saver=saver,
        score=score,
        fusion=None,
        thresholds=np.concatenate(([NOTHING], swept.thresholds)),
        accepted=np.concatenate(([0], swept.accepted)),
        lost=lost,
        allowed=allowed,
        evidence=np.arange(samples),
    )


def _tinysaver(problem: Problem, saver: Answers, targets: Targets) -> Proposal:
    saver_right = saver.outputs.predictions == problem.labels
    large_right = problem.large.outputs.predictions == problem.labels
    found = tinysaver_threshold(
        saver.outputs.confidences, saver_correct=saver_right, large_correct=large_right
    )
    score = MaxSoftmax()
    point = _sweep(problem, saver, score).at(found.threshold)
    thresholds, accepted, lost = [NOTHING], [0], [0]
    if point is not None:
        thresholds.append(found.threshold)
        accepted.append(point.accepted)
        lost.append(point.lost)
    return Proposal(
        saver=saver,
        score=score,
        fusion=None,
        thresholds=np.array(thresholds),
        accepted=np.array(accepted, np.int64),
        lost=np.array(lost, np.int64),
        allowed=np.array([False, True][: len(lost)]) if point else np.array([True]),
        evidence=np.arange(len(problem.labels)),
    )


def _sweep(problem: Problem, saver: Answers, score: Score) -> Sweep:
    return SortedScores.of(score(saver.outputs)).sweep(
        saver_correct=saver.outputs.predictions == problem.labels,
        large_correct=problem.large.outputs.predictions == problem.labels,
    )


_PROPOSERS: dict[Method, Proposer] = {Method.EMPIRICAL: _empirical, Method.TINYSAVER: _tinysaver}
