"""Comparison: every method on the same samples, so that a user sees what a guarantee costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from tinysaver_edge.calibrate.chosen.choose import Choice, choose
from tinysaver_edge.calibrate.methods.proposers import propose_all
from tinysaver_edge.calibrate.methods.search import SEARCHED
from tinysaver_edge.calibrate.problem import Problem
from tinysaver_edge.calibrate.targets import DEFAULT_MAX_DROP_POINTS, Budgets, Method, Targets
from tinysaver_edge.deciding.policy import Policy, StagePolicy
from tinysaver_edge.errors import InfeasibleError, InputError
from tinysaver_edge.records.evaluation import Figures, figures

PROMISES = {
    Method.CERTIFIED: "drop within the bound, with the confidence",
    Method.LTT_HB: "drop within the bound, with the confidence",
    Method.CRC: "drop within the bound on average over calibration sets",
    Method.EMPIRICAL: "none: the drop on these samples only",
    Method.TINYSAVER: "none",
}
"""What each method promises about other samples."""


@dataclass(frozen=True, slots=True)
class MethodRow:
    """What one method chose.

    Attributes:
        method: its name.
        promise: what it promises about other samples.
        saver: the model it chose, None where it chose nothing.
        threshold: the threshold it chose.
        calibration: figures on the samples it rests on.
        holdout: figures on the samples set aside.
        why: why it chose nothing.
    """

    method: Method
    promise: str
    saver: str | None = None
    threshold: float | None = None
    calibration: Figures | None = None
    holdout: Figures | None = None
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values for JSON."""
        return {**asdict(self), "method": self.method.value}


def compare_methods(
    problem: Problem, holdout: Problem | None, targets: Targets, *, seed: int, candidates: int
) -> tuple[MethodRow, ...]:
    """Let every method choose at the same bound, without budgets.

    Args:
        problem: what to choose on.
        holdout: samples set aside, or None.
        targets: bound, confidence and objective; 0.5 points where there is no bound.
        seed: of whatever is drawn.
        candidates: how many savers share the risk.
    """
    drop = targets.allowed_drop_points
    common = replace(
        targets,
        budgets=Budgets(),
        objective=None,
        max_drop_points=DEFAULT_MAX_DROP_POINTS if drop is None else drop,
    )
    return tuple(
        _row(problem, holdout, replace(common, method=method), seed=seed, candidates=candidates)
        for method in Method
    )


def _row(
    problem: Problem, holdout: Problem | None, targets: Targets, *, seed: int, candidates: int
) -> MethodRow:
    method = targets.method
    if targets.searches and method not in SEARCHED:
        targets = replace(targets, score=None, fusion=None)
    try:
        proposals = propose_all(problem, targets, seed=seed, candidates=candidates)
        choice = choose(problem, proposals, targets)
    except (InfeasibleError, InputError) as error:
        return MethodRow(method, PROMISES[method], why=str(error))
    policy = policy_of(problem, choice)
    evidence = problem.subset(choice.proposal.evidence)
    return MethodRow(
        method=method,
        promise=PROMISES[method],
        saver=choice.proposal.saver.name,
        threshold=choice.threshold,
        calibration=figures_on(policy, evidence),
        holdout=None if holdout is None else figures_on(policy, holdout),
    )


def policy_of(problem: Problem, choice: Choice) -> Policy:
    """Return the two-stage policy of a choice."""
    proposal = choice.proposal
    saver = StagePolicy(
        model=proposal.saver.name,
        macs=proposal.saver.macs,
        score=proposal.score,
        threshold=choice.threshold,
    )
    large = StagePolicy(model=problem.large.name, macs=problem.large.macs)
    return Policy((saver, large), proposal.fusion)


def figures_on(policy: Policy, problem: Problem) -> Figures:
    """Measure a two-stage policy on a problem's samples."""
    saver = next(one for one in problem.savers if one.name == policy.stages[0].model)
    return figures(policy, (saver.outputs, problem.large.outputs), problem.labels)
