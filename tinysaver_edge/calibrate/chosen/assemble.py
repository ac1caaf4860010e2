"""Assemble: write what was chosen as a bundle that a device can load and verify."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import combined
from tinysaver_edge._version import __version__
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bundle.bundle import file_entry, write_bundle
from tinysaver_edge.bundle.covered import figures_sha256, measured_with
from tinysaver_edge.bundle.manifest import (
    CertificateEntry,
    DisagreementEntry,
    FiguresEntry,
    GoldenEntry,
    LatencyEntry,
    Manifest,
    ModelEntry,
    Named,
    ReuseEntry,
    SeenEntry,
    StageEntry,
)
from tinysaver_edge.calibrate.calibration import Calibration
from tinysaver_edge.calibrate.chosen.golden import golden_from, make_golden
from tinysaver_edge.calibrate.plan import ImageInput, Plan
from tinysaver_edge.calibrate.problem import MeasuredProblem, Problem
from tinysaver_edge.certificate.p_values import upper_rate
from tinysaver_edge.data.looks import Seen, seen_from_text
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.deciding.epochs import reused
from tinysaver_edge.deciding.policy import Policy, StagePolicy, replay
from tinysaver_edge.errors import BundleError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.reuse import ReuseRule

CONFIDENCE = 0.95
"""Of the upper bound that is printed; a device computes its own from the counts."""

KEPT_SHARES = (0.75, 0.5, 0.25, 0.1)
"""A stricter threshold each: how many of the frames accepted so far it still accepts."""

HELD_OUT_SHARE = 0.25
"""Held-out samples are counted where they are at least so many of those chosen on.

They need no correction for the choice, which is worth about four times as many samples.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """Every accepted sample as an audit on a device would see it.

    Attributes:
        accepted: positions of the samples that a stage before the last settles, rising.
        first: whether it was that one.
        disagrees: whether an escalation would have changed the answer.
    """

    accepted: NDArray[np.int64]
    score: NDArray[np.float64]
    first: NDArray[np.bool_]
    disagrees: NDArray[np.bool_]


def audit(policy: Policy, outputs: Sequence[Outputs]) -> Audit:
    """Escalate every sample that a stage before the last accepts, and compare.

    Raises:
        InputError: outputs and stages do not match.
    """
    answered = replay(policy, outputs)
    accepted = np.flatnonzero(answered.stage < len(policy.stages) - 1)
    refusing = tuple(
        stage if stage.threshold is None else replace(stage, threshold=float("inf"))
        for stage in policy.stages
    )
    later = replay(replace(policy, stages=refusing), [one.subset(accepted) for one in outputs])
    return Audit(
        accepted,
        answered.score[accepted],
        answered.stage[accepted] == policy.asked[0],
        later.predictions != answered.predictions[accepted],
    )


def disagreement(
    policy: Policy, evidence: Problem, holdout: Problem | None, *, choices: int, seed: int
) -> DisagreementEntry | None:
    """Count what a bundle is to promise.

    Args:
        policy: the cascade that was chosen.
        evidence: the samples that it was chosen on.
        holdout: samples set aside, or None.
        choices: among how many thresholds it was chosen.
        seed: decides which sample stands for a group.

    Returns:
        None where nothing is accepted.
    """
    chosen_on = _counted(policy, evidence, seed=seed)
    if not len(chosen_on.accepted):
        return None
    counted, held_out = chosen_on, False
    if holdout is not None:
        aside = _counted(policy, holdout, seed=seed)
        if len(aside.accepted) >= HELD_OUT_SHARE * len(chosen_on.accepted):
            counted, held_out, choices = aside, True, 1
    accepted, disagreed = len(counted.accepted), int(counted.disagrees.sum())
    threshold = policy.stages[0].threshold
    scores = chosen_on.score[chosen_on.first]
    if len(scores):
        scores = np.quantile(scores, [1 - kept for kept in KEPT_SHARES], method="higher")
    return DisagreementEntry(
        accepted=accepted,
        disagreed=disagreed,
        held_out=held_out,
        choices=choices,
        confidence=CONFIDENCE,
        upper=upper_rate(disagreed, accepted, risk=(1 - CONFIDENCE) / choices),
        stricter=[float(one) for one in np.unique(scores) if threshold is None or one > threshold],
    )


