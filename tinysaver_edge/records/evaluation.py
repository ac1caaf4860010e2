"""What a cascade does on labelled samples: accuracy, drop, accept rate and cost."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import read_arrays
from tinysaver_edge._support.numbers import percent
from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge._support.resources import default_cache_dir
from tinysaver_edge.artefact import Artefact, bundled_artefacts
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.certificate.p_values import EvidenceKind
from tinysaver_edge.data.alike import find_alike
from tinysaver_edge.data.collection import read_collected
from tinysaver_edge.data.epochs import open_epochs
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.images import check_left_out
from tinysaver_edge.data.looks import Looks, Seen, read_looks
from tinysaver_edge.data.source import DataSource, class_indices
from tinysaver_edge.data.store import Place
from tinysaver_edge.deciding.epochs import EpochTimeline
from tinysaver_edge.deciding.figures import Figures, figures
from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.errors import BundleError, DataError, RecordError
from tinysaver_edge.outputs import all_but, check_labels, sample_hashes
from tinysaver_edge.records.measure import DEFAULT_SKIP_LIMIT, check_skip_limit, measure
from tinysaver_edge.records.records import (
    Record,
    find_repeated,
    load_record,
    read_labels,
)
from tinysaver_edge.records.timeline import read_timeline

FEWEST_TO_DOUBT = 200
FEWEST_LOST = 10
"""With so many samples, and so many wrong by another's answers, no model is right on every one."""

FAR_BELOW = 0.2
"""A large model that is so much less accurate than calibrated has other classes, or images."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished bundle's figures.

    Attributes:
        seen: how many of the samples the bundle was calibrated on; None where that is not known.
        doubted: whether nothing follows from the figures for the certificate: labels that do not
            look right, or samples that it is not about.
        by_large: whether the large model's answers were taken for right.
    """

    figures: Figures
    warnings: tuple[str, ...]
    seen: int | None = None
    doubted: bool = False
    by_large: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values for JSON."""
        return {
            **self.figures.to_dict(),
            "seen_samples": self.seen,
            "warnings": list(self.warnings),
        }


def evaluate_images(
    bundle: Bundle,
    data_path: Place,
    *,
    skip_limit: float = DEFAULT_SKIP_LIMIT,
    progress: Progress = SILENT,
) -> Evaluation:
    """Run every stage of a bundle over labelled images and measure its policy on the answers.

    Raises:
        BundleError: the bundle holds no models.
        DataError: the images or labels do not fit.
        EngineError: a model cannot be run here.
    """
    check_skip_limit(skip_limit)
    artefacts = bundled_artefacts(bundle, EngineOptions(cache_dir=default_cache_dir()))
    with open_data(data_path) as data:
        warnings = check_left_out(data.left_out, kept=len(data), limit=skip_limit, path=data.path)
        records, labels = _answers(bundle, artefacts, data, skip_limit, progress)
        looks = read_looks(data, progress=progress)
        dependent = _dependent(data, looks)
    seen, said = _seen_among(bundle, looks.content)
    said = [*looks.lines, *said]
    found = _evaluation(bundle, records, labels, alone=not dependent)
    doubts = [*_not_about(bundle), *dependent, *_doubts(bundle, found.figures)]
    warned = (*warnings, *said, *found.warnings, *doubts)
    return Evaluation(found.figures, warned, seen, doubted=bool(doubts))


def evaluate_epochs(
    bundle: Bundle,
    path: Path,
    *,
    spans: Path | None = None,
    skip_limit: float = DEFAULT_SKIP_LIMIT,
    progress: Progress = SILENT,
) -> Evaluation:
    """Run a bundle over epochs of a stream, with what it reuses within each.

    Args:
        bundle: an open bundle with models.
        path: folder of epochs.
        spans: table of their classes by time; None takes the large model's answers for right.
        skip_limit: share of frames that may be unreadable.
        progress: hears of each frame.

    Raises:
        BundleError: the bundle holds no models.
        DataError: the epochs or labels do not fit.
        EngineError: a model cannot be run here.
    """
    check_skip_limit(skip_limit)
    artefacts = bundled_artefacts(bundle, EngineOptions(cache_dir=default_cache_dir()))
    with open_epochs(path, spans=spans) as data:
        labelled = spans is not None
        records, labels = _answers(bundle, artefacts, data, skip_limit, progress, labelled=labelled)
        timeline, content = read_timeline(data, progress=progress)
    said = _other_epochs(bundle, timeline)
    seen, told = _seen_among(bundle, content)
    found = _evaluation(bundle, records, labels, timeline=timeline)
    doubts = [] if spans is None else _doubts(bundle, found.figures)
    warned = (*said, *told, *found.warnings, *doubts)
    doubted = bool(said or doubts)
    return Evaluation(found.figures, warned, seen, doubted=doubted, by_large=spans is None)


def _answers(
    bundle: Bundle,
    artefacts: Sequence[Artefact],
    data: DataSource,
    skip_limit: float,
    progress: Progress,
    *,
    labelled: bool = True,
) -> tuple[list[Record], NDArray[np.int64]]:
    """Return what each model answers, and the true classes: the large model's without labels."""
    known = bundle.manifest.labels
    if labelled and known is not None:  # names that do not fit are told before all measuring
        class_indices(data.samples, labels=known, classes=len(known), path=data.path)
    with tempfile.TemporaryDirectory() as folder:
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
    large = records[-1].outputs
    if not labelled:
        return records, large.predictions
    return records, class_indices(data.samples, labels=known, classes=large.width, path=data.path)


