"""Run a calibration: from a plan to a choice, its figures and a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import check_file_target
from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.bundle.bundle import check_target
from tinysaver_edge.bundle.manifest import AskedEntry
from tinysaver_edge.calibrate.calibration import (
    Calibration,
    Candidate,
    PredictedLatency,
    QuestionPlan,
)
from tinysaver_edge.calibrate.chosen.asking import Asking, ask_about, asked_entry
from tinysaver_edge.calibrate.chosen.assemble import (
    assemble,
    bound_to_the_processor,
    disagreement,
    reuse_entry,
)
from tinysaver_edge.calibrate.chosen.choose import (
    Choice,
    choose,
    compare_methods,
    figures_on,
    hardly_worth_it,
    policy_of,
    with_intervals,
)
from tinysaver_edge.calibrate.gathered import (
    check_plan,
    gather,
    loosened,
    on_device,
    records_folder,
)
from tinysaver_edge.calibrate.measured.given_records import machine
from tinysaver_edge.calibrate.measured.independence import note_tuned, tested_before, without_tuned
from tinysaver_edge.calibrate.measured.label_check import check_agreement
from tinysaver_edge.calibrate.methods.chains import why_no_pool
from tinysaver_edge.calibrate.methods.proposal import Proposal
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.plan import ImageInput, Plan, beside
from tinysaver_edge.calibrate.problem import (
    MeasuredProblem,
    Problem,
    single_model_better,
    split_holdout,
)
from tinysaver_edge.calibrate.report import ReportFacts, build_facts, is_own_page, write_report
from tinysaver_edge.calibrate.targets import Method, Reference, limits_of
from tinysaver_edge.certificate.certificate import Certificate
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.errors import InfeasibleError, InputError
from tinysaver_edge.latency import pooled
from tinysaver_edge.questions.book import AnswerBook, check_questions_target
from tinysaver_edge.questions.interview import Interview


def calibrate(
    plan: Plan,
    *,
    out: Path | None = None,
    progress: Progress = SILENT,
    command: str | None = None,
    created: datetime | None = None,
    ask: Callable[[QuestionPlan, Interview], None] | None = None,
) -> Calibration:
    """Choose a saver and a threshold, and write the bundle and its report.

    Args:
        plan: models, samples, limits.
        out: folder or .zip for the bundle; None writes none. The report lies beside it.
        progress: hears of the work.
        command: the command line that was given, for the report.
        created: the date for the report.
        ask: asks people, where the plan wants that now; takes what their answers buy and the
            questions, and returns when they have had enough.

    Returns:
        The choice with its figures, and the candidates that lost.

    Raises:
        InputError: something given cannot be used; the message names it.
        EngineError: a model cannot be run.
        InfeasibleError: no cascade keeps every limit.
    """
    check_plan(plan)
    if out is not None:
        _check_out(out, plan)
    with ExitStack() as stack:
        gathered, data = _ready(plan, out, stack, progress)
        if plan.targets.reference is Reference.LABELS:
            large = gathered.artefacts.get(gathered.problem.large.name)
            doubts = check_agreement(
                gathered.problem,
                gathered.label_names,
                trusted=plan.trust_labels,
                published_top1=None if large is None else large.published_top1,
            )
            gathered = replace(
                gathered,
                warnings=(*gathered.warnings, *doubts.lines),
                stated=(*gathered.stated, *doubts.stated),
            )
        outlook: QuestionPlan | None = None
        if plan.targets.reference is Reference.QUESTIONS:
            asking = stack.enter_context(_asking(plan, gathered, data, out))
            if plan.asked.page and ask is not None:
                ask(asking.plan, asking.interview)
            gathered, outlook = _told(gathered, asking)
        elif plan.outlook:
            outlook = _outlook(plan, gathered, data)
        decided = _decide(plan, gathered)
        folder = records_folder(plan, out)
        if folder is not None and gathered.content is not None:
            tuned = np.setdiff1d(decided.seen_index, decided.sample_index)
            note_tuned(folder, plan.targets, decided.result.policy, gathered.content[tuned])
        result = replace(
            decided.result, bundle=out, plan=outlook, questions=_asked(outlook, decided)
        )
        if out is None:
            return result
        assemble(
            result,
            gathered,
            plan,
            data=data,
            golden_pool=decided.sample_index,
            seen=decided.seen_index,
            target=out,
        )
        if plan.report:
            result = replace(result, report=default_report(out))
            facts = _report_facts(plan, gathered, decided, result, data, command, created)
            write_report(facts, default_report(out))
        return result


def plan_questions(
    plan: Plan, *, out: Path | None = None, progress: Progress = SILENT
) -> QuestionPlan:
    """Measure all models, then say what can be certified without labels and what questions buy.

    Where the plan names a table, the questions are written to it, their pictures beside it.

    Args:
        plan: models, unlabelled samples, limits; its answers count already.
        out: of the bundle to come; tells where records are kept.
        progress: hears of the work.

    Raises:
        InputError: something given cannot be used, or the table cannot be written.
        EngineError: a model cannot be run.
        InfeasibleError: no number of answers would certify anything.
    """
    check_plan(plan)
    asked = plan.asked.questions
    if asked is not None:
        check_questions_target(asked)
    with ExitStack() as stack:
        gathered, data = _ready(plan, out, stack, progress)
        asking = stack.enter_context(_asking(plan, gathered, data, None))
        found = asking.plan if asked is None else asking.write(asked, data)
        return replace(found, warnings=(*gathered.warnings, *found.warnings))


def _ready(
    plan: Plan, out: Path | None, stack: ExitStack, progress: Progress
) -> tuple[MeasuredProblem, DataSource | None]:
    """Return all models' answers on the samples that may be used, and the images, open."""
    gathered, data = gather(plan, out, stack, progress)
    gathered = without_tuned(gathered, plan.targets, records_folder(plan, out))
    gathered = on_device(gathered, plan)
    others, said = tested_before(
        gathered,
        plan.targets,
        records_folder(plan, out),
        drawn=(plan.holdout, plan.seed),
    )
    warnings = (*gathered.warnings, *loosened(plan), *said)
    return replace(gathered, warnings=warnings, others=others), data


