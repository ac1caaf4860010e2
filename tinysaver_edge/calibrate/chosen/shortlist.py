"""Shortlist: which savers need no measuring, since nothing they could answer would get them chosen.

Whatever it answers, a saver costs κ, its own MACs relative to the large model's. One that is right
on a share A of the images must escalate at least as much as the large model's share exceeds A + ε:
even an oracle that escalates only where it helps, to whatever fused answer, costs no less than
κ + max(0, A_large - A - ε). A is not known before it is measured; where its makers publish a top-1,
that is taken at its word. Savers are measured from the most promising on, and one that cannot cost
less than a measured cascade does is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.calibrate.chosen.choose import choose
from tinysaver_edge.calibrate.methods.proposers import propose_all
from tinysaver_edge.calibrate.methods.search import search
from tinysaver_edge.calibrate.problem import Problem, split_holdout
from tinysaver_edge.calibrate.targets import Objective, Targets
from tinysaver_edge.errors import InfeasibleError


@dataclass(frozen=True, slots=True)
class Measured:
    """The best cascade measured so far.

    Attributes:
        saver: its saver.
        cost: its MACs relative to the large model's.
    """

    saver: str
    cost: float


@dataclass(frozen=True, slots=True)
class Shortlist:
    """Orders savers by what they promise, and says of which measuring is in vain.

    Attributes:
        targets: what is asked.
        holdout: share of the samples that will be set aside; they are not looked at here either.
        seed: decides which.
        candidates: how many savers share the risk.
    """

    targets: Targets
    holdout: float
    seed: int
    candidates: int

    def least_cost(self, saver: Artefact, large: Artefact, large_accuracy: float | None) -> float:
        """Return the least that a cascade with this saver could cost, relative to the large model.

        Args:
            saver: the candidate.
            large: the large model.
            large_accuracy: share of the images that it gets right, None where that is not known.
        """
        return _kappa(saver, large) + self._least_escalated(saver, large_accuracy)

    def cost(self, problem: Problem) -> Measured | None:
        """Return what the best cascade of a problem costs, None where none keeps the limits.

        None as well where a limit is one of time or memory, which are measured last.
        """
        budgets = self.targets.budgets
        if self.targets.aim is not Objective.MACS or budgets.needs_latency or budgets.memory_mb:
            return None
        kept, _ = split_holdout(
            len(problem.labels), fraction=self.holdout, seed=self.seed, groups=problem.groups
        )
        problem = problem.subset(kept)
        if self.targets.searches:
            # What is certified later must not depend on the samples that it will rest on.
            one = search(problem, self.targets, seed=self.seed).best
            return Measured(one.saver, one.estimate)
        drawn = {"seed": self.seed, "candidates": self.candidates}
        try:
            choice = choose(problem, propose_all(problem, self.targets, **drawn), self.targets)
        except InfeasibleError:
            return None
        row = next(row for row in choice.candidates if row.chosen)
        return None if row.cost_macs_ratio is None else Measured(row.saver, row.cost_macs_ratio)

    def why_not(
        self,
        saver: Artefact,
        large: Artefact,
        *,
        large_accuracy: float | None,
        best: Measured | None,
    ) -> str | None:
        """Say why measuring a saver is in vain, or None where it is not.

        Args:
            saver: the candidate.
            large: the large model.
            large_accuracy: share of the images that it gets right, None where that is not known.
            best: the best cascade so far, None where there is none.
        """
        limit = self.targets.budgets.mean_macs
        if limit is not None and saver.macs is not None and saver.macs > limit:
            return f"not measured: its own {saver.macs:.4g} MACs are over the budget of {limit:.4g}"
        least = self.least_cost(saver, large, large_accuracy)
        if best is None or least < best.cost:
            return None
        kappa, escalated = _kappa(saver, large), self._least_escalated(saver, large_accuracy)
        its = f"its own cost {kappa:.3f}"
        if escalated > 0:
            assert large_accuracy is not None
            its = (
                f"its own cost {kappa:.3f} and the {escalated:.3f} it must escalate at least, with "
                f"a published top-1 of {saver.published_top1:g} % where the large model has "
                f"{100 * large_accuracy:.2f} %, make {least:.3f}, which"
            )
        return (
            f"not measured: {its} is no less than the {best.cost:.3f} of a cascade with "
            f"{best.saver}"
        )

    def _least_escalated(self, saver: Artefact, large_accuracy: float | None) -> float:
        """Return what an oracle would escalate, taking the published accuracy at its word."""
        drop = self.targets.allowed_drop_points
        if (
            saver.published_top1 is None
            or large_accuracy is None
            or drop is None
            or self.targets.aim is not Objective.MACS
        ):
            return 0.0
        return max(0.0, large_accuracy - (saver.published_top1 + drop) / 100)


def _kappa(saver: Artefact, large: Artefact) -> float:
    if saver.macs is None or large.macs is None:
        return 0.0
    return saver.macs / large.macs
