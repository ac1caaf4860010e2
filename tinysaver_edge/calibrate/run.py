"""Run a calibration: from a plan to a choice, its figures and a bundle."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tinysaver_edge.bundle import check_target
from tinysaver_edge.calibrate.assemble import assemble
from tinysaver_edge.calibrate.calibration import Calibration
from tinysaver_edge.calibrate.choose import Candidate, Choice, choose
from tinysaver_edge.calibrate.gather import from_records
from tinysaver_edge.calibrate.gathered import Gathered
from tinysaver_edge.calibrate.images import from_images, open_input_data
from tinysaver_edge.calibrate.plan import ImageInput, Plan
from tinysaver_edge.calibrate.problem import Problem, split_holdout
from tinysaver_edge.calibrate.proposers import propose_all
from tinysaver_edge.calibrate.shortlist import Shortlist
from tinysaver_edge.data import DataSource
from tinysaver_edge.errors import InputError
from tinysaver_edge.evaluation import Figures, figures
from tinysaver_edge.policy import Policy, StagePolicy
from tinysaver_edge.progress import SILENT, Progress


def calibrate(plan: Plan, *, out: Path | None = None, progress: Progress = SILENT) -> Calibration:
    """Choose a saver and a threshold, and write the bundle.

    Args:
        plan: models, samples, limits.
        out: folder or .zip for the bundle; None writes none.
        progress: hears of the work.

    Returns:
        The choice with its figures, and the candidates that lost.

    Raises:
        InputError: something given cannot be used; the message names it.
        EngineError: a model cannot be run.
        InfeasibleError: no cascade keeps every limit.
    """
    if out is not None:
        check_target(out)
    with ExitStack() as stack:
        gathered, data = _gather(plan, out, stack, progress)
        calibrating, held_out = split_holdout(
            len(gathered.problem.labels),
            fraction=plan.holdout,
            seed=plan.seed,
            groups=gathered.problem.groups,
        )
        problem = gathered.problem.subset(calibrating)
        proposals = propose_all(
            problem,
            plan.targets,
            seed=plan.seed,
            candidates=len(problem.savers) + len(gathered.lost),
        )
        choice = choose(problem, proposals, plan.targets)
        policy = _policy(problem, choice)
        evidence = problem.subset(choice.proposal.evidence)
        result = Calibration(
            policy=policy,
            method=plan.targets.method,
            calibration=_figures(policy, evidence),
            certificate=choice.certificate,
            interval=choice.interval,
            holdout=(
                _figures(policy, gathered.problem.subset(held_out)) if len(held_out) else None
            ),
            candidates=(*choice.candidates, *_unmeasured(gathered)),
            warnings=(*gathered.warnings, *_warnings(choice)),
            bundle=out,
        )
        if out is not None:
            golden = gathered.sample_index[calibrating[choice.proposal.evidence]]
            assemble(result, gathered, plan, data=data, golden_pool=golden, target=out)
        return result


def _gather(
    plan: Plan, out: Path | None, stack: ExitStack, progress: Progress
) -> tuple[Gathered, DataSource | None]:
    if not isinstance(plan.input, ImageInput):
        return from_records(plan.input), None
    data = stack.enter_context(open_input_data(plan.input))
    folder = plan.input.records or (None if out is None else default_records(out))
    if folder is None:
        raise InputError("nowhere to keep records: name an output or a folder for records")
    hopeless = Shortlist(plan.targets, plan.holdout, plan.seed, len(plan.input.savers))
    return from_images(plan.input, data, folder=folder, hopeless=hopeless, progress=progress), data


def default_records(out: Path) -> Path:
    """Return the folder for records beside a bundle."""
    return out.with_name(f"{out.name.removesuffix('.zip')}.records")


def _policy(problem: Problem, choice: Choice) -> Policy:
    proposal = choice.proposal
    saver = StagePolicy(
        model=proposal.saver.name,
        macs=proposal.saver.macs,
        score=proposal.score,
        threshold=choice.threshold,
    )
    large = StagePolicy(model=problem.large.name, macs=problem.large.macs)
    return Policy((saver, large), proposal.fusion)


def _figures(policy: Policy, problem: Problem) -> Figures:
    """Measure a two-stage policy on a problem's samples."""
    saver = next(one for one in problem.savers if one.name == policy.stages[0].model)
    return figures(policy, (saver.outputs, problem.large.outputs), problem.labels)


def _unmeasured(gathered: Gathered) -> list[Candidate]:
    """Return a row for each saver that was not measured."""
    large = gathered.problem.large.macs
    return [
        Candidate(saver=name, kappa=(gathered.artefacts[name].macs or 0.0) / large, why=why)
        for name, why in gathered.lost.items()
        if name in gathered.artefacts
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