@contextmanager
def _asking(
    plan: Plan, gathered: MeasuredProblem, data: DataSource | None, out: Path | None
) -> Iterator[Asking]:
    """Make the questions, and take in the answers that there are."""
    index, _ = _split_off(plan, gathered)
    problem = gathered.problem.subset(index)
    proposals = propose_all(problem, plan.targets, **_drawn(plan, gathered))
    place = plan.asked.book
    if place is None and plan.asked.page and out is not None:
        place = default_answers(out)
    with AnswerBook(place) as book:
        yield ask_about(
            gathered,
            problem,
            index,
            proposals,
            plan.targets,
            data=data,
            book=book,
            answers=plan.asked.answers,
            repeated=plan.asked.repeated,
        )


def _told(gathered: MeasuredProblem, asking: Asking) -> tuple[MeasuredProblem, QuestionPlan]:
    """Return the problem with what people told, and how far that goes."""
    problem = replace(gathered.problem, known=asking.known())
    said = asking.now()
    warnings = (*gathered.warnings, *said.warnings)
    return replace(gathered, problem=problem, warnings=warnings), said


def _outlook(plan: Plan, gathered: MeasuredProblem, data: DataSource | None) -> QuestionPlan | None:
    """Say what questions would buy, where nobody has been asked; None where nothing."""
    asked = replace(plan.targets, reference=Reference.QUESTIONS)
    try:
        with _asking(replace(plan, targets=asked), gathered, data, None) as asking:
            return asking.plan
    except (InfeasibleError, InputError):
        return None


def _asked(outlook: QuestionPlan | None, decided: _Decided) -> AskedEntry | None:
    """Return what people were asked for a certificate; None where they were not."""
    if outlook is None or decided.result.certificate is None:
        return None
    return asked_entry(outlook.standing, decided.evidence, decided.choice)


def default_answers(out: Path) -> Path:
    """Return the file beside a bundle that keeps the answers given on the page."""
    return beside(out, "answers.jsonl")


@dataclass(frozen=True, slots=True)
class _Decided:
    """A choice and the samples it rests on.

    Attributes:
        evidence: the problem on the samples that the decision rests on.
        sample_index: their positions in the data.
        seen_index: those of all samples that were not set aside.
        holdout: the problem on the samples set aside, or None.
    """

    evidence: Problem
    sample_index: NDArray[np.int64]
    seen_index: NDArray[np.int64]
    holdout: Problem | None
    proposals: list[Proposal]
    choice: Choice
    result: Calibration


