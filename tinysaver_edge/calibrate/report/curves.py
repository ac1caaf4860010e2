"""Trade-off curves: what every threshold of a cascade costs and loses, and what bounds them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.methods.counts import SortedScores, Verdicts, WalkCounts
from tinysaver_edge.calibrate.methods.path import Path
from tinysaver_edge.calibrate.methods.sweep import Sweep
from tinysaver_edge.calibrate.problem import Problem
from tinysaver_edge.deciding.policy import Policy, Replay, replay
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import FloatArray, Outputs
from tinysaver_edge.score import Score


@dataclass(frozen=True, slots=True)
class Point:
    """One threshold of a cascade and what it does.

    Attributes:
        threshold: accept where the first score is at least this; infinity accepts nothing.
        accept_rate: share that the first model answers, 0..1.
        accuracy: share that the cascade gets right, 0..1.
        drop_points: points lost against the large model alone.
        cost: expected MACs a frame, relative to the large model alone.
    """

    threshold: float
    accept_rate: float
    accuracy: float
    drop_points: float
    cost: float


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Every distinct threshold of a cascade's first stage, strict to loose, the others kept.

    Attributes:
        thresholds: ``(m,)`` strictly falling, infinity first: asked, but nothing accepted.
        accept_rates: ``(m,)``, 0..1.
        drop_points: ``(m,)``.
        costs: ``(m,)`` relative to the large model alone.
        accuracy_large: share that the large model alone gets right.
    """

    thresholds: FloatArray
    accept_rates: FloatArray
    drop_points: FloatArray
    costs: FloatArray
    accuracy_large: float

    def point(self, index: int) -> Point:
        """Return one threshold's figures."""
        drop = float(self.drop_points[index])
        return Point(
            threshold=float(self.thresholds[index]),
            accept_rate=float(self.accept_rates[index]),
            accuracy=self.accuracy_large - drop / 100,
            drop_points=drop,
            cost=float(self.costs[index]),
        )

    def at(self, threshold: float | None) -> Point:
        """Return what any threshold does; None leaves the first model unasked."""
        if threshold is None:
            return Point(math.inf, 0.0, self.accuracy_large, 0.0, 1.0)
        index = int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1
        return replace(self.point(max(index, 0)), threshold=threshold)

    def thinned(self, most: int) -> tuple[Point, ...]:
        """Return at most so many points, even in the accept rate, both ends among them."""
        wanted = np.linspace(self.accept_rates[0], self.accept_rates[-1], most)
        places = np.unique(np.searchsorted(self.accept_rates, wanted))
        return tuple(self.point(int(place)) for place in places)

    def loosest(self, fits: NDArray[np.bool_]) -> float | None:
        """Return the lowest finite threshold among those marked, None where there is none."""
        places = np.flatnonzero(fits & np.isfinite(self.thresholds))
        return float(self.thresholds[places[-1]]) if len(places) else None


def trace(policy: Policy, outputs: Sequence[Outputs], labels: NDArray[np.int64]) -> Curve:
    """Try every threshold of the first stage, the other stages as they are.

    Where answers are pooled, the other stages' thresholds go along its path.

    Args:
        policy: at least two stages, each with its MACs; the first with a score.
        outputs: each stage's answers on the same n samples.
        labels: ``(n,)`` true classes.

    Raises:
        InputError: the first stage has no score, or a stage no MACs.
    """
    first, samples = policy.stages[0], len(labels)
    if first.score is None or any(stage.macs is None for stage in policy.stages):
        raise InputError(f"stage {first.model} has no score or MACs: nothing to sweep")
    if policy.pool is not None:
        return _along_path(policy, first.score, outputs, labels)
    escalating = replace(policy, stages=(replace(first, threshold=math.inf), *policy.stages[1:]))
    rest = _all_escalated(escalating, outputs)
    large_correct = outputs[-1].predictions == labels
    ranked = SortedScores.of(first.score(outputs[0]))
    swept = Sweep.of(
        ranked,
        saver_correct=outputs[0].predictions == labels,
        large_correct=large_correct,
        final_correct=rest.predictions == labels,
    )
    spent = _macs_after_escalation(escalating, rest.stage)
    saved = np.concatenate(([0.0], np.cumsum(spent[ranked.order])[ranked.accepted - 1]))
    macs = float(first.macs or 0) + (spent.sum() - saved) / samples
    return Curve(
        thresholds=np.concatenate(([math.inf], swept.thresholds)),
        accept_rates=np.concatenate(([0], swept.accepted)) / samples,
        drop_points=100.0 * np.concatenate(([swept.lost_without_accepting], swept.lost)) / samples,
        costs=macs / float(policy.stages[-1].macs or 1),
        accuracy_large=float(large_correct.mean()),
    )


