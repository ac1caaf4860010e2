"""The methods: each turns one cascade's answers into a proposal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.costs import CascadeCosts
from tinysaver_edge.calibrate.methods.certify import CertifiedChoice, CertifyRule, certify
from tinysaver_edge.calibrate.methods.chains import best_chains, chains_beside, chains_of
from tinysaver_edge.calibrate.methods.counts import SortedScores, Verdicts, WalkCounts
from tinysaver_edge.calibrate.methods.proposal import NOTHING, Proposal, within_rate
from tinysaver_edge.calibrate.methods.reuse import EpochTest
from tinysaver_edge.calibrate.methods.search import Searched, search
from tinysaver_edge.calibrate.methods.sweep import (
    OperatingPoint,
    Sweep,
    crc,
    lost_allowed,
    ltt_hoeffding_bentkus,
    tinysaver_threshold,
)
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.calibrate.targets import ALL, Method, Reference, Targets
from tinysaver_edge.certificate.p_values import upper_rates
from tinysaver_edge.fusion import ConditionalLogit, Fusion, NoFusion, get_fusion
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray, Outputs, all_but
from tinysaver_edge.questions.known import Known
from tinysaver_edge.score import Margin, MaxSoftmax, Score, get_score


@dataclass(frozen=True, slots=True)
class Bid:
    """One cascade up for a proposal.

    Attributes:
        candidates: how many cascades share the risk.
        score: the score, or the name of one; None leaves it to the method.
        tune: samples that are not to be certified on, since score and fusion come from them.
        again: how many more share the risk where another drop is asked for on the same samples.
    """

    problem: Problem
    saver: ModelAnswers
    targets: Targets
    candidates: int
    seed: int
    score: Score | str | None
    fusion: Fusion | str | None
    tune: IntArray | None = None
    between: tuple[ModelAnswers, ...] = ()
    again: int = 0

    @property
    def costs(self) -> CascadeCosts:
        """The costs of the savers with the large model."""
        costs = CascadeCosts.of(self.saver, self.problem.large, self.between)
        return costs if self.problem.timeline is None else costs.reusing(self.problem.look)

    @property
    def outputs(self) -> tuple[Outputs, ...]:
        """Every stage's answers."""
        models = (self.saver, *self.between, self.problem.large)
        return tuple(model.outputs for model in models)


def propose_all(
    problem: Problem,
    targets: Targets,
    *,
    seed: int,
    candidates: int,
    others: int = 0,
    again: int = 0,
) -> list[Proposal]:
    """Find the thresholds that the method asked for allows, for each saver.

    Args:
        problem: answers and labels.
        targets: method, bound and confidence.
        seed: of whatever is drawn.
        candidates: how many savers share the risk, those that were not measured included.
        others: how many candidates of earlier runs on the same samples share it besides.
        again: how many more there are where another drop is asked for on the same samples.
    """
    propose = _PROPOSERS[targets.method]
    if targets.searches:
        found = search(problem, targets, seed=seed)
        beside = chains_beside(problem, targets, found)
        common = (targets, found.kept + len(beside.chains) + others, seed)
        return [
            *(
                _found(
                    Bid(problem, saver, *common, one.score, one.fusion, found.tune, again=again),
                    one,
                )
                for saver, one in zip(problem.savers, found.savers, strict=True)
            ),
            *(
                replace(
                    _certified(
                        Bid(problem, early[0], *common, score, None, found.tune, early[1:], again)
                    ),
                    told=beside.told,
                )
                for early, score in beside.chains
            ),
        ]
    candidates += others
    if chains_of(problem, targets):
        lost = candidates - len(problem.savers)
        return _with_chains(problem, targets, seed=seed, lost=lost, again=again)
    fusions = fusions_of(targets)
    each = (targets, candidates * len(fusions), seed, targets.score)
    return [
        propose(Bid(problem, saver, *each, fusion, again=again))
        for saver in problem.savers
        for fusion in fusions
    ]


def fusions_of(targets: Targets) -> tuple[Fusion | str | None, ...]:
    """Return the fusions to propose, each for every saver; None leaves it to the method.

    Where people are asked nothing can be fitted, so names stand for constant weights. With "all"
    both, a fusion and none, are tested on the samples that certify, and each pays for it.
    """
    if targets.reference is not Reference.QUESTIONS or targets.fusion is None:
        return (targets.fusion,)
    if targets.fusion == ALL:
        return (NoFusion(), ConditionalLogit())
    return (get_fusion(targets.fusion),)


