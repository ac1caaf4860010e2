"""The choice: the best that keeps every limit, and why the others lost.

After it: by how much limits would have to give where none keeps them all, what the choice does on
samples, and what each method would have chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.calibration import Candidate, MethodRow, Within
from tinysaver_edge.calibrate.methods.proposal import SEVERAL, Proposal
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.methods.search import SEARCHED
from tinysaver_edge.calibrate.problem import Problem
from tinysaver_edge.calibrate.targets import (
    DEFAULT_MAX_DROP_POINTS,
    Budgets,
    Method,
    Objective,
    Targets,
    limits_of,
)
from tinysaver_edge.certificate.certificate import Certificate
from tinysaver_edge.certificate.p_values import rate_interval
from tinysaver_edge.deciding.figures import Figures, figures
from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.errors import InfeasibleError, InputError
from tinysaver_edge.reuse import ReuseRule


@dataclass(frozen=True, slots=True)
class Choice:
    """The proposal and threshold that were chosen, among all candidates.

    Attributes:
        index: position of its threshold.
        candidates: one row a saver, in the order they were named.
        interval: from the loosest threshold that the drop allows to the strictest that the budgets
            allow: what the method allows between the two keeps every limit. None at an end that
            nothing limits.
    """

    proposal: Proposal
    index: int
    candidates: tuple[Candidate, ...]
    interval: tuple[float | None, float | None] = (None, None)

    @property
    def threshold(self) -> float | None:
        """The chosen threshold, None where nothing is accepted."""
        threshold = float(self.proposal.thresholds[self.index])
        return None if np.isinf(threshold) else threshold

    def certify(self) -> Certificate | None:
        """Make the certificate of the chosen threshold, None where the method proves nothing.

        That proves every step again, so whoever needs it keeps it.
        """
        certify = self.proposal.certify
        return None if certify is None else certify(self.index)


def choose(problem: Problem, proposals: Sequence[Proposal], targets: Targets) -> Choice:
    """Pick the best cascade that keeps every limit.

    Raises:
        InfeasibleError: none keeps every limit; says by how much each would have to give, and
            has a row for each.
        InputError: a limit is one of time or memory, and that was not measured.
    """
    picks = [_pick(proposal, targets) for proposal in proposals]
    feasible = [pick for pick in picks if pick.feasible]
    if not feasible:
        raise InfeasibleError(
            how_far_off([one for one in proposals if not one.left_out], targets),
            candidates=[_row(problem, pick, best=None, targets=targets) for pick in picks],
        )
    best = min(feasible, key=lambda pick: pick.rank(targets.aim))
    if targets.aim is Objective.LATENCY:
        best = min(_as_quick(feasible, best), key=lambda pick: pick.mean_macs)
    return Choice(
        best.proposal,
        best.index,
        tuple(_row(problem, pick, best=best, targets=targets) for pick in picks),
        best.interval(targets),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Pick:
    """The best threshold of one proposal, or the nearest to the limits where none keeps them.

    Attributes:
        index: position of the threshold, -1 where the method allows none at all.
        affordable: ``(k,)`` which thresholds keep the budgets.
    """

    proposal: Proposal
    index: int
    feasible: bool
    affordable: NDArray[np.bool_]

    @property
    def mean_macs(self) -> float:
        """Expected MACs a frame."""
        return float(self.proposal.mean_macs()[self.index])

    @property
    def lost_share(self) -> float:
        """Share of the samples lost."""
        return float(self.proposal.lost[self.index]) / self.proposal.samples

    def rank(self, aim: Objective) -> tuple[float, float]:
        """What is least for the best."""
        if aim is Objective.ACCURACY:
            return (self.lost_share, self.mean_macs)
        if aim is Objective.LATENCY:
            return (self.proposal.quantity("mean_latency_ms", self.index), self.lost_share)
        return (self.mean_macs, self.lost_share)

    @property
    def spread_ms(self) -> tuple[float, float]:
        """Mean latency, as the rounds of timing had it at least and at most."""
        mean = self.proposal.quantity("mean_latency_ms", self.index)
        return self.proposal.latency_spread_ms(self.index) or (mean, mean)

    def interval(self, targets: Targets) -> tuple[float | None, float | None]:
        """See `Choice.interval`."""
        loosest = strictest = None
        if targets.allowed_drop_points is not None:
            loosest = self._finite(np.flatnonzero(self.proposal.allowed)[-1])
        if targets.budgets.any:
            strictest = self._finite(np.flatnonzero(self.affordable)[0])
        return loosest, strictest

    def _finite(self, place: np.intp) -> float | None:
        threshold = float(self.proposal.thresholds[place])
        return None if np.isinf(threshold) else threshold


def _pick(proposal: Proposal, targets: Targets) -> _Pick:
    affordable = proposal.within(targets.budgets)
    if not len(proposal.thresholds):
        return _Pick(proposal, -1, False, affordable)
    usable = proposal.allowed & affordable
    feasible = bool(usable.any())
    pool = usable if feasible else proposal.allowed
    places = np.flatnonzero(pool) if pool.any() else np.arange(len(pool))
    timed = targets.aim is Objective.LATENCY and proposal.costs.timed
    spent = proposal.mean_latency_ms() if timed else proposal.mean_macs()
    # Of equals the last is the loosest.
    keys: list[NDArray[Any]] = [proposal.lost[places], spent[places]]
    if targets.aim is not Objective.ACCURACY or not feasible:
        keys.reverse()
    place = int(places[np.lexsort((-places, keys[1], keys[0]))[0]])
    return _Pick(proposal, place, feasible, affordable)


def _as_quick(picks: Sequence[_Pick], quickest: _Pick) -> list[_Pick]:
    """Return those that timing cannot tell from the quickest: their spreads overlap."""
    most = quickest.spread_ms[1]
    return [pick for pick in picks if pick.spread_ms[0] <= most]


def _row(problem: Problem, pick: _Pick, *, best: _Pick | None, targets: Targets) -> Candidate:
    proposal, index = pick.proposal, pick.index
    evidence = proposal.evidence
    right = None
    if problem.known is None:
        answers = proposal.saver.outputs.subset(evidence).predictions
        right = float((answers == problem.labels[evidence]).mean())
    row = Candidate(
        saver=proposal.name,
        kappa=proposal.saver.macs / problem.large.macs,
        accuracy_saver=right,
        score=proposal.score.name,
        fusion=None if proposal.fusion is None else proposal.fusion.name,
        why=proposal.why,
    )
    if proposal.searched is not None:
        found = proposal.searched
        row = replace(
            row,
            estimate=found.estimate,
            estimate_interval=found.tried[0].interval,
            tried=found.tried,
        )
    if index < 0:
        return row
    threshold = float(proposal.thresholds[index])
    timed = proposal.costs.timed

    def figures(name: str, *, known: bool) -> tuple[float, float] | None:
        if not known:
            return None
        return proposal.quantity(name, index), proposal.quantity(name, index, budgeted=True)

    counted = all(one.energy_mj is not None for one in proposal.models)
    return replace(
        row,
        threshold=None if np.isinf(threshold) else threshold,
        accept_rate=float(proposal.accepted[index]) / proposal.samples,
        drop_points=float(proposal.drop_points[index]),
        cost_macs_ratio=pick.mean_macs / problem.large.macs,
        mean_latency_ms=proposal.quantity("mean_latency_ms", index) if timed else None,
        latency_spread_ms=proposal.latency_spread_ms(index) if timed else None,
        energy_mj=figures("mean_energy_mj", known=counted),
        uplink_kbit=figures("uplink_kbit", known=proposal.models[-1].sent_bytes is not None),
        feasible=pick.feasible,
        chosen=pick is best,
        why=_why(problem, pick, best=best, targets=targets),
    )


def _why(problem: Problem, pick: _Pick, *, best: _Pick | None, targets: Targets) -> str:
    cost = pick.mean_macs / problem.large.macs
    aim = targets.aim
    if best is None or not pick.feasible:
        return _why_not(pick)
    if np.isinf(pick.proposal.thresholds[pick.index]):
        return "not worth it: may accept nothing"
    if cost > 1:
        return f"not worth it: costs {cost:.2f} × the large model alone"
    if pick is best:
        return {
            Objective.MACS: "chosen: the cheapest",
            Objective.LATENCY: "chosen: the quickest",
            Objective.ACCURACY: "chosen: the most accurate",
        }[aim]
    other = best.proposal.name
    if aim is Objective.ACCURACY and pick.lost_share > best.lost_share:
        points = 100 * (pick.lost_share - best.lost_share)
        return f"loses {points:.2f} points more than {other}"
    if aim is Objective.LATENCY and pick in _as_quick([pick], best):
        return f"as quick as {other} within the spread of timing, but not cheaper"
    mine, least = pick.rank(aim)[0], best.rank(aim)[0]
    if aim is Objective.ACCURACY:
        mine, least = pick.mean_macs, best.mean_macs
    verb, more = "takes" if aim is Objective.LATENCY else "costs", 100 * (mine / least - 1)
    return f"{verb} {f'{more:.0f} % more than' if more >= 0.5 else 'hardly more than'} {other}"


def _why_not(pick: _Pick) -> str:
    """Say which limits a saver cannot keep."""
    if not pick.proposal.allowed.any():
        return pick.proposal.why or "no threshold keeps the drop"
    if not pick.affordable.any():
        return "over budget"
    return "over budget where the drop is kept"


def how_far_off(proposals: Sequence[Proposal], targets: Targets) -> str:
    """Say what each limit would have to be, the others kept, for some saver to keep them all."""
    hints: list[str] = []
    drop, limits = targets.allowed_drop_points, limits_of(targets.budgets)
    if drop is not None:
        hints.extend(_drop_hints(proposals, drop))
    hints.extend(_budget_hints(proposals, limits, others=targets.budgets))
    why = "; or ".join(hints) or "; and ".join(_joint_hints(proposals, limits))
    return f"no cascade keeps every limit: {why or 'each can be kept, but not all at once'}"


def _drop_hints(proposals: Sequence[Proposal], drop: float) -> Iterator[str]:
    """Yield what the drop would have to be for some affordable threshold, and what else helps."""
    reach = [value for one in proposals if (value := one.relaxed_drop()) is not None]
    if reach and (needed := min(reach)) > drop:
        yield f"max drop {drop:g} would have to be {_up(needed)} points{_over(needed, drop)}"
    if not any(one.allowed.any() for one in proposals):
        # Each saver lacks something of its own: what the first lacks is an example.
        yield from [one.why for one in proposals if one.why][:1]


def _budget_hints(
    proposals: Sequence[Proposal], limits: Mapping[str, float], *, others: Budgets
) -> Iterator[str]:
    """Yield what each budget would have to be, the others kept."""
    for name, limit in limits.items():
        kept = replace(others, **{name: None})
        reach = [value for one in proposals if (value := _least(one, name, kept)) is not None]
        if reach and min(reach) > limit:
            yield _budget_hint(name, limit, min(reach))


def _joint_hints(proposals: Sequence[Proposal], limits: Mapping[str, float]) -> Iterator[str]:
    """Yield what several budgets would have to be together, where raising one is not enough.

    One after the other is raised as far as it must be with those before it kept as they then are.
    """
    kept = Budgets()
    for name, limit in limits.items():
        reach = [value for one in proposals if (value := _least(one, name, kept)) is not None]
        if reach and min(reach) > limit:
            yield _budget_hint(name, limit, min(reach))
            limit = float(_up(min(reach)))
        kept = replace(kept, **{name: limit})


def _least(proposal: Proposal, name: str, kept: Budgets) -> float | None:
    """Return the least of a quantity over the thresholds that method and other budgets allow."""
    allowed = proposal.allowed
    if not allowed.any() and len(allowed):
        allowed = np.arange(len(allowed)) == len(allowed) - 1
    places = np.flatnonzero(allowed & proposal.within(kept))
    if not len(places):
        return None
    # The last is the loosest: it escalates least. The first may ask the saver nothing.
    return min(proposal.quantity(name, int(i), budgeted=True) for i in (places[0], places[-1]))


def _budget_hint(name: str, limit: float, needed: float) -> str:
    return f"{name} {limit:.4g} would have to be {_up(needed)}{_over(needed, limit)}"


def _up(value: float) -> str:
    """Write a number with four digits, rounded up, so that asking for it is enough."""
    step = 10.0 ** (np.floor(np.log10(value)) - 3)
    return f"{np.ceil(value / step - 1e-9) * step:.4g}"


def _over(needed: float, limit: float) -> str:
    """Say by how much a limit would have to give; nothing of a limit of 0."""
    if limit == 0:
        return ""
    percent = 100 * (float(_up(needed)) / limit - 1)
    return f" (over by {percent:.0f} %)" if percent >= 1 else f" (over by {percent:.1g} %)"


def policy_of(choice: Choice) -> Policy:
    """Return the policy of a choice."""
    return choice.proposal.policy_at(choice.threshold)


def figures_on(policy: Policy, problem: Problem, reuse: ReuseRule | None = None) -> Figures:
    """Measure a policy on a problem's samples, with what is reused within epochs."""
    return figures(
        policy,
        problem.outputs_of(policy),
        problem.labels if problem.known is None else problem.known,
        grouped=problem.groups is not None,
        timeline=problem.timeline,
        reuse=reuse,
    )