def _along_path(
    policy: Policy, score: Score, outputs: Sequence[Outputs], labels: NDArray[np.int64]
) -> Curve:
    path = Path(len(policy.stages) - 1, pool=policy.pool)
    grid, answers = score.fixed_thresholds(), path.pooled(outputs)
    assert grid is not None
    right = [one.predictions == labels for one in answers]
    large_correct = outputs[-1].predictions == labels
    counts = WalkCounts.along(
        path,
        np.stack([score(one) for one in answers[:-1]]),
        Verdicts.of(right, large_correct),
        grid,
    )
    macs = np.array([float(stage.macs or 0) for stage in policy.stages])
    spent = macs[0] + macs[1:] @ (counts.reached / counts.samples)
    return Curve(
        thresholds=np.concatenate(([math.inf], grid)),
        accept_rates=np.concatenate(([0.0], counts.accepted / counts.samples)),
        drop_points=np.concatenate(([0.0], 100.0 * (counts.lost - counts.gained) / counts.samples)),
        costs=np.concatenate(([1.0], spent / macs[-1])),
        accuracy_large=float(large_correct.mean()),
    )


def _all_escalated(policy: Policy, outputs: Sequence[Outputs]) -> Replay:
    """Replay a policy whose first stage accepts nothing.

    Two stages, the usual number, are done here: the outputs keep their best classes once they are
    found, and a replay would find them anew for every candidate.
    """
    if len(policy.stages) > 2:
        return replay(policy, outputs)
    saver, large = outputs
    predictions = large.predictions
    if policy.fusion is not None:
        predictions = policy.fusion.fuse(saver, large)[0]
    samples = saver.samples
    return Replay(predictions, np.ones(samples, np.int64), np.full(samples, np.nan))


def _macs_after_escalation(policy: Policy, stage: NDArray[np.int64]) -> FloatArray:
    """Return what each sample costs past the first stage, ``(n,)``."""
    spent = np.zeros(len(stage))
    for position in policy.asked[1:] if policy.asked[0] == 0 else policy.asked:
        spent += np.where(stage >= position, float(policy.stages[position].macs or 0), 0.0)
    return spent


@dataclass(frozen=True, slots=True)
class Bounds:
    """Two straight lines that any saver can be held against, as (cost, accuracy) of their ends.

    Attributes:
        oracle: escalating exactly the frames that only the large model gets right; at a drop ε it
            costs ``κ + max(0, Acc_L - Acc_T - ε)``. No score can do better with these answers.
        random: accepting at random; a score below it is worse than none.
    """

    oracle: tuple[tuple[float, float], tuple[float, float]]
    random: tuple[tuple[float, float], tuple[float, float]]


def bounds_of(problem: Problem, name: str) -> Bounds:
    """Return the lines of one of the problem's savers."""
    large, labels = problem.large, problem.labels
    saver = next(one for one in problem.savers if one.name == name)
    saver_correct, large_correct = (one.outputs.predictions == labels for one in (saver, large))
    kappa, accuracy = saver.macs / large.macs, float(saver_correct.mean())
    helped = float((large_correct & ~saver_correct).mean())
    return Bounds(
        oracle=((kappa, accuracy), (kappa + helped, accuracy + helped)),
        random=((kappa, accuracy), (kappa + 1, float(large_correct.mean()))),
    )
