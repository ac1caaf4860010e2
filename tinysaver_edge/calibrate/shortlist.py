"""Shortlist: which savers need no measuring, since nothing they could answer would get them chosen.

A saver costs at least κ, its own MACs relative to the large model's. Savers are measured from the
cheapest on, so once κ alone is more than a measured cascade costs, all that is left is hopeless.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.calibrate.choose import choose
from tinysaver_edge.calibrate.problem import Problem, split_holdout
from tinysaver_edge.calibrate.proposers import propose_all
from tinysaver_edge.calibrate.targets import Objective, Targets
from tinysaver_edge.errors import InfeasibleError


@dataclass(frozen=True, slots=True)
class Shortlist:
    """Says why measuring a saver is in vain, or None where it is not.

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

    def __call__(self, saver: Artefact, large: Artefact, problem: Problem | None) -> str | None:
        """Compare a saver's own cost with the budget and with the best cascade so far.

        Args:
            saver: the candidate.
            large: the large model.
            problem: what is measured so far, None where no saver is.
        """
        if saver.macs is None or large.macs is None:
            return None
        limit = self.targets.budgets.mean_macs
        if limit is not None and saver.macs > limit:
            return f"not measured: its own {saver.macs:.4g} MACs are over the budget of {limit:.4g}"
        if problem is None or self.targets.aim is not Objective.MACS:
            return None
        kept, _ = split_holdout(
            len(problem.labels), fraction=self.holdout, seed=self.seed, groups=problem.groups
        )
        problem = problem.subset(kept)
        try:
            choice = choose(
                problem,
                propose_all(problem, self.targets, seed=self.seed, candidates=self.candidates),
                self.targets,
            )
        except InfeasibleError:
            return None
        best = next(row for row in choice.candidates if row.chosen)
        kappa = saver.macs / large.macs
        if best.cost_macs_ratio is None or kappa < best.cost_macs_ratio:
            return None
        return (
            f"not measured: its own cost {kappa:.3f} is no less than the "
            f"{best.cost_macs_ratio:.3f} of a cascade with {best.saver}"
        )