def reuse_entry(
    policy: Policy, rule: ReuseRule | None, evidence: Problem, *, choices: int, seed: int
) -> ReuseEntry | None:
    """Say what is reused, and how often an answer that is no new one of the large model differs.

    Counted on one frame of each epoch, drawn among those that are accepted or reused.

    Args:
        policy: the cascade that was chosen.
        rule: what stands with it; None for nothing.
        evidence: the epochs that it was chosen on.
        choices: among how many it was chosen.
        seed: decides which frame stands for its epoch.
    """
    if rule is None or evidence.timeline is None or not rule.reuses:
        return None
    outputs = evidence.outputs_of(policy)
    alone = replay(policy, outputs)
    frames = reused(rule, evidence.timeline, outputs[0], alone.stage == 0)
    given = frames.applied(alone)
    refused = replace(policy.stages[0], threshold=float("inf"))
    asking = replay(replace(policy, stages=(refused, *policy.stages[1:])), outputs)
    told = np.flatnonzero(~frames.fresh | (alone.stage < len(policy.stages) - 1))
    order = np.random.default_rng(seed).permutation(told)
    kept = order[np.unique(evidence.timeline.positions[order], return_index=True)[1]]
    if not len(kept):
        return ReuseEntry(rule=rule)
    differs = int((given.predictions[kept] != asking.predictions[kept]).sum())
    return ReuseEntry(
        rule=rule,
        disagreement=DisagreementEntry(
            accepted=len(kept),
            disagreed=differs,
            held_out=False,
            choices=choices,
            confidence=CONFIDENCE,
            upper=upper_rate(differs, len(kept), risk=(1 - CONFIDENCE) / choices),
        ),
    )


def _counted(policy: Policy, problem: Problem, *, seed: int) -> Audit:
    """Audit a problem's samples, one of each group where there are groups."""
    found = audit(policy, problem.outputs_of(policy))
    if problem.groups is None:
        return found
    order = np.random.default_rng(seed).permutation(len(found.accepted))
    first = np.unique(problem.groups[found.accepted[order]], return_index=True)[1]
    kept = np.sort(order[first])
    return Audit(found.accepted[kept], found.score[kept], found.first[kept], found.disagrees[kept])


def assemble(
    result: Calibration,
    gathered: MeasuredProblem,
    plan: Plan,
    *,
    data: DataSource | None,
    golden_pool: NDArray[np.int64],
    seen: NDArray[np.int64],
    target: Path,
) -> None:
    """Write the bundle.

    Args:
        result: what was chosen.
        gathered: where it comes from.
        plan: what was asked.
        data: the images, or None where there are records only.
        golden_pool: positions in the data from which golden frames may be drawn.
        seen: positions of the images that had a part in the choice.
        target: folder or .zip.

    Raises:
        BundleError: the target cannot be written, or a model's file is not the one measured.
    """
    files: dict[str, Path] = {}
    stages = [
        _stage_entry(stage, gathered.artefacts.get(stage.model), files)
        for stage in result.policy.stages
    ]
    with tempfile.TemporaryDirectory(prefix="tinysaver-golden-") as folder:
        golden: GoldenEntry | None = None
        if gathered.golden is not None and plan.input.golden_frames:
            golden = golden_from(
                gathered.golden,
                result.policy,
                pool=golden_pool,
                folder=Path(folder),
                files=files,
                labels=gathered.label_names,
            )
        elif data is not None and isinstance(plan.input, ImageInput) and plan.input.golden_frames:
            artefacts = [gathered.artefacts[stage.model] for stage in result.policy.stages]
            golden = make_golden(
                result.policy,
                artefacts,
                data,
                pool=golden_pool,
                seed=plan.seed,
                folder=Path(folder),
                files=files,
                labels=gathered.label_names,
            )
        manifest = Manifest(
            created_by=f"tinysaver-edge {__version__}",
            labels=None if gathered.label_names is None else list(gathered.label_names),
            stages=stages,
            fusion=_named(result.policy.fusion),
            pool=None if result.policy.pool is None else list(result.policy.pool),
            method=result.method.value,
            max_drop_points=plan.targets.allowed_drop_points,
            seed=plan.seed,
            calibration=FiguresEntry(**result.calibration.to_dict()),
            holdout=None if result.holdout is None else FiguresEntry(**result.holdout.to_dict()),
            certificate=_certificate_entry(result, stages, gathered),
            disagreement=result.disagreement,
            reuse=result.reuse,
            golden=golden,
            latency=_latency_entry(result, plan),
            seen=_seen_entry(gathered, seen, _fitted(result, gathered), Path(folder), files),
            processor=gathered.processor if gathered.artefacts else None,
        )
        if (signed := manifest.certificate) is not None:
            signed = signed.model_copy(update={"figures_sha256": figures_sha256(manifest)})
            manifest = manifest.model_copy(update={"certificate": signed})
        write_bundle(target, manifest, files)