def with_intervals(
    problem: Problem, proposals: Sequence[Proposal], rows: Sequence[Candidate]
) -> tuple[Candidate, ...]:
    """Return the rows of some proposals with within what their figures lie on others like these."""
    found, samples, last = [], problem, np.arange(len(problem.labels))
    for proposal, row in zip(proposals, rows, strict=True):
        if not np.array_equal(last, proposal.evidence):  # a copy of all answers: mostly one does
            samples, last = problem.subset(proposal.evidence), proposal.evidence
        found.append(_with_intervals(samples, proposal, row))
    return tuple(found)


def _with_intervals(problem: Problem, proposal: Proposal, row: Candidate) -> Candidate:
    n, apart = proposal.samples, problem.groups is None and problem.timeline is None
    if apart and row.accuracy_saver is not None:
        row = replace(row, accuracy_interval=rate_interval(round(n * row.accuracy_saver), n))
    if row.threshold is None:  # what accepts nothing loses nothing, on whatever samples
        return row
    within = intervals_at(problem, proposal, row.threshold)
    return replace(
        row,
        drop_interval_points=within.drop_points,
        accept_interval=within.accept_rate,
        cost_interval=within.cost,
    )


def intervals_at(problem: Problem, proposal: Proposal, threshold: float) -> Within:
    """Return within what the figures of a proposal at some threshold lie on other samples.

    Args:
        problem: the samples that they are of.
        proposal: a cascade.
        threshold: of its first stage.
    """
    n, apart = len(problem.labels), problem.groups is None and problem.timeline is None
    found = figures_on(proposal.policy_at(threshold), problem, proposal.rule_at(threshold))
    if not apart or found.settled is None:
        return Within(found.drop_interval_points)
    reached = n - np.rint(n * np.cumsum(found.settled[:-1])).astype(int)
    rates = [rate_interval(int(one), n, risk=0.05 / len(reached)) for one in reached]
    macs = [one.macs / problem.large.macs for one in proposal.models]
    low, high = (
        macs[0] + sum(cost * ends[end] for cost, ends in zip(macs[1:], rates, strict=True))
        for end in (0, 1)
    )
    away = rate_interval(int(reached[-1]), n)
    return Within(found.drop_interval_points, (1 - away[1], 1 - away[0]), (low, high))


