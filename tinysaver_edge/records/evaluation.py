"""What a cascade does on labelled samples: accuracy, drop, accept rate and cost."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import default_cache_dir
from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.artefact import bundled_artefacts
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.certificate import EvidenceKind
from tinysaver_edge.data import class_indices, open_data
from tinysaver_edge.deciding.figures import Figures, figures
from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.errors import DataError, RecordError
from tinysaver_edge.outputs import check_labels
from tinysaver_edge.records.measure import DEFAULT_SKIP_LIMIT, check_skip_limit, measure
from tinysaver_edge.records.records import Record, load_record, read_labels


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
    # What was certified over clips is not measured as if each frame stood alone.
    certificate = bundle.manifest.certificate
    grouped = certificate is not None and EvidenceKind(certificate.counts["evidence"]).grouped
    policy = Policy.from_manifest(bundle.manifest)
    found = figures(policy, outputs, labels[kept], grouped=grouped)
    return Evaluation(found, tuple(warnings))