def bound_to_the_processor(models: Sequence[str], gathered: MeasuredProblem) -> list[str]:
    """Say of which processors thresholds hold that were found on answers of 8 bits."""
    eight = [name for name in models if name in gathered.artefacts]
    eight = [name for name in eight if gathered.artefacts[name].quantised]
    if not eight or gathered.processor is None:
        return []
    return [
        f"{' and '.join(eight)}: INT8, which answers a little otherwise on another kind of "
        f"processor; thresholds hold for {gathered.processor}. Where the device's is another, run "
        "`tinysaver-edge measure` there and calibrate --records on what it wrote"
    ]


def _certificate_entry(
    result: Calibration, stages: list[StageEntry], gathered: MeasuredProblem
) -> CertificateEntry | None:
    """Bind a certificate to the models it speaks of, and to all else that it was counted with."""
    certificate = result.certificate
    if certificate is None:
        return None
    hashes = {name: artefact.sha256 for name, artefact in gathered.artefacts.items()}
    return CertificateEntry(
        statement=certificate.statement,
        counts=certificate.to_json(),
        models={stage.model: hashes.get(stage.model) for stage in result.policy.stages},
        codec=result.large_codec,
        measured=measured_with(
            stages,
            fusion=_named(result.policy.fusion),
            pool=result.policy.pool,
            labels=gathered.label_names,
            reuse=None if result.reuse is None else result.reuse.rule,
        ),
        stated=list(result.stated),
        questions=result.questions,
        cut=gathered.cut,
    )


def _fitted(result: Calibration, gathered: MeasuredProblem) -> NDArray[np.uint64]:
    """Return hashes of the images that the models which were chosen are quantised on."""
    hashes = [
        seen_from_text(gathered.artefacts[stage.model].fitted_on).hashes
        for stage in result.policy.stages
        if stage.model in gathered.artefacts
    ]
    return np.concatenate([np.zeros(0, np.uint64), *hashes])


def _seen_entry(
    gathered: MeasuredProblem,
    index: NDArray[np.int64],
    fitted: NDArray[np.uint64],
    folder: Path,
    files: dict[str, Path],
) -> SeenEntry | None:
    """Write short hashes of the images' files; None where nobody looked at them."""
    if gathered.content is None:
        return None
    seen = Seen.of(np.concatenate([gathered.content[index], fitted]))
    place = "seen.npy"
    files[place] = folder / place
    np.save(files[place], seen.hashes)
    return SeenEntry(file=file_entry(files[place], place), whole=seen.whole)


def _latency_entry(result: Calibration, plan: Plan) -> LatencyEntry | None:
    """Return the limits of time that were asked for, None where none was."""
    budgets = plan.targets.budgets
    if result.latency is None or not budgets.needs_latency:
        return None
    return LatencyEntry(
        escalation_rate=result.latency.highest_rate,
        reached=result.latency.reached,
        asked=result.latency.asked,
        mean_latency_ms=budgets.mean_latency_ms,
        p95_latency_ms=budgets.p95_latency_ms,
        p99_latency_ms=budgets.p99_latency_ms,
    )


def _stage_entry(
    stage: StagePolicy, artefact: Artefact | None, files: dict[str, Path]
) -> StageEntry:
    model = ModelEntry(name=stage.model, macs=stage.macs)
    if artefact is not None:
        entries = []
        for file in artefact.files:
            place = f"models/{artefact.name}/{file.name}"
            files[place] = file
            entries.append(file_entry(file, place))
        if combined([entry.sha256 for entry in entries]) != artefact.sha256:
            raise BundleError(
                f"model {artefact.name}: {artefact.files[0]} was written to since it was measured; "
                "calibrate again"
            )
        model = ModelEntry(
            name=artefact.name,
            files=entries,
            source_sha256=artefact.source_sha256,
            engine=artefact.engine,
            device=artefact.options.device,
            precision=artefact.options.precision.value,
            preprocess=artefact.preprocess,
            output=artefact.output,
            codec=artefact.codec,
            macs=artefact.macs,
            parameters=artefact.parameters,
            quantised=artefact.quantised,
            fitted_on=list(artefact.fitted_on),
        )
    return StageEntry(model=model, score=_named(stage.score), threshold=stage.threshold)


def _named(value: object) -> Named | None:
    """Return a score or fusion by name and parameters."""
    if value is None:
        return None
    return Named(name=value.name, parameters=value.parameters)  # type: ignore[attr-defined]