HARDLY = 0.02
"""Share of the cost that a longer cascade has to save beside two stages to be worth its memory."""


def hardly_worth_it(choice: Choice) -> list[str]:
    """Say so where two stages do nearly as well as the longer cascade that was chosen."""
    rows = [row for row in choice.candidates if row.feasible and row.cost_macs_ratio is not None]
    chosen = next((row for row in rows if row.chosen), None)
    two = [row for row in rows if SEVERAL not in row.saver]
    if chosen is None or SEVERAL not in chosen.saver or not two:
        return []
    best = min(two, key=lambda row: row.cost_macs_ratio or 0.0)
    saved = 1 - (chosen.cost_macs_ratio or 0.0) / (best.cost_macs_ratio or 1.0)
    if saved >= HARDLY or saved < 0:  # a dearer one was chosen for its accuracy or its latency
        return []
    costs = choice.proposal.costs
    memory = "" if costs.memory_mb is None else f" and takes {costs.memory_mb:.0f} MB in all"
    return [
        f"the longer cascade {chosen.saver} saves {100 * saved:.1f} % beside {best.saver}{memory}: "
        f"--max-stages 2 does without it"
    ]


PROMISES = {
    Method.CERTIFIED: "drop within the bound, with the confidence",
    Method.LTT_HB: "drop within the bound, with the confidence",
    Method.CRC: "drop within the bound on average over calibration sets",
    Method.EMPIRICAL: "none: the drop on these samples only",
    Method.TINYSAVER: "none",
}
"""What each method promises about other samples."""


