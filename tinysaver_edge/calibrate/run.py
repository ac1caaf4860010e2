"""Run a calibration: from a plan to a choice, its figures and a bundle."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.bundle.bundle import check_target
from tinysaver_edge.calibrate.calibration import Calibration, Candidate, PredictedLatency
from tinysaver_edge.calibrate.chosen.assemble import assemble, bound_to_the_processor, disagreement
from tinysaver_edge.calibrate.chosen.choose import (
    HARDLY,
    Choice,
    choose,
    compare_methods,
    figures_on,
    policy_of,
)
from tinysaver_edge.calibrate.measured.given_records import check_copies, from_records
from tinysaver_edge.calibrate.measured.images import from_images, open_input_data
from tinysaver_edge.calibrate.measured.independence import note_tuned, too_few, without_tuned
from tinysaver_edge.calibrate.measured.label_check import check_agreement
from tinysaver_edge.calibrate.measured.latencies import for_device, is_this_machine
from tinysaver_edge.calibrate.measured.measuring import Shortlist
from tinysaver_edge.calibrate.methods.certify import default_fusion
from tinysaver_edge.calibrate.methods.chains import why_no_pool
from tinysaver_edge.calibrate.methods.proposal import SEVERAL, Proposal
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.methods.search import check_asked
from tinysaver_edge.calibrate.plan import ImageInput, Plan
from tinysaver_edge.calibrate.problem import MeasuredProblem, Problem, limits_of, split_holdout
from tinysaver_edge.calibrate.report import (
    ReportFacts,
    build_facts,
    single_model_better,
    write_report,
)
from tinysaver_edge.calibrate.targets import ALL, Method, Reference
from tinysaver_edge.certificate import Certificate
from tinysaver_edge.data import DataSource, check_left_out
from tinysaver_edge.errors import InfeasibleError, InputError
from tinysaver_edge.fusion import ConditionalLogit, Fusion, get_fusion
from tinysaver_edge.latency import pooled


def calibrate(
    plan: Plan,
    *,
    out: Path | None = None,
    progress: Progress = SILENT,
    command: str | None = None,
    created: datetime | None = None,
) -> Calibration:
    """Choose a saver and a threshold, and write the bundle and its report.

    Args:
        plan: models, samples, limits.
        out: folder or .zip for the bundle; None writes none. The report lies beside it.
        progress: hears of the work.
        command: the command line that was given, for the report.
        created: the date for the report.

    Returns:
        The choice with its figures, and the candidates that lost.

    Raises:
        InputError: something given cannot be used; the message names it.
        EngineError: a model cannot be run.
        InfeasibleError: no cascade keeps every limit.
    """
    _check_asked(plan)
    if out is not None:
        check_target(out)
    with ExitStack() as stack:
        gathered, data = _gather(plan, out, stack, progress)
        if plan.targets.reference is Reference.LABELS:
            doubts = check_agreement(
                gathered.problem, gathered.label_names, trusted=plan.trust_labels
            )
            gathered = replace(
                gathered,
                warnings=(*gathered.warnings, *doubts.lines),
                stated=(*gathered.stated, *doubts.stated),
            )
        folder = _records_folder(plan, out)
        gathered = without_tuned(gathered, plan.targets, folder)
        gathered = _on_device(gathered, plan)
        gathered = replace(gathered, warnings=(*gathered.warnings, *_loosened(plan)))
        decided = _decide(plan, gathered)
        if folder is not None and gathered.content is not None:
            tuned = np.setdiff1d(decided.seen_index, decided.sample_index)
            note_tuned(folder, plan.targets, decided.result.policy, gathered.content[tuned])
        result = replace(decided.result, bundle=out)
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


def _check_asked(plan: Plan) -> None:
    """Refuse what cannot be had whatever the images are, before any of them is looked at."""
    check_asked(plan.targets)
    given, targets = plan.input, plan.targets
    if not isinstance(given, ImageInput) or given.timing or given.bench:
        return
    elsewhere = plan.device is not None and not is_this_machine(plan.device)
    times = targets.needs_latency and not elsewhere
    if times or targets.budgets.memory_mb is not None:
        raise InputError(
            "--no-timing leaves nothing to hold a limit of time or memory against, and no latency "
            "to choose by: leave it out, or name what bench measured on the device with --bench"
        )


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
    calibrating, held_out = split_holdout(
        len(gathered.problem.labels),
        fraction=plan.holdout,
        seed=plan.seed,
        groups=gathered.problem.groups,
    )
    problem = gathered.problem.subset(calibrating)
    holdout = gathered.problem.subset(held_out) if len(held_out) else None
    # Savers that were left out because others did well share the risk; what could not even be
    # prepared was lost whatever the labels are.
    left_out = sum(name in gathered.artefacts for name in gathered.lost)
    drawn = {"seed": plan.seed, "candidates": len(problem.savers) + left_out}
    proposals = propose_all(problem, plan.targets, **drawn)
    try:
        choice = choose(problem, proposals, plan.targets)
    except InfeasibleError as error:
        rows = (*error.candidates, *_unmeasured(gathered))
        raise InfeasibleError(str(error), candidates=rows, warnings=gathered.warnings) from None
    policy = policy_of(choice)
    evidence = problem.subset(choice.proposal.evidence)
    certificate = choice.certify()
    result = Calibration(
        policy=policy,
        method=plan.targets.method,
        calibration=figures_on(policy, evidence),
        holdout=None if holdout is None else figures_on(policy, holdout),
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
            *_hardly_worth_it(choice),
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
        large_codec=plan.large_codec,
        codec_cost=gathered.codec_cost,
        stated=() if certificate is None else gathered.stated,
    )
    better = single_model_better(evidence, result)
    if better is not None:
        result = replace(result, warnings=(*result.warnings, better))
    seen = gathered.sample_index[calibrating]
    index = seen[choice.proposal.evidence]
    return _Decided(evidence, index, seen, holdout, proposals, choice, result)


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
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        command=command,
        created=created,
    )


def _gather(
    plan: Plan, out: Path | None, stack: ExitStack, progress: Progress
) -> tuple[MeasuredProblem, DataSource | None]:
    if not isinstance(plan.input, ImageInput):
        gathered = from_records(plan.input)
        known = check_copies(
            gathered.problem,
            where=str(plan.input.records),
            method=plan.targets.method,
            stated=plan.input.independent,
            numbered=gathered.sample_index,
        )
        gathered = replace(
            gathered,
            warnings=known.warnings,
            stated=(known.stated,) if known.stated else (),
        )
        _tell_if_too_few(
            plan,
            len(gathered.problem.labels),
            gathered.problem.groups,
            candidates=len(gathered.problem.savers),
            progress=progress,
        )
        return gathered, None
    data = stack.enter_context(open_input_data(plan.input))
    candidates = len(plan.input.savers)
    _tell_if_too_few(plan, len(data), data.groups, candidates=candidates, progress=progress)
    left_out = check_left_out(
        data.left_out, kept=len(data), limit=plan.input.skip_limit, path=data.path
    )
    folder = _records_folder(plan, out)
    if folder is None:
        raise InputError("nowhere to keep records: name a bundle (--out) or a folder (--work-dir)")
    stack.enter_context(_alone(folder))
    shortlist = Shortlist(plan.targets, plan.holdout, plan.seed, candidates)
    gathered = from_images(
        plan.input,
        data,
        folder=folder,
        shortlist=shortlist,
        progress=progress,
        fusion=_fusion(plan, samples=len(data)),
    )
    return replace(gathered, warnings=(*left_out, *gathered.warnings)), data


def _records_folder(plan: Plan, out: Path | None) -> Path | None:
    """Return where records of images are kept; None where there are none, or nowhere."""
    if not isinstance(plan.input, ImageInput):
        return None
    return plan.input.records or (None if out is None else default_records(out))


def _tell_if_too_few(
    plan: Plan,
    samples: int,
    groups: NDArray[np.str_] | None,
    *,
    candidates: int,
    progress: Progress,
) -> None:
    """Say before any model runs that nothing can be certified."""
    units = samples if groups is None else len(np.unique(groups))
    units = round((1 - plan.holdout) * units)
    said = too_few(plan.targets, units=units, candidates=candidates, grouped=groups is not None)
    if said is not None:
        progress.note(said)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a folder of records to one calibration; whoever holds it may die without a trace.

    Raises:
        InputError: another one is under way there, or nothing can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(f"records {folder}: cannot be written ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"records {folder}: another calibration writes there: wait for it, or name another "
                "--out and --work-dir"
            ) from None
        except OSError:  # a file system that knows no locks
            pass
        yield


def _fusion(plan: Plan, *, samples: int) -> Fusion | None:
    """Return what is going to combine two models' answers, as far as that is known beforehand."""
    targets = plan.targets
    if targets.fusion == ALL:
        return ConditionalLogit()
    if targets.fusion is not None:
        fusion = get_fusion(targets.fusion)
    elif targets.method is Method.CERTIFIED:
        drop = targets.allowed_drop_points
        fusion = default_fusion(
            units=round((1 - plan.holdout) * samples),
            max_drop_points=100.0 if drop is None else drop,
            labelled=targets.reference is Reference.LABELS,
        )
    else:
        return None
    return fusion if fusion.changes_answers else None