def _decide(plan: Plan, gathered: MeasuredProblem) -> _Decided:
    """Choose, and measure what was chosen."""
    calibrating, held_out = _split_off(plan, gathered)
    problem = gathered.problem.subset(calibrating)
    holdout = gathered.problem.subset(held_out) if len(held_out) else None
    drawn = _drawn(plan, gathered)
    proposals = propose_all(problem, plan.targets, **drawn)
    try:
        choice = choose(problem, proposals, plan.targets)
        rows = with_intervals(problem, proposals, choice.candidates)
        choice = replace(choice, candidates=rows)
    except InfeasibleError as error:
        found = with_intervals(problem, proposals, error.candidates)
        rows = (*found, *_unmeasured(gathered))
        raise InfeasibleError(str(error), candidates=rows, warnings=gathered.warnings) from None
    policy = policy_of(choice)
    rule = choice.proposal.rule_at(choice.threshold)
    evidence = problem.subset(choice.proposal.evidence)
    certificate = choice.certify()
    large = gathered.artefacts.get(problem.large.name)
    result = Calibration(
        policy=policy,
        method=plan.targets.method,
        calibration=figures_on(policy, evidence, rule),
        holdout=None if holdout is None else figures_on(policy, holdout, rule),
        certificate=certificate,
        interval=choice.interval,
        candidates=(*choice.candidates, *_unmeasured(gathered)),
        methods=(
            compare_methods(problem, holdout, plan.targets, **drawn) if plan.compare_methods else ()
        ),
        warnings=(
            *gathered.warnings,
            *_not_tried(choice),
            *([choice.proposal.told] if choice.proposal.told else []),
            *_two_only(plan, problem),
            *_warnings(choice),
            *hardly_worth_it(choice),
            *_within_spread(choice, plan),
            *_dear_codec(plan, gathered),
            *bound_to_the_processor([stage.model for stage in policy.stages], gathered),
        ),
        latency=_latency(choice),
        disagreement=disagreement(
            policy,
            evidence,
            holdout,
            choices=_choices(proposals, certificate),
            seed=plan.seed,
        ),
        reuse=reuse_entry(
            policy, rule, evidence, choices=_choices(proposals, certificate), seed=plan.seed
        ),
        large_codec=None if large is None else large.codec,
        codec_cost=gathered.codec_cost,
        stated=() if certificate is None else gathered.stated,
    )
    better = single_model_better(evidence, result)
    if better is not None:
        result = replace(result, warnings=(*result.warnings, better))
    seen = gathered.sample_index[calibrating]
    index = seen[choice.proposal.evidence]
    return _Decided(evidence, index, seen, holdout, proposals, choice, result)


