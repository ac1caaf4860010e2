"""What a cascade does on labelled samples: accuracy, drop, accept rate and cost."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import default_cache_dir
from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.artefact import bundled_artefacts
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.data import class_indices, open_data
from tinysaver_edge.deciding.policy import Policy, Replay, replay
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.errors import DataError, InputError, RecordError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.records.measure import DEFAULT_SKIP_LIMIT, check_skip_limit, measure
from tinysaver_edge.records.records import Record, load_record, read_labels


@dataclass(frozen=True, slots=True)
class Figures:
    """The seven figures of a cascade on one set of samples.

    Attributes:
        samples: how many.
        accuracy_saver: share that the first stage's model gets right, alone.
        accuracy_large: share that the last stage's model gets right, alone.
        accuracy_cascade: share that the cascade gets right.
        drop_points: ``100 * (accuracy_large - accuracy_cascade)``; negative for a gain.
        accept_rate: share that was not escalated past the first stage.
        cost_macs_ratio: expected MACs a frame, relative to the large model on every frame; None
            where a model's MACs are not known.
    """

    samples: int
    accuracy_saver: float
    accuracy_large: float
    accuracy_cascade: float
    drop_points: float
    accept_rate: float
    cost_macs_ratio: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values for JSON."""
        return asdict(self)


def figures(policy: Policy, outputs: Sequence[Outputs], labels: NDArray[np.int64]) -> Figures:
    """Measure a policy on recorded answers.

    Args:
        policy: the stages.
        outputs: each stage's answers on the same n samples.
        labels: ``(n,)`` the true classes.

    Raises:
        InputError: outputs and stages do not match.
    """
    replayed = replay(policy, outputs)
    samples = len(labels)
    saver, large = (int((one.predictions == labels).sum()) for one in (outputs[0], outputs[-1]))
    cascade = int((replayed.predictions == labels).sum())
    return Figures(
        samples=samples,
        accuracy_saver=saver / samples,
        accuracy_large=large / samples,
        accuracy_cascade=cascade / samples,
        # Of counts, so that a bound that is a whole number of samples is met exactly.
        drop_points=100 * (large - cascade) / samples,
        accept_rate=_accept_rate(policy, replayed),
        cost_macs_ratio=cost_ratio(policy, replayed),
    )


def check_labels(labels: NDArray[np.int64], outputs: Outputs, *, model: str) -> None:
    """Refuse labels that are no class of a model; top-k records do not tell how many there are.

    Raises:
        InputError: naming the first of them.
    """
    if outputs.truncated or not len(labels) or labels.max() < outputs.width:
        return
    sample = int((labels >= outputs.width).argmax())
    raise InputError(
        f"label {labels[sample]} of sample {sample}, but model {model} has {outputs.width} "
        f"classes, counted from 0: the labels are of other classes"
    )


def _accept_rate(policy: Policy, replayed: Replay) -> float:
    if len(policy.stages) > 1 and policy.asked[0] != 0:
        return 0.0
    return float((replayed.stage == 0).mean())


def cost_ratio(policy: Policy, replayed: Replay) -> float | None:
    """Return expected MACs a frame relative to the large model on every frame.

    A stage that never accepts is not asked and costs nothing.
    """
    macs = [policy.stages[position].macs for position in policy.asked]
    large = policy.stages[-1].macs
    if large is None or any(one is None for one in macs):
        return None
    total = sum(
        cost * float((replayed.stage >= position).mean())
        for position, cost in zip(policy.asked, macs, strict=True)
        if cost is not None
    )
    return total / large


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished bundle's figures.

    Attributes:
        figures: the seven figures.
        warnings: what the user should know.
    """

    figures: Figures
    warnings: tuple[str, ...]


def evaluate_images(
    bundle: Bundle,
    data_path: Path,
    *,
    skip_limit: float = DEFAULT_SKIP_LIMIT,
    progress: Progress = SILENT,
) -> Evaluation:
    """Run every stage of a bundle over labelled images and measure its policy on the answers.

    Args:
        bundle: an open bundle with models.
        data_path: folder, .zip or table of labelled images.
        skip_limit: share of images that may be unreadable.
        progress: hears of each image.

    Raises:
        BundleError: the bundle holds no models.
        DataError: the images or labels do not fit.
        EngineError: a model cannot be run here.
    """
    check_skip_limit(skip_limit)
    artefacts = bundled_artefacts(bundle, EngineOptions(cache_dir=default_cache_dir()))
    with open_data(data_path) as data, tempfile.TemporaryDirectory() as folder:
        records = [
            measure(
                artefact,
                data,
                Path(folder),
                fingerprint="",
                skip_limit=skip_limit,
                progress=progress,
            )
            for artefact in artefacts
        ]
        labels = class_indices(
            data.samples,
            labels=bundle.manifest.labels,
            classes=records[-1].outputs.width,
            path=data.path,
        )
    return _evaluation(bundle, records, labels)


def evaluate_records(bundle: Bundle, folder: Path, labels_path: Path) -> Evaluation:
    """Measure a bundle's policy on records of its models.

    Args:
        bundle: an open bundle, with or without models.
        folder: holds a record for every stage's model.
        labels_path: ``.npy`` of the true classes.

    Raises:
        RecordError: a record or the labels are missing, damaged or of different lengths.
        InputError: the labels are of other classes.
    """
    labels = read_labels(labels_path)
    records = [load_record(folder, stage.model.name) for stage in bundle.manifest.stages]
    for record in records:
        if record.outputs.samples != len(labels):
            raise RecordError(
                f"record {record.name} holds {record.outputs.samples} samples, "
                f"labels {labels_path} {len(labels)}: both must be of the same images"
            )
        check_labels(labels, record.outputs, model=record.name)
    return _evaluation(bundle, records, labels)


def _evaluation(bundle: Bundle, records: Sequence[Record], labels: NDArray[np.int64]) -> Evaluation:
    """Measure a policy on the samples that no record skipped."""
    skipped = sorted({index for record in records for index in record.skipped})
    kept = np.setdiff1d(np.arange(len(labels)), np.array(skipped, np.int64))
    if not len(kept):
        raise DataError("no readable images are left to evaluate on")
    outputs = [record.outputs.subset(kept) for record in records]
    warnings = [f"{len(skipped)} images could not be read and were left out"] if skipped else []
    found = figures(Policy.from_manifest(bundle.manifest), outputs, labels[kept])
    return Evaluation(found, tuple(warnings))
