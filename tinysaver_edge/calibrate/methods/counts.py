"""What a certificate is made of: who was right, counted at thresholds fixed in advance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tinysaver_edge.calibrate.methods.sweep import SortedScores
from tinysaver_edge.certificate import Step
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Which answers on n samples are right; the loss of each sample follows.

    Attributes:
        saver: bool (n,), the saver's answer is right.
        large: bool (n,), the large model's is.
        final: bool (n,), the answer given after an escalation is.
    """

    saver: BoolArray
    large: BoolArray
    final: BoolArray

    def subset(self, index: IntArray) -> Answers:
        """The answers on some of the samples."""
        return Answers(self.saver[index], self.large[index], self.final[index])


@dataclass(frozen=True, slots=True, eq=False)
class WalkCounts:
    """Counts at each of k thresholds.

    Attributes:
        thresholds: float64 (k,), strict to loose.
        accepted: int64 (k,), samples accepted.
        lost: int64 (k,), samples where only the large model is right (D = 1).
        gained: int64 (k,), samples where only the cascade is right (D = -1).
        samples: number of samples.
    """

    thresholds: FloatArray
    accepted: IntArray
    lost: IntArray
    gained: IntArray
    samples: int

    @classmethod
    def of(cls, scores: SortedScores, answers: Answers, thresholds: FloatArray) -> WalkCounts:
        """Count at any thresholds, two passes over the samples for all of them together."""
        accepted = scores.accepted_at(thresholds)
        saver, large, final = answers.saver, answers.large, answers.final
        return cls(
            thresholds=thresholds,
            accepted=accepted,
            lost=_count(scores, large & ~saver, large & ~final, accepted),
            gained=_count(scores, ~large & saver, ~large & final, accepted),
            samples=scores.samples,
        )

    def step(self, index: int, *, group_losses: tuple[tuple[float, int], ...] = ()) -> Step:
        """The counts at one threshold, with the groups' losses where there are groups."""
        return Step(
            threshold=float(self.thresholds[index]),
            accepted=int(self.accepted[index]),
            lost=int(self.lost[index]),
            gained=int(self.gained[index]),
            group_losses=group_losses,
        )


def group_losses(
    score: FloatArray, answers: Answers, groups: IntArray, thresholds: FloatArray
) -> Iterator[tuple[tuple[float, int], ...]]:
    """Each threshold's mean losses of the groups, as distinct losses and how often each occurs.

    Args:
        score: float64 (n,).
        answers: who is right on the n samples.
        groups: int64 (n,), each sample's group, numbered from 0 without a gap.
        thresholds: float64 (k,), strict to loose.
    """
    sizes = np.bincount(groups)
    escalated = answers.large.astype(np.int64) - answers.final
    change = answers.final.astype(np.int64) - answers.saver
    total = np.bincount(groups, weights=escalated)
    # Sample i is first accepted at threshold number `entering[i]`.
    entering = np.searchsorted(-thresholds, -score, side="left")
    order = np.argsort(entering, kind="stable")
    bounds = np.searchsorted(entering[order], np.arange(len(thresholds) + 1))
    for index in range(len(thresholds)):
        new = order[bounds[index] : bounds[index + 1]]
        total += np.bincount(groups[new], weights=change[new], minlength=len(sizes))
        losses, counts = np.unique(total / sizes, return_counts=True)
        yield tuple(zip(losses.tolist(), counts.tolist(), strict=True))


def _count(
    scores: SortedScores, if_accepted: BoolArray, if_escalated: BoolArray, accepted: IntArray
) -> IntArray:
    """Samples with the event, when the first `accepted` by score are accepted."""
    change = np.subtract(if_accepted, if_escalated, dtype=np.int8)
    summed = np.concatenate(([0], np.cumsum(change[scores.order], dtype=np.int64)))
    return summed[accepted] + int(np.count_nonzero(if_escalated))
