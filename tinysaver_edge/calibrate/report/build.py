"""Gather what a report shows from a finished calibration, its verdict in one sentence first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.bundle.manifest import given_words
from tinysaver_edge.calibrate.calibration import Calibration
from tinysaver_edge.calibrate.chosen.choose import Choice
from tinysaver_edge.calibrate.methods.proposal import Proposal
from tinysaver_edge.calibrate.plan import Plan
from tinysaver_edge.calibrate.problem import Problem, single_model_better
from tinysaver_edge.calibrate.report import numbers
from tinysaver_edge.calibrate.report.confidence import class_rows, reliability, score_histogram
from tinysaver_edge.calibrate.report.curves import bounds_of
from tinysaver_edge.calibrate.report.facts import ReportFacts
from tinysaver_edge.calibrate.report.latency import latency_facts
from tinysaver_edge.calibrate.report.origin import origin
from tinysaver_edge.calibrate.report.pictures import AnsweredSamples, pictures
from tinysaver_edge.calibrate.report.proof import drift_sentence, proof_facts
from tinysaver_edge.calibrate.report.tradeoff import (
    candidates_of,
    flow_of,
    singles_of,
    sweep_of,
)
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.deciding.epochs import reused
from tinysaver_edge.deciding.figures import Figures
from tinysaver_edge.deciding.policy import Policy, replay
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.reuse import ReuseRule

if TYPE_CHECKING:
    from tinysaver_edge.artefact import Artefact


def decision_sentence(result: Calibration) -> str:
    """Say in one sentence what the device will do and what it brings."""
    saver, *middle, large = result.policy.stages
    found = result.calibration
    if saver.threshold is None or saver.score is None:
        return (
            f"Every frame goes to {large.model}: within the limits no saver may answer in its "
            f"place."
        )
    then = "".join(f", else {one.model}" for one in middle) + f", else {large.model}"
    fusion, pool = result.policy.fusion, result.policy.pool
    fused = " (the answers of all models asked are pooled)" if pool is not None else ""
    if fusion is not None and fusion.changes_answers:
        fused = " (fused with it)"
    promise = ""
    if result.certificate is not None:
        given = given_words(result.stated, result.questions)
        promise = f"; certified: {result.certificate.statement}{given}"
    if result.reuse is not None:
        rule = result.reuse.rule
        promise = (
            f"; within {rule.epoch_s:g} s an answer is repeated while the picture moves by less "
            f"than {rule.still:g} grey levels, or the saver's probabilities by less than "
            f"{rule.same:g}{promise}"
        )
    return (
        f"Let {saver.model} answer where its {saver.score.name} is at least "
        f"{numbers.score(saver.threshold)}{then}{fused}: of {numbers.count(found.samples)} samples "
        f"{_first_share(found)}, "
        f"{_cost_words(found.cost_macs_ratio)}, and {_drop_words(found.drop_points)}"
        f"{_within(found)}{promise}."
    )


def _first_share(found: Figures) -> str:
    """Say what share of the samples the first stage settles, and what is repeated."""
    if (reuse := found.reuse) is not None:
        again = numbers.percent(reuse.still + reuse.same, 1)
        who = "the savers" if found.settled is not None and len(found.settled) > 2 else "it"
        return f"{who} answered {numbers.percent(reuse.saver, 1)}, {again} repeated an answer"
    share = found.accept_rate if found.settled is None else found.settled[0]
    return f"it answered {numbers.percent(share, 1)}"


def _cost_words(cost: float | None) -> str:
    if cost is None:
        return "the cost is not known"
    if cost > 1:
        return f"a frame took {numbers.ratio(cost)} × the MACs of the large model alone"
    return f"a frame took {numbers.percent(cost, 1)} of the large model's MACs"


def _drop_words(drop_points: float) -> str:
    if drop_points == 0:
        return "no accuracy was lost or gained"
    what = "lost" if drop_points > 0 else "gained"
    return f"{numbers.points(abs(drop_points))} of accuracy were {what}"


def _score_words(policy: Policy) -> str | None:
    score = policy.stages[0].score
    return f"{score.name}, {score.meaning}" if score is not None and score.meaning else None


def _within(found: Figures) -> str:
    """Say within what the drop may lie on other samples like these."""
    if found.drop_interval_points is None:
        return ""
    low, high = (numbers.short_points(end) for end in found.drop_interval_points)
    return f" (95 % interval of the drop on samples like these: {low} to {high})"


_NO_ARTEFACTS: Mapping[str, Artefact] = MappingProxyType({})


def build_facts(
    *,
    problem: Problem,
    holdout: Problem | None,
    result: Calibration,
    proposals: Sequence[Proposal],
    choice: Choice,
    plan: Plan,
    data: DataSource | None = None,
    sample_index: NDArray[np.int64] | None = None,
    label_names: Sequence[str] | None = None,
    artefacts: Mapping[str, Artefact] = _NO_ARTEFACTS,
    machine: str | None = None,
    command: str | None = None,
    created: datetime | None = None,
) -> ReportFacts:
    """Gather what a report shows.

    Args:
        problem: the samples that the decision rests on, those of ``result.calibration``.
        holdout: the samples held out, or None.
        result: the finished calibration.
        proposals: one a candidate, in the order of ``choice.candidates``.
        choice: what was chosen among them.
        plan: what was asked.
        data: the images, open, or None where there are records only.
        sample_index: ``(n,)`` position in the data of each of the problem's samples; without it
            no images are shown.
        label_names: class names, or None.
        artefacts: the models by name; empty when only records are there.
        machine: what the latencies were measured on, in words, or None.
        command: the command line that was given, or None.
        created: the date to print, or None.

    Raises:
        InputError: the arguments are not of one calibration.
    """
    policy, outputs = result.policy, problem.outputs_of(result.policy)
    rule = None if result.reuse is None else result.reuse.rule
    answered = _answered(policy, outputs, problem, rule)
    return ReportFacts(
        decision=decision_sentence(result),
        agreement=bool(np.array_equal(answered.large, problem.labels)),
        better_alone=single_model_better(problem, result),
        score_words=_score_words(policy),
        result=result,
        holdout_margin_points=(
            None if holdout is None or rule is not None else _margin_points(policy, holdout)
        ),
        singles=singles_of(problem),
        candidates=candidates_of(problem, proposals, choice),
        unmeasured=tuple(row for row in result.candidates if row not in choice.candidates),
        bounds=bounds_of(problem, choice.proposal.saver.name),
        # A sweep decides each frame by itself.
        sweep=(
            None
            if rule is not None
            else sweep_of(
                problem,
                holdout,
                result,
                choice.proposal,
                max_drop_points=plan.targets.allowed_drop_points,
            )
        ),
        flow=flow_of(result, proposals, choice) if rule is None else None,
        histogram=score_histogram(policy.stages[0], outputs[0], problem.labels),
        reliability=tuple(
            reliability(policy.stages[place].model, outputs[place], problem.labels)
            for place in (0, -1)
        ),
        classes=class_rows(
            problem.labels,
            large_correct=answered.large == problem.labels,
            cascade_correct=answered.cascade == problem.labels,
            escalated=answered.escalated,
            names=label_names,
        ),
        latency=latency_facts(
            choice.proposal.costs,
            rates=(
                _rates(policy, outputs) if rule is None else choice.proposal.rates_at(choice.index)
            ),
            asked=policy.asked[0] == 0,
            machine=machine,
        ),
        pictures=()
        if data is None or sample_index is None
        else pictures(answered, data, sample_index, names=label_names),
        lost=len(answered.lost()),
        needless=len(answered.needless()),
        proof=(
            None
            if result.certificate is None
            else proof_facts(
                result.certificate,
                result.large_codec,
                result.codec_cost,
                stated=result.stated,
                questions=result.questions,
            )
        ),
        drift=(
            None
            if result.promised is None
            else drift_sentence(result.promised, repeated=result.reuse is not None)
        ),
        origin=origin(
            plan,
            macs={one.name: one.macs for one in (problem.large, *problem.savers)},
            artefacts=artefacts,
            data=data,
            command=command,
            created=created,
        ),
    )


def _rates(policy: Policy, outputs: Sequence[Outputs]) -> tuple[float, ...]:
    """Return the share of the samples that reaches each stage but the first."""
    if policy.asked[0] != 0:
        return (1.0,) * (len(outputs) - 1)
    stage = replay(policy, outputs).stage
    return tuple(float((stage >= place).mean()) for place in range(1, len(outputs)))


def _margin_points(policy: Policy, problem: Problem) -> float:
    """Return 1.96 standard errors of the drop on some samples, in points."""
    found = _answered(policy, problem.outputs_of(policy), problem)
    lost = (found.large == found.labels).astype(float) - (found.cascade == found.labels)
    return float(196.0 * lost.std() / np.sqrt(len(lost)))


def _answered(
    policy: Policy, outputs: Sequence[Outputs], problem: Problem, rule: ReuseRule | None = None
) -> AnsweredSamples:
    replayed = replay(policy, outputs)
    if rule is not None and problem.timeline is not None:
        frames = reused(rule, problem.timeline, outputs[0], replayed.stage == 0)
        replayed = frames.applied(replayed)
    score = policy.stages[0].score
    unasked = policy.asked[0] != 0
    return AnsweredSamples(
        labels=problem.labels,
        saver=outputs[0].predictions,
        large=outputs[-1].predictions,
        cascade=replayed.predictions,
        score=np.full(len(problem.labels), np.nan) if score is None else score(outputs[0]),
        escalated=np.ones(len(problem.labels), bool) if unasked else replayed.stage > 0,
    )