def _not_about(bundle: Bundle) -> list[str]:
    """Say where a certificate is about streams, and the samples stand alone."""
    if bundle.manifest.certificate is None or bundle.manifest.reuse is None:
        return []
    return [
        "nothing is repeated here, since these samples stand alone: the certificate is about "
        "epochs of a stream (evaluate --epochs)"
    ]


def _other_epochs(bundle: Bundle, timeline: EpochTimeline) -> list[str]:
    """Say where these epochs are not what the bundle reuses within."""
    entry = bundle.manifest.reuse
    if entry is None:
        return ["the bundle reuses nothing: each frame is decided by itself"]
    if abs(entry.rule.epoch_s - timeline.epoch_s) > 0.1 * entry.rule.epoch_s:
        return [
            f"these epochs last {timeline.epoch_s:.3g} s, the bundle was calibrated on epochs of "
            f"{entry.rule.epoch_s:g} s: its certificate is not about them"
        ]
    rate, here = entry.rule.frames_per_s, timeline.frames_per_s
    if here is not None and not entry.rule.speaks_of(here):
        return [
            f"these epochs have {here:g} frames a second, the bundle was calibrated on epochs of "
            f"{rate:.3g}: its certificate is not about them"
        ]
    return []


_FEWER = "the figures rest on fewer samples than they seem to, and have no interval"


def _dependent(data: DataSource, looks: Looks) -> list[str]:
    """Say that images are copies, or frames of one clip, in place of independent samples."""
    samples = data.samples
    if data.independent or read_collected(data.path, looks.content)[0] is not None:
        return []
    names, labels = zip(*((one.file, one.label) for one in samples), strict=True)
    alike = find_alike(looks, names, labels, data.groups)
    return [] if alike is None or alike.independent else [f"{alike.text(names)}: {_FEWER}"]


def _seen_among(bundle: Bundle, content: NDArray[np.uint64]) -> tuple[int | None, list[str]]:
    """Return how many of some samples the bundle was calibrated on, and a line where it is any.

    Raises:
        BundleError: what the bundle says of them is damaged.
    """
    said: list[str] = []
    entry = bundle.manifest.seen
    if entry is None:
        return None, said
    try:
        hashes = read_arrays(bundle.file(entry.file))[""]
        count = Seen(hashes.astype(np.uint64), entry.whole).count(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"bundle {bundle.path}: {entry.file.path} is damaged ({error})"
        ) from error
    if count:
        about = "" if entry.whole else "about "
        said.append(
            f"{about}{count} of {len(content)} samples are among those that the bundle was "
            f"calibrated on, or its models quantised: figures on them say little of what it has "
            f"not seen"
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
    kept = all_but(sorted({index for one in records for index in one.skipped}), len(labels))
    answers = [record.outputs.subset(kept) for record in records]
    seen, said = _seen_among(bundle, sample_hashes(answers[-1:]))
    repeated = find_repeated(answers, labels[kept])
    found = _evaluation(bundle, records, labels, alone=repeated.independent)
    doubts = [*_not_about(bundle), *_doubts(bundle, found.figures)]
    if not repeated.independent:
        doubts.append(f"{repeated.brief}: {_FEWER}")
    warned = (*said, *found.warnings, *doubts)
    return replace(found, warnings=warned, seen=seen, doubted=bool(doubts))


def _doubts(bundle: Bundle, found: Figures) -> list[str]:
    """Say why labels seem to be of other classes than the calibration's, or a model's answers."""
    stages, before = bundle.manifest.stages, bundle.manifest.calibration.accuracy_large
    large, saver = found.accuracy_large, found.accuracy_saver
    if found.samples < FEWEST_TO_DOUBT or None in (large, saver, before) or before == 1:
        return []
    assert large is not None
    assert saver is not None
    assert before is not None
    told = []
    if max(large, saver) == 1 and (1 - min(large, saver)) * found.samples >= FEWEST_LOST:
        author = stages[-1 if large == 1 else 0].model.name
        told.append(
            f"the labels are {author}'s own answers on all {found.samples} samples: no accuracy "
            "can be measured against them"
        )
    if large < before - FAR_BELOW:
        told.append(
            f"{percent(large, 1)} of {stages[-1].model.name}'s answers fit the labels, at the "
            f"calibration {percent(before, 1)}: are classes swapped or labelled wrongly, or are "
            "these other images?"
        )
    return told


def _evaluation(
    bundle: Bundle,
    records: Sequence[Record],
    labels: NDArray[np.int64],
    *,
    timeline: EpochTimeline | None = None,
    alone: bool = True,
) -> Evaluation:
    """Measure a policy on the samples that no record skipped; alone: no two belong together."""
    skipped = sorted({index for record in records for index in record.skipped})
    kept = all_but(skipped, len(labels))
    if not len(kept):
        raise DataError("no readable images are left to evaluate on")
    outputs = [record.outputs.subset(kept) for record in records]
    warnings = [f"{len(skipped)} images could not be read and were left out"] if skipped else []
    # What was certified over clips is not measured as if each frame stood alone.
    certificate = bundle.manifest.certificate
    over_groups = [kind.value for kind in EvidenceKind if kind.grouped]
    grouped = certificate is not None and certificate.counts.get("evidence") in over_groups
    policy = Policy.from_manifest(bundle.manifest)
    reuse = bundle.manifest.reuse
    found = figures(
        policy,
        outputs,
        labels[kept],
        grouped=grouped or not alone,
        timeline=None if timeline is None else timeline.subset(kept),
        reuse=None if reuse is None else reuse.rule,
    )
    return Evaluation(found, tuple(warnings))
