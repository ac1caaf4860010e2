"""Assemble: write what was chosen as a bundle that a device can load and verify."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import combined
from tinysaver_edge._version import __version__
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bundle.bundle import file_entry, write_bundle
from tinysaver_edge.bundle.covered import measured_with
from tinysaver_edge.bundle.manifest import (
    CertificateEntry,
    FiguresEntry,
    GoldenEntry,
    LatencyEntry,
    Manifest,
    ModelEntry,
    Named,
    StageEntry,
)
from tinysaver_edge.calibrate.calibration import Calibration
from tinysaver_edge.calibrate.chosen.golden import make_golden
from tinysaver_edge.calibrate.measured.gather import Gathered
from tinysaver_edge.calibrate.plan import ImageInput, Plan
from tinysaver_edge.data import DataSource
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.errors import BundleError


def assemble(
    result: Calibration,
    gathered: Gathered,
    plan: Plan,
    *,
    data: DataSource | None,
    golden_pool: NDArray[np.int64],
    target: Path,
) -> None:
    """Write the bundle.

    Args:
        result: what was chosen.
        gathered: where it comes from.
        plan: what was asked.
        data: the images, or None where there are records only.
        golden_pool: positions in the data from which golden frames may be drawn.
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
        if data is not None and isinstance(plan.input, ImageInput) and plan.input.golden_frames:
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
            method=result.method.value,
            max_drop_points=plan.targets.allowed_drop_points,
            seed=plan.seed,
            calibration=FiguresEntry(**result.calibration.to_dict()),
            holdout=None if result.holdout is None else FiguresEntry(**result.holdout.to_dict()),
            certificate=_certificate_entry(result, stages, gathered),
            disagreement=result.disagreement,
            golden=golden,
            latency=_latency_entry(result, plan),
        )
        write_bundle(target, manifest, files)


def _certificate_entry(
    result: Calibration, stages: list[StageEntry], gathered: Gathered
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
            stages, fusion=_named(result.policy.fusion), labels=gathered.label_names
        ),
    )


def _latency_entry(result: Calibration, plan: Plan) -> LatencyEntry | None:
    """Return the limits of time that were asked for, None where none was."""
    budgets = plan.targets.budgets
    if result.latency is None or not budgets.needs_latency:
        return None
    return LatencyEntry(
        escalation_rate=result.latency.highest_rate,
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
        )
    return StageEntry(model=model, score=_named(stage.score), threshold=stage.threshold)


def _named(value: object) -> Named | None:
    """Return a score or fusion by name and parameters."""
    if value is None:
        return None
    return Named(name=value.name, parameters=value.parameters)  # type: ignore[attr-defined]
