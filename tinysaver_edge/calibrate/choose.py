"""The choice: of all savers and thresholds the best that keeps every limit, and why others lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.problem import Answers, Problem
from tinysaver_edge.calibrate.proposal import Proposal
from tinysaver_edge.calibrate.targets import Objective, Targets
from tinysaver_edge.errors import InfeasibleError


@dataclass(frozen=True, slots=True)
class Candidate:
    """One saver's best cascade, as a row of the table.

    Attributes:
        saver: the model's name. Of one that was not measured, only κ and the reason are known.
        kappa: its MACs relative to the large model's.
        accuracy_saver: share it gets right alone.
        score: name of its score.
        fusion: name of the fusion, or None.
        threshold: the threshold it would use, None where it would accept nothing.
        accept_rate: share it would accept.
        drop_points: points it would lose, on the samples the decision rests on.
        cost_macs_ratio: what it would cost, relative to the large model alone.
        feasible: whether it keeps every limit.
        chosen: whether it is the one.
        why: in a few words, why it was chosen or not.
    """

    saver: str
    kappa: float
    accuracy_saver: float | None = None
    score: str | None = None
    fusion: str | None = None
    threshold: float | None = None
    accept_rate: float | None = None
    drop_points: float | None = None
    cost_macs_ratio: float | None = None
    feasible: bool = False
    chosen: bool = False
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Choice:
    """The proposal and threshold that were chosen, among all candidates.

    Attributes:
        proposal: of the chosen saver.
        index: position of its threshold.
        candidates: one row a saver, in the order they were named.
    """

    proposal: Proposal
    index: int
    candidates: tuple[Candidate, ...]

    @property
    def threshold(self) -> float | None:
        """The chosen threshold, None where nothing is accepted."""
        threshold = float(self.proposal.thresholds[self.index])
        return None if np.isinf(threshold) else threshold


def choose(problem: Problem, proposals: Sequence[Proposal], targets: Targets) -> Choice:
    """Pick the best cascade that keeps every limit.

    Args:
        problem: what the proposals were made for.
        proposals: one a saver.
        targets: limits and objective.

    Raises:
        InfeasibleError: none keeps every limit; says by how much each would have to give.
    """
    picks = [_pick(problem, proposal, targets) for proposal in proposals]
    feasible = [place for place, pick in enumerate(picks) if pick.feasible]
    if not feasible:
        raise InfeasibleError(_how_far_off(problem, proposals, targets))
    best = min(feasible, key=lambda place: _rank(picks[place], targets.aim))
    rows = tuple(
        _row(problem, pick, best=picks[best], aim=targets.aim, budgets=targets.budgets.any)
        for pick in picks
    )
    return Choice(picks[best].proposal, picks[best].index, rows)


@dataclass(frozen=True, slots=True)
class _Pick:
    """The best threshold of one proposal, or the nearest to the limits where none keeps them."""

    proposal: Proposal
    index: int
    feasible: bool
    mean_macs: float
    lost_share: float


def _pick(problem: Problem, proposal: Proposal, targets: Targets) -> _Pick:
    cost = proposal.mean_macs(problem.large)
    affordable = _affordable(proposal, cost, targets)
    usable = proposal.allowed & affordable
    feasible = bool(usable.any())
    pool = usable if feasible else proposal.allowed if proposal.allowed.any() else affordable
    places = np.flatnonzero(pool) if pool.any() else np.arange(len(cost))
    # Of equals the last is the loosest.
    keys: list[NDArray[Any]] = [proposal.lost[places], cost[places]]
    if targets.aim is Objective.MACS or not feasible:
        keys.reverse()
    place = int(places[np.lexsort((-places, keys[1], keys[0]))[0]])
    return _Pick(
        proposal,
        place,
        feasible,
        float(cost[place]),
        float(proposal.lost[place]) / proposal.samples,
    )


def _affordable(
    proposal: Proposal, cost: NDArray[np.float64], targets: Targets
) -> NDArray[np.bool_]:
    limits = targets.budgets
    fits = np.ones(len(cost), bool)
    if limits.mean_macs is not None:
        fits &= cost <= limits.mean_macs * (1 + 1e-12)
    if limits.escalation_rate is not None:
        fits &= proposal.escalation_rates <= limits.escalation_rate + 1e-12
    return fits


def _rank(pick: _Pick, aim: Objective) -> tuple[float, float]:
    if aim is Objective.ACCURACY:
        return (pick.lost_share, pick.mean_macs)
    return (pick.mean_macs, pick.lost_share)


def _row(problem: Problem, pick: _Pick, *, best: _Pick, aim: Objective, budgets: bool) -> Candidate:
    proposal, index = pick.proposal, pick.index
    threshold = float(proposal.thresholds[index])
    evidence = proposal.evidence
    right = proposal.saver.outputs.subset(evidence).predictions == problem.labels[evidence]
    return Candidate(
        saver=proposal.saver.name,
        kappa=proposal.saver.macs / problem.large.macs,
        accuracy_saver=float(right.mean()),
        score=proposal.score.name,
        fusion=None if proposal.fusion is None else proposal.fusion.name,
        threshold=None if np.isinf(threshold) else threshold,
        accept_rate=float(proposal.accepted[index]) / proposal.samples,
        drop_points=float(proposal.drop_points[index]),
        cost_macs_ratio=pick.mean_macs / problem.large.macs,
        feasible=pick.feasible,
        chosen=pick is best,
        why=_why(problem.large, pick, best=best, aim=aim, budgets=budgets),
    )


def _why(large: Answers, pick: _Pick, *, best: _Pick, aim: Objective, budgets: bool) -> str:
    cost = pick.mean_macs / large.macs
    if not pick.feasible:
        return "over budget" if budgets else "no threshold keeps the limit"
    if np.isinf(pick.proposal.thresholds[pick.index]):
        return "not worth it: may accept nothing"
    if cost > 1:
        return f"not worth it: costs {cost:.2f} × the large model alone"
    if pick is best:
        return "chosen: the most accurate" if aim is Objective.ACCURACY else "chosen: the cheapest"
    if aim is Objective.ACCURACY and pick.lost_share > best.lost_share:
        points = 100 * (pick.lost_share - best.lost_share)
        return f"loses {points:.2f} points more than {best.proposal.saver.name}"
    percent = 100 * (pick.mean_macs / best.mean_macs - 1)
    return f"costs {percent:.0f} % more than {best.proposal.saver.name}"


def _how_far_off(problem: Problem, proposals: Sequence[Proposal], targets: Targets) -> str:
    """Say what the nearest cascade would need of each limit, the others kept."""
    hints: list[str] = []
    limits = targets.budgets
    drop = targets.allowed_drop_points
    if drop is not None:
        within = [
            float(p.drop_points[fits].min())
            for p in proposals
            if (fits := _affordable(p, p.mean_macs(problem.large), targets)).any()
        ]
        if within:
            hints.append(f"max drop {drop:g} would have to be {min(within):.2f} points")
    if limits.mean_macs is not None:
        cheapest = _least(proposals, lambda p: p.mean_macs(problem.large))
        if cheapest is not None and cheapest > limits.mean_macs:
            hints.append(
                f"mean_macs {limits.mean_macs:.4g} would have to be {cheapest:.4g} "
                f"(+{100 * (cheapest / limits.mean_macs - 1):.0f} %)"
            )
    if limits.escalation_rate is not None:
        rarest = _least(proposals, lambda p: p.escalation_rates)
        if rarest is not None and rarest > limits.escalation_rate:
            hints.append(
                f"escalation_rate {limits.escalation_rate:g} would have to be {rarest:.3f} "
                f"(+{100 * (rarest / limits.escalation_rate - 1):.0f} %)"
            )
    return "no cascade keeps every limit: " + (
        "; or ".join(hints) or "no saver may accept anything"
    )


def _least(proposals: Sequence[Proposal], of: Any) -> float | None:  # noqa: ANN401
    """Return the least of a quantity over all thresholds that the method allows."""
    values = [float(of(p)[p.allowed].min()) for p in proposals if p.allowed.any()]
    return min(values) if values else None