def _dear_codec(plan: Plan, gathered: MeasuredProblem) -> list[str]:
    """Say that a codec costs more than the cascade may."""
    cost, allowed = gathered.codec_cost, plan.targets.allowed_drop_points
    if cost is None or allowed is None or cost.drop_points <= allowed:
        return []
    return [
        f"{cost.codec} alone costs {gathered.problem.large.name} {cost}, more than the {allowed:g} "
        f"that the cascade may lose besides: a higher quality costs less"
    ]


def _loosened(plan: Plan) -> list[str]:
    """Say which of the device's own limits a looser one was asked in place of."""
    if plan.device is None:
        return []
    asked = plan.targets.budgets
    return [
        f"budget {name}={getattr(asked, name):.4g} is looser than the {limit:.4g} of device "
        f"{plan.device.name}: the budget holds"
        for name, limit in plan.device.budgets.items()
        if getattr(asked, name) > limit
    ]


def _on_device(gathered: MeasuredProblem, plan: Plan) -> MeasuredProblem:
    """Take the published latencies of the device that is asked for, where it is another one."""
    benched = isinstance(plan.input, ImageInput) and plan.input.bench
    if plan.device is None or benched or is_this_machine(plan.device):
        return gathered
    problem, warnings = for_device(gathered.problem, plan.device)
    return replace(gathered, problem=problem, warnings=(*gathered.warnings, *warnings))