def _split_off(
    plan: Plan, gathered: MeasuredProblem
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the samples to calibrate on and those set aside."""
    return split_holdout(
        len(gathered.problem.labels),
        fraction=plan.holdout,
        seed=plan.seed,
        groups=gathered.problem.groups,
    )


def _drawn(plan: Plan, gathered: MeasuredProblem) -> dict[str, int]:
    """Return the seed, and how many savers share the risk, here and of earlier runs.

    Those that were left out because others did well share it; what could not even be prepared was
    lost whatever the labels are.
    """
    left_out = sum(name in gathered.artefacts for name in gathered.lost)
    candidates = len(gathered.problem.savers) + left_out
    return {
        "seed": plan.seed,
        "candidates": candidates,
        "others": gathered.others or 0,
        "again": 0 if gathered.others is None else candidates,
    }


def _choices(proposals: list[Proposal], certificate: Certificate | None) -> int:
    """Return among how many thresholds there was to choose, whatever the samples showed."""
    if certificate is not None:
        return certificate.grid_size * len(proposals)
    return max(1, sum(len(one.thresholds) for one in proposals))


def _report_facts(
    plan: Plan,
    gathered: MeasuredProblem,
    decided: _Decided,
    result: Calibration,
    data: DataSource | None,
    command: str | None,
    created: datetime | None,
) -> ReportFacts:
    return build_facts(
        problem=decided.evidence,
        holdout=decided.holdout,
        result=result,
        proposals=decided.proposals,
        choice=decided.choice,
        plan=plan,
        data=data,
        sample_index=decided.sample_index,
        label_names=gathered.label_names,
        artefacts=gathered.artefacts,
        machine=gathered.machine or machine(),
        command=command,
        created=created,
    )


def _dear_codec(plan: Plan, gathered: MeasuredProblem) -> list[str]:
    """Say that a codec costs more than the cascade may."""
    cost, allowed = gathered.codec_cost, plan.targets.allowed_drop_points
    if cost is None or allowed is None or cost.drop_points <= allowed:
        return []
    return [
        f"{cost.codec} alone costs {gathered.problem.large.name} {cost}, more than the {allowed:g} "
        f"that the cascade may lose besides: a higher quality costs less"
    ]


def _latency(choice: Choice) -> PredictedLatency | None:
    """Return how long a frame will take with what was chosen."""
    proposal, costs = choice.proposal, choice.proposal.costs
    if not costs.timed or costs.large.latency is None:
        return None
    large = pooled(((costs.large.latency, 1.0),))
    if choice.threshold is None:
        return PredictedLatency(1.0, large, 1.0, large, large)
    rates, highest = (proposal.rates_at(choice.index, budgeted=one) for one in (False, True))
    later = highest[1:] if costs.reuses else highest
    return PredictedLatency(
        rates[-1],
        costs.latency_at(*rates),
        highest[-1],
        costs.latency_at(*highest),
        large,
        later if costs.between else None,
        highest[0] if costs.reuses else None,
    )


def _check_out(out: Path, plan: Plan) -> None:
    """Refuse a bundle over something else, or among the images, where its own would be a class."""
    check_target(out)
    if plan.report:
        check_file_target(default_report(out), flag="report", ours=is_own_page)
    data = plan.input.data if isinstance(plan.input, ImageInput) else None
    folder = data if isinstance(data, Path) and data.is_dir() and out.suffix != ".zip" else None
    if folder is not None and folder.resolve() in out.resolve().parents:
        raise InputError(f"--out {out}: lies in --data {folder}; name a place outside")


def default_report(out: Path) -> Path:
    """Return the report's file beside a bundle."""
    return beside(out, "report.html")


def _unmeasured(gathered: MeasuredProblem) -> list[Candidate]:
    """Return a row for each saver that was lost or left out."""
    large = gathered.problem.large.macs
    prepared = {name: one.macs for name, one in gathered.artefacts.items() if one.macs is not None}
    return [
        Candidate(saver=name, kappa=prepared[name] / large if name in prepared else None, why=why)
        for name, why in gathered.lost.items()
    ]


def _not_tried(choice: Choice) -> list[str]:
    """Say which scores a search could not have, each reason once."""
    reasons = {one.why: None for row in choice.candidates for one in row.tried if one.why}
    return [f"not tried: {why}" for why in reasons]


def _within_spread(choice: Choice, plan: Plan) -> list[str]:
    """Name limits of time that some rounds of timing keep and others do not."""
    said, proposal = [], choice.proposal
    for name, limit in limits_of(plan.targets.budgets).items():
        if not name.endswith("latency_ms"):
            continue
        found = proposal.quantity(name, choice.index, budgeted=True)
        if found > limit:
            said.append(
                f"budget {name}={limit:.4g}: {proposal.name} keeps it in some rounds of "
                f"timing only, in all together it is {found:.4g}: --retime on a quiet machine tells"
            )
    return said


def _two_only(plan: Plan, problem: Problem) -> list[str]:
    """Say that a score or fusion leaves no cascade of more than two stages to look at."""
    targets = plan.targets
    several = len(problem.savers) > 1 and targets.max_stages > 2
    why = why_no_pool(targets) if several and targets.method is Method.CERTIFIED else None
    return [] if why is None else [f"only cascades of two stages were looked at: {why}"]


def _warnings(choice: Choice) -> list[str]:
    row = next(candidate for candidate in choice.candidates if candidate.chosen)
    if row.threshold is None:
        return [
            f"no saver may accept anything within the limit: every frame goes to the large model "
            f"({row.saver} is kept in the bundle, unasked)"
        ]
    if row.cost_macs_ratio is not None and row.cost_macs_ratio > 1:
        return [
            f"not worth it: the cascade costs {row.cost_macs_ratio:.3f} × the large model alone"
        ]
    return []
