"""Accuracy against cost, gathered: every candidate, every single model, the chosen one's sweep.

Of a longer cascade where its frames end, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from tinysaver_edge.calibrate.calibration import Calibration, Candidate, Within
from tinysaver_edge.calibrate.chosen.choose import HARDLY, Choice, intervals_at
from tinysaver_edge.calibrate.costs import CascadeCosts
from tinysaver_edge.calibrate.methods.proposal import Proposal
from tinysaver_edge.calibrate.problem import Problem
from tinysaver_edge.calibrate.report import numbers
from tinysaver_edge.calibrate.report.curves import (
    Curve,
    Point,
    trace,
)
from tinysaver_edge.calibrate.report.facts import (
    Alternative,
    CandidateFacts,
    FlowFacts,
    FlowStage,
    Mark,
    MarkKind,
    SingleModel,
    SweepFacts,
)

CURVE_POINTS = 64
SWEEP_POINTS = 160

OTHER_LIMITS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Drops in points whose cost is told beside the chosen one's."""

MOST_CURVES = 16
"""Candidates drawn as a curve besides the chosen one: the cheapest that keep the limits."""


def singles_of(problem: Problem) -> tuple[SingleModel, ...]:
    """Return every model alone, the large one first."""
    return tuple(
        SingleModel(
            name=one.name,
            accuracy=float((one.outputs.predictions == problem.labels).mean()),
            cost=one.macs / problem.large.macs,
            is_large=one is problem.large,
        )
        for one in (problem.large, *problem.savers)
    )


def candidates_of(
    problem: Problem, proposals: Sequence[Proposal], choice: Choice
) -> tuple[CandidateFacts, ...]:
    """Return every candidate with its trade-off on the problem's samples."""
    drawn = _drawn(choice.candidates)
    found = []
    large = float((problem.large.outputs.predictions == problem.labels).mean())
    for place, (proposal, row) in enumerate(zip(proposals, choice.candidates, strict=True)):
        curve = _candidate_curve(problem, proposal, row) if place in drawn else ()
        point = _point(row, accuracy_large=large)
        if point is not None and problem.known is not None:
            # The chart is of agreement; the row's own drop counts what people answered.
            policy = proposal.policy_at(row.threshold)
            point = trace(policy, problem.outputs_of(policy), problem.labels).at(row.threshold)
        found.append(CandidateFacts(row, point, curve))
    return tuple(found)


def _point(row: Candidate, *, accuracy_large: float) -> Point | None:
    """Return a row's figures as a point, None where the method found it no threshold."""
    if row.accept_rate is None or row.drop_points is None or row.cost_macs_ratio is None:
        return None
    return Point(
        threshold=math.inf if row.threshold is None else row.threshold,
        accept_rate=row.accept_rate,
        accuracy=accuracy_large - row.drop_points / 100,
        drop_points=row.drop_points,
        cost=row.cost_macs_ratio,
    )


def rank_of(row: Candidate) -> tuple[bool, bool, float]:
    """Return what orders candidates: the chosen one, those that keep the limits, the cheapest."""
    cost = math.inf if row.cost_macs_ratio is None else row.cost_macs_ratio
    return not row.chosen, not row.feasible, cost


def _drawn(rows: Sequence[Candidate]) -> frozenset[int]:
    """Return the places of the candidates whose curves are drawn."""
    ranked = sorted(
        range(len(rows)),
        key=lambda i: rank_of(rows[i]),
    )
    return frozenset(ranked[: MOST_CURVES + 1])


def _candidate_curve(problem: Problem, proposal: Proposal, row: Candidate) -> tuple[Point, ...]:
    policy = proposal.policy_at(row.threshold)
    curve = trace(policy, problem.outputs_of(policy), problem.labels)
    return curve.thinned(CURVE_POINTS)


def sweep_of(
    problem: Problem,
    holdout: Problem | None,
    result: Calibration,
    proposal: Proposal,
    *,
    max_drop_points: float | None,
) -> SweepFacts | None:
    """Return every threshold of the chosen cascade, None where its first model has no score."""
    policy = result.policy
    first = policy.stages[0]
    if first.score is None:
        return None
    curve = trace(policy, problem.outputs_of(policy), problem.labels)
    held: Curve | None = None
    if holdout is not None:
        held = trace(policy, holdout.outputs_of(policy), holdout.labels)

    def within(threshold: float) -> Within:
        found = Within() if math.isinf(threshold) else intervals_at(problem, proposal, threshold)
        # Where people were asked, the curve is of agreement, and the interval of their answers.
        return found if problem.known is None else replace(found, drop_points=None)

    return SweepFacts(
        score=first.score.name,
        calibration=curve.thinned(SWEEP_POINTS),
        holdout=() if held is None else held.thinned(SWEEP_POINTS),
        marks=tuple(
            Mark(kind, curve.at(threshold), within(threshold))
            for kind, threshold in _marked(result)
        ),
        alternatives=tuple(
            Alternative(limit, point, within(point.threshold))
            for limit, point in _alternatives(curve)
        ),
        max_drop_points=max_drop_points,
    )