def _with_chains(
    problem: Problem, targets: Targets, *, seed: int, lost: int, again: int
) -> list[Proposal]:
    """Propose the cascades that did best on a tune split; the others share no risk."""
    found = best_chains(problem, targets, seed=seed)
    kept = [one for one in found.chains if not one.left_out]
    common = (targets, len(kept) + lost, seed, targets.score, targets.fusion, found.tune)
    proposals = []
    for one in found.chains:
        bid = Bid(problem, one.early[0], *common, between=one.early[1:], again=again)
        if one.left_out:
            proposals.append(_nothing(bid.costs, found.score, found.certify, why=one.left_out))
        else:
            proposals.append(replace(_certified(bid), told=found.told))
    return proposals


def _found(bid: Bid, found: Searched) -> Proposal:
    """Propose what the search found for a saver, or nothing where it left the saver out."""
    if not found.left_out:
        return replace(_PROPOSERS[bid.targets.method](bid), searched=found)
    assert bid.tune is not None
    evidence = all_but(bid.tune, len(bid.problem.labels))
    none = _nothing(bid.costs, found.score, evidence, why=found.left_out)
    return replace(none, fusion=_changing(found.fusion), searched=found)


def _nothing(costs: CascadeCosts, score: Score, evidence: IntArray, *, why: str) -> Proposal:
    """Propose nothing for what a tune split ruled out."""
    none = np.array([], np.int64)
    return Proposal(
        costs=costs,
        score=score,
        fusion=None,
        thresholds=none.astype(np.float64),
        accepted=none,
        lost=none,
        allowed=none.astype(bool),
        evidence=evidence,
        relaxed_drop=lambda: None,
        why=why,
        skipped=True,
    )


def _certified(bid: Bid) -> Proposal:
    drop = bid.targets.allowed_drop_points
    choice = _certify(bid, 100.0 if drop is None else drop)
    if drop is None:
        return _from_budget(bid, choice)
    certificate = choice.certificate
    steps = () if certificate is None else certificate.steps
    return Proposal(
        costs=bid.costs,
        score=choice.score,
        fusion=_changing(choice.fusion),
        thresholds=np.array([step.threshold for step in steps], np.float64),
        accepted=np.array([step.accepted for step in steps], np.int64),
        lost=np.array([step.lost - step.gained for step in steps], np.int64),
        allowed=np.ones(len(steps), bool),
        evidence=choice.certify_index,
        relaxed_drop=lambda: _least_certified(bid, choice),
        path=choice.trial.path,
        trial=choice.trial,
        reached=_reached(choice, np.array([step.threshold for step in steps], np.float64)),
        **_over_epochs(choice, np.array([step.threshold for step in steps], np.float64)),
        risk=choice.trial.share,
        certify=(
            None
            if certificate is None
            else lambda index: certificate.stopping_at(certificate.steps[index].threshold)
        ),
        why=choice.why,
    )


def _certify(bid: Bid, drop_points: float) -> CertifiedChoice:
    targets, problem = bid.targets, bid.problem
    return certify(
        bid.outputs,
        _told(problem, targets.reference),
        max_drop_points=drop_points,
        confidence=targets.confidence,
        candidates=bid.candidates,
        seed=bid.seed,
        score=bid.score,
        fusion=bid.fusion,
        tune=bid.tune,
        groups=problem.groups,
        timeline=problem.timeline,
    )


def _told(problem: Problem, reference: Reference) -> IntArray | Known | None:
    """Return the true classes, what is known of them, or None for the large model's answers."""
    if reference is Reference.LABELS:
        return problem.labels
    if reference is Reference.LARGE:
        return None
    return problem.known or Known.nothing(len(problem.labels))


