"""What a cascade does on labelled samples: accuracy, drop, accept rate and cost."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import default_cache_dir, read_arrays
from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.artefact import bundled_artefacts
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.certificate import EvidenceKind
from tinysaver_edge.data import check_left_out, class_indices, open_data
from tinysaver_edge.data.looks import Looks, Seen, read_looks
from tinysaver_edge.deciding.figures import Figures, figures
from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.errors import BundleError, DataError, RecordError
from tinysaver_edge.outputs import check_labels
from tinysaver_edge.records.measure import DEFAULT_SKIP_LIMIT, check_skip_limit, measure
from tinysaver_edge.records.records import Record, load_record, read_labels


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished bundle's figures.

    Attributes:
        figures: the seven figures.
        warnings: what the user should know.
        seen: how many of the samples the bundle was calibrated on; None where that is not known.
    """

    figures: Figures
    warnings: tuple[str, ...]
    seen: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values for JSON."""
        return {
            **self.figures.to_dict(),
            "seen_samples": self.seen,
            "warnings": list(self.warnings),
        }


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
        warnings = check_left_out(data.left_out, kept=len(data), limit=skip_limit, path=data.path)
        known = bundle.manifest.labels
        if known is not None:  # names that do not fit are told before anything is measured
            class_indices(data.samples, labels=known, classes=len(known), path=data.path)
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
            labels=known,
            classes=records[-1].outputs.width,
            path=data.path,
        )
        looks = read_looks(data, progress=progress)
    seen, said = _seen(bundle, looks)
    found = _evaluation(bundle, records, labels)
    return Evaluation(found.figures, (*warnings, *said, *found.warnings), seen)


def _seen(bundle: Bundle, looks: Looks) -> tuple[int | None, list[str]]:
    """Return how many of some images the bundle was calibrated on, and a line where it is any.

    Raises:
        BundleError: what the bundle says of them is damaged.
    """
    said = [] if looks.depth_line is None else [looks.depth_line]
    entry = bundle.manifest.seen
    if entry is None:
        return None, said
    try:
        hashes = read_arrays(bundle.file(entry.file))[""]
        count = Seen(hashes.astype(np.uint64), entry.whole).count(looks.content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"bundle {bundle.path}: {entry.file.path} is damaged ({error})"
        ) from error
    if count:
        about = "" if entry.whole else "about "
        said.append(
            f"{about}{count} of {len(looks.content)} images are among those that the bundle was "
            f"calibrated on, or its models quantised: figures on them say little of images that it "
            f"has not seen"
        )
    return count, said


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
    over_groups = [kind.value for kind in EvidenceKind if kind.grouped]
    grouped = certificate is not None and certificate.counts.get("evidence") in over_groups
    policy = Policy.from_manifest(bundle.manifest)
    found = figures(policy, outputs, labels[kept], grouped=grouped)
    return Evaluation(found, tuple(warnings))