def _marked(result: Calibration) -> Iterator[tuple[MarkKind, float]]:
    """Yield the thresholds worth marking."""
    loosest, strictest = result.interval
    chosen = result.policy.stages[0].threshold
    if chosen is not None:
        yield MarkKind.CHOSEN, chosen
    if result.certificate is not None:
        yield MarkKind.CERTIFIED, result.certificate.threshold if loosest is None else loosest
    elif loosest is not None:
        yield MarkKind.LIMIT, loosest
    if strictest is not None:
        yield MarkKind.BUDGET, strictest


def _alternatives(curve: Curve) -> Iterator[tuple[float, Point]]:
    """Yield what other limits would bring, until the first with which everything is accepted."""
    for limit in OTHER_LIMITS:
        threshold = curve.loosest(curve.drop_points <= limit + 1e-9)
        if threshold is not None:
            yield limit, curve.at(threshold)
        if threshold == curve.thresholds[-1]:
            return


def flow_of(result: Calibration, proposals: Sequence[Proposal], choice: Choice) -> FlowFacts | None:
    """Return where the frames of the chosen cascade end, None where it has at most two stages."""
    policy, settled = result.policy, result.calibration.settled
    first, last = policy.stages[0], policy.stages[-1]
    if len(policy.stages) <= 2 or settled is None or first.score is None or policy.asked[0] != 0:
        return None
    reached = [1.0, *(1.0 - np.cumsum(settled)[:-1])]
    large = float(last.macs or 1)
    stages = tuple(
        FlowStage(
            model=stage.model,
            reached=float(share),
            settled=ended,
            threshold=stage.threshold,
            macs=float(stage.macs or 0) / large,
            cost=float(share * (stage.macs or 0)) / large,
            mean_ms=took,
        )
        for stage, share, ended, took in zip(
            policy.stages, reached, settled, _own_ms(choice.proposal.costs), strict=True
        )
    )
    return FlowFacts(stages, first.score.name, _beside(proposals, choice), _place(stages))


def _own_ms(costs: CascadeCosts) -> list[float | None]:
    """Return what each stage takes by itself, None where nobody timed them."""
    if costs.ways is None:
        return [None] * (len(costs.later) + 1)
    until = [0.0, *(way.mean_ms for way in costs.ways)]
    return [after - before for before, after in pairwise(until)]


def _beside(proposals: Sequence[Proposal], choice: Choice) -> str:
    """Say what the best two stages cost beside the longer cascade that was chosen."""
    rows = zip(choice.candidates, proposals, strict=True)
    shorter = [(row, one) for row, one in rows if row.feasible and not one.costs.between]
    chosen = next(row for row in choice.candidates if row.chosen)
    if not shorter or chosen.cost_macs_ratio is None:
        return ""
    row, proposal = min(shorter, key=lambda both: rank_of(both[0]))
    cost = row.cost_macs_ratio
    assert cost is not None
    saved = 1 - chosen.cost_macs_ratio / cost
    large = choice.proposal.costs.large.name
    said = f"The best two stages, {row.saver} \u2192 {large}, cost {numbers.ratio(cost)}: "
    said += (
        f"the longer cascade saves {numbers.percent(saved, 1)} of that"
        if saved > 0
        else "the longer cascade saves no MACs beside them"
    )
    memory = [one.costs.memory_mb for one in (choice.proposal, proposal)]
    if memory[0] is not None and memory[1] is not None:
        said += f" for {memory[0] - memory[1]:.0f} MB more memory ({memory[0]:.0f} in all)"
    if 0 <= saved < HARDLY:
        said += ". For so little --max-stages 2 does: one model less to load and to look after"
    return f"{said}."


def _place(stages: Sequence[FlowStage]) -> str:
    """Say which stages run where, and what a trip would have to take for another place to pay."""
    *early, last = stages
    names = " and ".join(one.model for one in early)
    said = (
        f"{names} run on the device, one after the other; only {last.model} may run on another "
        f"host, which {numbers.percent(last.reached, 1)} of the frames go to."
    )
    for one in early[1:]:
        kept = one.settled / one.reached if one.reached else 0.0
        if one.mean_ms is None or not kept:
            continue
        said += (
            f" {one.model} takes {numbers.milliseconds(one.mean_ms)} here and spares "
            f"{numbers.percent(kept, 1)} of its frames the trip: beside {last.model} it would be "
            f"quicker only where a trip takes less than "
            f"{numbers.milliseconds(one.mean_ms / kept)}, however quick it were there."
        )
    return said