def _from_budget(bid: Bid, choice: CertifiedChoice) -> Proposal:
    """Take the strictest threshold that the budget lets be used, without a look at any label.

    The certificate then states the least drop that can be signed there.
    """
    trial = choice.trial
    threshold = _budget_threshold(bid, choice)
    # Where none fits, the loosest shows how far off it is.
    loosest = trial.thresholds[-1] if isinstance(trial, EpochTest) else trial.scores[0].min()
    grid = np.array([loosest if threshold is None else threshold])
    counts = trial.counted(grid)
    return Proposal(
        costs=bid.costs,
        score=choice.score,
        fusion=_changing(choice.fusion),
        thresholds=grid,
        accepted=counts.accepted,
        lost=counts.lost - counts.gained,
        allowed=np.array([threshold is not None]),
        evidence=choice.certify_index,
        relaxed_drop=lambda: None,
        path=trial.path,
        trial=trial,
        reached=_reached(choice, grid),
        **_over_epochs(choice, grid),
        risk=trial.share,
        certify=lambda index: trial.certify_at(float(grid[index])),
    )


def _budget_threshold(bid: Bid, choice: CertifiedChoice) -> float | None:
    """Return the strictest threshold within the budgets, None where there is none."""
    if bid.between or isinstance(choice.trial, EpochTest):
        grid = choice.trial.thresholds
        fits = _fitting(bid, choice)
        return float(grid[fits.argmax()]) if fits.any() else None
    rate = bid.costs.rate_within(bid.targets.budgets)
    if rate is None:
        return None
    scores = SortedScores.of(choice.trial.scores[0])
    rates = upper_rates(scores.samples - scores.accepted, scores.samples, risk=choice.trial.share)
    fits = within_rate(rates, rate)
    return float(scores.thresholds[fits.argmax()]) if fits.any() else None


def _least_certified(bid: Bid, choice: CertifiedChoice) -> float | None:
    """Return the least drop that could be signed within the budgets, by the walk.

    Whoever asks for it has tested on the samples once more; what it takes then is what is told.
    """
    drop = bid.targets.allowed_drop_points
    if bid.again and drop is not None:
        bid = replace(bid, candidates=bid.candidates + bid.again)
        choice = _certify(bid, drop)
    points = _least_reaching(bid, choice)
    if points is None:
        return None
    # A larger drop may bring a fusion with it, and with that other answers.
    again = _certify(bid, points)
    if again.fusion == choice.fusion:
        return points
    other = _least_reaching(bid, again)
    return None if other is None else max(points, other)


def _least_reaching(bid: Bid, choice: CertifiedChoice) -> float | None:
    """Return the least drop at which the walk reaches a threshold within the budgets."""
    fits = _fitting(bid, choice)
    return choice.trial.least_reaching(int(fits.argmax())) if fits.any() else None


def _fitting(bid: Bid, choice: CertifiedChoice) -> BoolArray:
    """Return which thresholds of the walk keep the budgets."""
    trial = choice.trial
    counts = trial.counted(trial.thresholds)
    nothing = np.zeros(len(trial.thresholds), np.int64)
    return Proposal(
        costs=bid.costs,
        score=choice.score,
        fusion=None,
        thresholds=trial.thresholds,
        accepted=counts.accepted,
        lost=nothing,
        allowed=nothing.astype(bool),
        evidence=choice.certify_index,
        relaxed_drop=lambda: None,
        risk=trial.share,
        path=trial.path,
        reached=counts.reached if bid.between else None,
        **_over_epochs(choice, trial.thresholds),
    ).within(bid.targets.budgets)


def _reached(choice: CertifiedChoice, thresholds: FloatArray) -> IntArray | None:
    """Return the samples that go on to each later stage, where there are more than two stages."""
    trial = choice.trial
    return trial.counted(thresholds).reached if trial.path.stages > 1 else None


def _over_epochs(choice: CertifiedChoice, thresholds: FloatArray) -> dict[str, Any]:
    """Return what a proposal has besides where answers are reused within epochs."""
    trial = choice.trial
    if not isinstance(trial, EpochTest):
        return {}
    timeline = trial.timeline
    rule = partial(trial.reuse.rule, epoch_s=timeline.epoch_s, frames_per_s=timeline.frames_per_s)
    return {"asked": trial.counted(thresholds).asked, "over_epochs": trial, "reuse": rule}


def _empirical(bid: Bid) -> Proposal:
    score, fusion = _fitted(bid)
    swept = _sweep(bid, score, fusion)
    drop = bid.targets.allowed_drop_points
    samples = swept.samples
    lost = np.concatenate(([swept.lost_without_accepting], swept.lost))
    allowed = np.ones(len(lost), bool)
    if drop is not None:
        allowed = lost <= lost_allowed(drop, samples=samples)
    return Proposal(
        costs=bid.costs,
        score=score,
        fusion=_changing(fusion),
        thresholds=np.concatenate(([NOTHING], swept.thresholds)),
        accepted=np.concatenate(([0], swept.accepted)),
        lost=lost,
        allowed=allowed,
        evidence=np.arange(samples),
        relaxed_drop=lambda: _least_counted(bid, swept),
    )