def _latency(choice: Choice) -> PredictedLatency | None:
    """Return how long a frame will take with what was chosen."""
    proposal, costs = choice.proposal, choice.proposal.costs
    if not costs.timed or costs.large.latency is None:
        return None
    large = pooled(((costs.large.latency, 1.0),))
    if choice.threshold is None:
        return PredictedLatency(1.0, large, 1.0, large, large)
    rates, highest = (proposal.rates_at(choice.index, budgeted=one) for one in (False, True))
    return PredictedLatency(
        rates[-1],
        costs.latency_at(*rates),
        highest[-1],
        costs.latency_at(*highest),
        large,
        highest if costs.between else None,
    )


def default_records(out: Path) -> Path:
    """Return the folder for records beside a bundle."""
    return out.with_name(f"{out.name.removesuffix('.zip')}.records")


def default_report(out: Path) -> Path:
    """Return the report's file beside a bundle."""
    return out.with_name(f"{out.name.removesuffix('.zip')}.report.html")


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


def _hardly_worth_it(choice: Choice) -> list[str]:
    """Say so where two stages do nearly as well as the longer cascade that was chosen."""
    rows = [row for row in choice.candidates if row.feasible and row.cost_macs_ratio is not None]
    chosen = next((row for row in rows if row.chosen), None)
    two = [row for row in rows if SEVERAL not in row.saver]
    if chosen is None or SEVERAL not in chosen.saver or not two:
        return []
    best = min(two, key=lambda row: row.cost_macs_ratio or 0.0)
    saved = 1 - (chosen.cost_macs_ratio or 0.0) / (best.cost_macs_ratio or 1.0)
    if saved >= HARDLY:
        return []
    costs = choice.proposal.costs
    memory = "" if costs.memory_mb is None else f" and takes {costs.memory_mb:.0f} MB in all"
    return [
        f"the longer cascade {chosen.saver} saves {100 * saved:.1f} % beside {best.saver}{memory}: "
        f"--max-stages 2 does without it"
    ]


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
