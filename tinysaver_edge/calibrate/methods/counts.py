"""Counts: which samples each threshold accepts and loses, and the test of a bound on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.certificate import (
    Certificate,
    EvidenceKind,
    WalkStep,
    count_p_values,
    least_certifiable_points,
    samples_needed,
    step_p_values,
    walk,
)
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray

SATURATED = 0.05
"""Share of scores at the end of their range from which that is what is wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class SortedScores:
    """One saver's scores, sorted once and swept against any number of large models.

    Attributes:
        order: int64 (n,), sample indices by falling score.
        thresholds: float64 (m,), the distinct scores, falling.
        accepted: int64 (m,), samples whose score is at least the threshold.
    """

    order: IntArray
    thresholds: FloatArray
    accepted: IntArray

    @classmethod
    def of(cls, score: NDArray[Any]) -> SortedScores:
        """Sort a saver's scores.

        Args:
            score: (n,), n >= 1, no NaN.

        Raises:
            InputError: there is no sample, or a score is NaN.
        """
        values = np.asarray(score, dtype=np.float64)
        if values.ndim != 1 or len(values) == 0:
            raise InputError(f"scores have shape {values.shape}: give one number a sample")
        if np.isnan(values).any():
            bad = int(np.isnan(values).argmax())
            raise InputError(f"score of sample {bad} is NaN: check the saver's outputs")
        # Which of two equal scores comes first changes nothing, so the quicker unstable sort does.
        order = np.argsort(values)[::-1].copy()
        falling = values[order]
        # The last sample of each run of equal scores: they are accepted together.
        ends = np.flatnonzero(falling[1:] != falling[:-1])
        ends = np.append(ends, len(values) - 1)
        return cls(order=order, thresholds=falling[ends], accepted=ends + 1)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.order)

    def accepted_at(self, thresholds: FloatArray) -> IntArray:
        """How many samples each of any thresholds accepts, (k,) -> (k,)."""
        index = np.searchsorted(-self.thresholds, -np.asarray(thresholds), side="right")
        return np.concatenate(([0], self.accepted))[index]


@dataclass(frozen=True, slots=True, eq=False)
class Verdicts:
    """Which answers on n samples are right; the loss of each sample follows.

    Attributes:
        saver: bool (n,), the saver's answer is right.
        large: bool (n,), the large model's is.
        final: bool (n,), the answer given after an escalation is.
    """

    saver: BoolArray
    large: BoolArray
    final: BoolArray

    def subset(self, index: IntArray) -> Verdicts:
        """The answers on some of the samples."""
        return Verdicts(self.saver[index], self.large[index], self.final[index])


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
    def of(cls, scores: SortedScores, answers: Verdicts, thresholds: FloatArray) -> WalkCounts:
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

    def step(self, index: int, *, group_losses: tuple[tuple[float, int], ...] = ()) -> WalkStep:
        """The counts at one threshold, with the groups' losses where there are groups."""
        return WalkStep(
            threshold=float(self.thresholds[index]),
            accepted=int(self.accepted[index]),
            lost=int(self.lost[index]),
            gained=int(self.gained[index]),
            group_losses=group_losses,
        )