def _fitted(bid: Bid) -> tuple[Score, Fusion]:
    """Return score and fusion, fitted on the samples themselves where they learn."""
    rule = CertifyRule(bid.score or Margin(), bid.fusion or NoFusion())
    score, fusion = rule.fitted(bid.saver.outputs, bid.problem.large.outputs, bid.problem.labels)
    return score.suited_to(bid.saver.outputs), fusion


def _least_counted(bid: Bid, swept: Sweep) -> float | None:
    """Return the least drop on the samples within the budgets."""
    rate = bid.costs.rate_within(bid.targets.budgets)
    fits = swept.accept_rates >= 1 - rate - 1e-12 if rate is not None else np.array([False])
    return float(swept.drop_points[fits].min()) if fits.any() else None


def _tinysaver(bid: Bid) -> Proposal:
    saver_correct, large_correct = _right(bid)
    found = tinysaver_threshold(
        bid.saver.outputs.confidences, saver_correct=saver_correct, large_correct=large_correct
    )
    score = MaxSoftmax()
    point = _sweep(bid, score).at(found.threshold)
    return _single(bid, score, point)


def _crc(bid: Bid) -> Proposal:
    score = get_score(bid.targets.score or Margin.name).suited_to(bid.saver.outputs)
    return _single(bid, score, crc(_sweep(bid, score), _bound(bid)))


def _ltt(bid: Bid) -> Proposal:
    score = Margin()
    saver_correct, large_correct = _right(bid)
    grid = score.fixed_thresholds()
    assert grid is not None
    counts = WalkCounts.of(
        SortedScores.of(score(bid.saver.outputs)),
        Verdicts.of((saver_correct, large_correct), large_correct),
        grid,
    )
    risk = bid.targets.risk / bid.candidates
    point = ltt_hoeffding_bentkus(counts, _bound(bid), risk=risk)
    return _single(bid, score, point, risk=risk)


def _single(
    bid: Bid, score: Score, point: OperatingPoint | None, *, risk: float | None = None
) -> Proposal:
    """Propose one threshold, or none where a method finds none."""
    points = [] if point is None else [point]
    nothing = not points
    return Proposal(
        costs=bid.costs,
        score=score,
        fusion=None,
        thresholds=np.array([NOTHING, *(one.threshold for one in points)]),
        accepted=np.array([0, *(one.accepted for one in points)], np.int64),
        lost=np.array([0, *(one.lost for one in points)], np.int64),
        allowed=np.array([nothing, *(True for _ in points)]),
        evidence=np.arange(len(bid.problem.labels)),
        relaxed_drop=lambda: None,
        risk=risk,
    )


def _bound(bid: Bid) -> float:
    drop = bid.targets.allowed_drop_points
    return 100.0 if drop is None else drop


def _right(bid: Bid) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    labels = bid.problem.labels
    return (
        bid.saver.outputs.predictions == labels,
        bid.problem.large.outputs.predictions == labels,
    )


def _sweep(bid: Bid, score: Score, fusion: Fusion | None = None) -> Sweep:
    saver_correct, large_correct = _right(bid)
    final = None
    if fusion is not None and fusion.changes_answers:
        answers, _ = fusion.fuse(bid.saver.outputs, bid.problem.large.outputs)
        final = answers == bid.problem.labels
    return Sweep.of(
        SortedScores.of(score(bid.saver.outputs)),
        saver_correct=saver_correct,
        large_correct=large_correct,
        final_correct=final,
    )


def _changing(fusion: Fusion) -> Fusion | None:
    """Return a fusion, or None where it changes no answer."""
    return fusion if fusion.changes_answers else None


_PROPOSERS: MappingProxyType[Method, Callable[[Bid], Proposal]] = MappingProxyType(
    {
        Method.CERTIFIED: _certified,
        Method.EMPIRICAL: _empirical,
        Method.TINYSAVER: _tinysaver,
        Method.CRC: _crc,
        Method.LTT_HB: _ltt,
    }
)
