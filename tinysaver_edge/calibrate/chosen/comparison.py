"""Comparison: every method on the same samples, so that a user sees what a guarantee costs."""

from __future__ import annotations

from dataclasses import replace

from tinysaver_edge.calibrate.calibration import MethodRow
from tinysaver_edge.calibrate.chosen.choose import choose, figures_on, policy_of
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.methods.search import SEARCHED
from tinysaver_edge.calibrate.problem import Problem
from tinysaver_edge.calibrate.targets import DEFAULT_MAX_DROP_POINTS, Budgets, Method, Targets
from tinysaver_edge.errors import InfeasibleError, InputError

PROMISES = {
    Method.CERTIFIED: "drop within the bound, with the confidence",
    Method.LTT_HB: "drop within the bound, with the confidence",
    Method.CRC: "drop within the bound on average over calibration sets",
    Method.EMPIRICAL: "none: the drop on these samples only",
    Method.TINYSAVER: "none",
}
"""What each method promises about other samples."""


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