def group_losses(
    score: FloatArray, answers: Verdicts, groups: IntArray, thresholds: FloatArray
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


@dataclass(frozen=True, slots=True, eq=False)
class CertifiedTest:
    """What a certificate is computed from.

    Attributes:
        score: float64 (n,), the saver's scores on the certify samples.
        answers: who is right on them; the large model always, with evidence from consistency.
        thresholds: float64 (k,), strict to loose, fixed before these samples were seen.
        evidence: what the samples are.
        groups: int64 (n,), each sample's group from 0 without a gap, or None.
        risk: δ, over all candidates together.
        candidates: J, how many candidates share the risk.
    """

    score: FloatArray
    answers: Verdicts
    thresholds: FloatArray
    evidence: EvidenceKind
    groups: IntArray | None
    risk: float
    candidates: int

    @property
    def share(self) -> float:
        """δ / J."""
        return self.risk / self.candidates

    def certify(self, max_drop_points: float) -> tuple[Certificate | None, str]:
        """Walk the thresholds and certify the loosest that passed before the first failure.

        Args:
            max_drop_points: ε, in points.

        Returns:
            The certificate, or None with what is missing in one line.
        """
        steps, p_values = self._walked(self.thresholds, max_drop_points)
        last = walk(p_values, risk=self.share)
        if last is None:
            return None, self._missing(steps[0], max_drop_points)
        failed = steps[last + 1] if last + 1 < len(steps) else None
        certificate = self._certificate(max_drop_points, tuple(steps[: last + 1]), failed)
        return certificate, certificate.statement

    def certify_at(self, threshold: float) -> Certificate:
        """The least drop that can be signed at a threshold that came from elsewhere.

        Valid where the threshold was chosen without a look at who is right on these samples, as
        one is that follows from a budget.
        """
        steps, _ = self._walked(np.array([threshold]), 100.0)
        points = least_certifiable_points(
            steps[0], evidence=self.evidence, samples=len(self.score), risk=self.share
        )
        return self._certificate(points, tuple(steps), None, grid_size=1)

    def least_reaching(self, position: int) -> float | None:
        """The least drop in points at which the walk reaches a threshold; None where none does.

        Args:
            position: of the threshold. All stricter ones must pass as well.
        """
        reached = self.thresholds[: position + 1]

        def passes(thousandths: int) -> bool:
            _, p_values = self._walked(reached, thousandths / 1000)
            return walk(p_values, risk=self.share) == position

        low, high = 0, 100_000
        if not passes(high - 1):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if passes(middle) else (middle, high)
        return high / 1000

    def _certificate(
        self,
        max_drop_points: float,
        steps: tuple[WalkStep, ...],
        failed: WalkStep | None,
        *,
        grid_size: int | None = None,
    ) -> Certificate:
        return Certificate(
            evidence=self.evidence,
            max_drop_points=max_drop_points,
            risk=self.risk,
            candidates=self.candidates,
            samples=len(self.score),
            grid_size=len(self.thresholds) if grid_size is None else grid_size,
            steps=steps,
            failed=failed,
        )

    def _walked(
        self, thresholds: FloatArray, max_drop_points: float
    ) -> tuple[list[WalkStep], list[float]]:
        """Steps and p-values up to the first failure, that one included."""
        counts = WalkCounts.of(SortedScores.of(self.score), self.answers, thresholds)
        if self.groups is None:
            p_values: list[float] = count_p_values(
                counts.lost,
                counts.gained,
                evidence=self.evidence,
                samples=counts.samples,
                max_drop_points=max_drop_points,
                risk=self.share,
            ).tolist()
            last = walk(p_values, risk=self.share)
            reached = min(len(thresholds), 1 + (0 if last is None else last + 1))
            return [counts.step(index) for index in range(reached)], p_values[:reached]
        return self._walked_groups(counts, self.groups, max_drop_points)

    def _walked_groups(
        self, counts: WalkCounts, groups: IntArray, max_drop_points: float
    ) -> tuple[list[WalkStep], list[float]]:
        steps: list[WalkStep] = []
        p_values: list[float] = []
        losses = group_losses(self.score, self.answers, groups, counts.thresholds)
        for index, histogram in enumerate(losses):
            steps.append(counts.step(index, group_losses=histogram))
            p_values += step_p_values(
                steps[-1:],
                evidence=self.evidence,
                samples=counts.samples,
                max_drop_points=max_drop_points,
                risk=self.share,
            )
            if p_values[-1] > self.share:
                break
        return steps, p_values

    def _missing(self, first: WalkStep, max_drop_points: float) -> str:
        """Why not even the strictest threshold passes, and what would help."""
        n = len(self.score)
        wish = f"a drop of {max_drop_points:g} points at confidence {1 - self.risk:g}"
        if self.candidates > 1:
            wish += f" shared by {self.candidates} candidates"
        if self.groups is not None:
            units = int(self.groups.max()) + 1
            return f"{units} groups of samples do not prove {wish}: add groups, or allow more"
        least = samples_needed(max_drop_points, risk=self.share)
        if least is not None and n < least:
            return f"{n} samples cannot prove {wish}: at least {least} are needed"
        needed = samples_needed(
            max_drop_points,
            risk=self.share,
            lost_rate=first.lost / n,
            gained_rate=first.gained / n,
        )
        if needed is None:
            return (
                f"the cascade loses {100 * (first.lost - first.gained) / n:.2g} points at the "
                f"strictest threshold already, which rules out {wish}: {self._remedy()}"
            )
        return f"{n} samples do not prove {wish}: as these answers differ, about {needed} would"

    def _remedy(self) -> str:
        """Say what helps a cascade that loses too much where it accepts least."""
        saturated = float((self.score >= 1.0).mean())
        if saturated > SATURATED:
            return (
                f"{100 * saturated:.0f} % of the scores are saturated at 1, since the saver's "
                "logits are very large: try --score maxlogit_pnorm, or allow more"
            )
        return "allow more, or fuse nothing"