def compare_methods(
    problem: Problem, holdout: Problem | None, targets: Targets, **drawn: int
) -> tuple[MethodRow, ...]:
    """Let every method choose at the same bound, without budgets.

    Args:
        problem: what to choose on.
        holdout: samples set aside, or None.
        targets: bound, confidence and objective; 0.5 points where there is no bound.
        drawn: seed and candidates, as `propose_all` takes them.
    """
    drop = targets.allowed_drop_points
    common = replace(
        targets,
        budgets=Budgets(),
        objective=None,
        max_drop_points=DEFAULT_MAX_DROP_POINTS if drop is None else drop,
    )
    return tuple(
        _comparison_row(problem, holdout, replace(common, method=method), **drawn)
        for method in Method
    )


def _comparison_row(
    problem: Problem, holdout: Problem | None, targets: Targets, **drawn: int
) -> MethodRow:
    method = targets.method
    if targets.searches and method not in SEARCHED:
        targets = replace(targets, score=None, fusion=None)
    try:
        proposals = propose_all(problem, targets, **drawn)
        choice = choose(problem, proposals, targets)
    except (InfeasibleError, InputError) as error:
        return MethodRow(method, PROMISES[method], why=str(error))
    policy = policy_of(choice)
    evidence = problem.subset(choice.proposal.evidence)
    return MethodRow(
        method=method,
        promise=PROMISES[method],
        saver=choice.proposal.name,
        threshold=choice.threshold,
        calibration=figures_on(policy, evidence),
        holdout=None if holdout is None else figures_on(policy, holdout),
    )
