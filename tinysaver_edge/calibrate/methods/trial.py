"""One certified test: scores, answers and thresholds of the certify samples, all fixed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinysaver_edge.calibrate.methods.sweep import Answers, SortedScores, WalkCounts, group_losses
from tinysaver_edge.certificate import (
    Certificate,
    Evidence,
    Step,
    consistency_p_value,
    least_certifiable_points,
    p_value,
    samples_needed,
    step_p_values,
    walk,
)
from tinysaver_edge.outputs import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
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
    answers: Answers
    thresholds: FloatArray
    evidence: Evidence
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
        steps: tuple[Step, ...],
        failed: Step | None,
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
    ) -> tuple[list[Step], list[float]]:
        """Steps and p-values up to the first failure, that one included."""
        counts = WalkCounts.of(SortedScores.of(self.score), self.answers, thresholds)
        if self.groups is None:
            p_values = self._p_values(counts, max_drop_points)
            last = walk(p_values, risk=self.share)
            reached = min(len(thresholds), 1 + (0 if last is None else last + 1))
            return [counts.step(index) for index in range(reached)], p_values[:reached]
        return self._walked_groups(counts, self.groups, max_drop_points)

    def _p_values(self, counts: WalkCounts, max_drop_points: float) -> list[float]:
        epsilon, n = max_drop_points / 100, counts.samples
        if self.evidence.from_consistency:
            return list(map(float, consistency_p_value(counts.lost, n, epsilon=epsilon)))
        same = n - counts.lost - counts.gained
        p = p_value(counts.lost, counts.gained, same, epsilon=epsilon, risk=self.share)
        return list(map(float, p))

    def _walked_groups(
        self, counts: WalkCounts, groups: IntArray, max_drop_points: float
    ) -> tuple[list[Step], list[float]]:
        steps: list[Step] = []
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

    def _missing(self, first: Step, max_drop_points: float) -> str:
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
                f"strictest threshold already, which rules out {wish}: allow more, or fuse nothing"
            )
        return f"{n} samples do not prove {wish}: as these answers differ, about {needed} would"
