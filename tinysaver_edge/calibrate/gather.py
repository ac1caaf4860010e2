"""Gather: turn a plan's models and samples into a problem, by measuring or by reading records."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.calibrate.plan import ImageInput, RecordInput
from tinysaver_edge.calibrate.prepare import prepare
from tinysaver_edge.calibrate.problem import Answers, Problem
from tinysaver_edge.data import DataSource, class_indices, open_data
from tinysaver_edge.errors import DataError, InputError, RecordError
from tinysaver_edge.measure import measure
from tinysaver_edge.progress import Progress
from tinysaver_edge.records import Record, load_record, read_labels, record_names


@dataclass(frozen=True, slots=True)
class Gathered:
    """A problem, and what a bundle needs of where it comes from.

    Attributes:
        problem: answers and labels.
        artefacts: the models by name; empty when only records are there.
        label_names: class names, or None.
        sample_index: for each of the problem's samples, its position in the data.
        warnings: what the user should know.
    """

    problem: Problem
    artefacts: dict[str, Artefact]
    label_names: tuple[str, ...] | None
    sample_index: NDArray[np.int64]
    warnings: tuple[str, ...]


def from_images(
    given: ImageInput, data: DataSource, *, folder: Path, progress: Progress
) -> Gathered:
    """Measure every model on the images, or take what is on record.

    Args:
        given: models and options.
        data: the images, open.
        folder: where records and prepared models lie.
        progress: hears of the work.

    Raises:
        InputError: models, descriptions, images or labels do not fit each other.
        EngineError: a model cannot be run.
    """
    models = (given.large, *given.savers)
    artefacts = [prepare(model, folder / "models", embed=given.embed) for model in models]
    _check_names(artefacts)
    artefacts = [artefacts[0], *(one.aligned_with(artefacts[0]) for one in artefacts[1:])]
    fingerprint = data.fingerprint()
    records = [
        measure(
            artefact,
            data,
            folder,
            fingerprint=fingerprint,
            skip_limit=given.skip_limit,
            progress=progress,
        )
        for artefact in artefacts
    ]
    names = next((one.labels for one in artefacts if one.labels is not None), None)
    classes = records[0].outputs.width
    labels = class_indices(data.samples, labels=names, classes=classes, path=data.path)
    if names is None:
        names = _folder_names(data, labels, classes)
    costs = {one.name: one.macs for one in artefacts if one.macs is not None}
    problem, kept = _problem(records, costs, labels, data.groups)
    warnings = [
        f"{len(labels) - len(kept)} of {len(labels)} images could not be read and were left out: "
        + _some([data.samples[i].file for i in np.setdiff1d(np.arange(len(labels)), kept)])
    ]
    return Gathered(
        problem=problem,
        artefacts={artefact.name: artefact for artefact in artefacts},
        label_names=names,
        sample_index=kept,
        warnings=tuple(warnings if len(kept) < len(labels) else ()),
    )


def from_records(given: RecordInput) -> Gathered:
    """Read records, labels and MACs that the user brings.

    Raises:
        InputError: a file is missing, damaged or does not fit the others.
    """
    labels = read_labels(given.labels)
    costs = read_macs(given.macs)
    names = _saver_names(given, costs)
    for name in (given.large, *names):
        if name not in costs:
            known = ", ".join(costs) or "none"
            raise InputError(f"macs {given.macs}: no row for model {name}; rows there: {known}")
    records = [load_record(given.records, name) for name in (given.large, *names)]
    problem, kept = _problem(records, costs, labels, None)
    return Gathered(problem, {}, None, kept, ())


def _saver_names(given: RecordInput, costs: dict[str, float]) -> tuple[str, ...]:
    if given.savers != ("all",):
        return given.savers
    limit = costs.get(given.large, 0.0)
    names = [name for name in record_names(given.records) if costs.get(name, limit) < limit]
    if not names:
        raise InputError(
            f"records {given.records}: no model there has a row in {given.macs} with fewer MACs "
            f"than {given.large}"
        )
    return tuple(sorted(names, key=lambda name: costs[name]))


def _problem(
    records: Sequence[Record],
    costs: dict[str, float],
    labels: NDArray[np.int64],
    groups: NDArray[np.str_] | None,
) -> tuple[Problem, NDArray[np.int64]]:
    """Put the records together, without the samples that any of them skipped."""
    answers = [Answers(record.name, record.outputs, costs[record.name]) for record in records]
    problem = Problem(answers[0], tuple(answers[1:]), labels, groups)
    problem.check()
    skipped = sorted({index for record in records for index in record.skipped})
    kept = np.setdiff1d(np.arange(len(labels)), np.array(skipped, np.int64))
    if not len(kept):
        raise DataError("no readable images are left to calibrate on")
    return (problem.subset(kept) if skipped else problem), kept


def read_macs(path: Path) -> dict[str, float]:
    """Read MACs by model name from a table with columns ``name`` and ``macs``.

    Raises:
        RecordError: the file is missing, or a column or number is.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"macs {path}: not readable ({error})") from error
    costs: dict[str, float] = {}
    for number, row in enumerate(rows, start=2):
        if row.get("name") is None or row.get("macs") is None:
            raise RecordError(f"macs {path}: needs columns name and macs, has {', '.join(row)}")
        try:
            costs[row["name"].strip()] = float(row["macs"])
        except ValueError:
            raise RecordError(
                f"macs {path}, line {number}: {row['macs']!r} is not a number"
            ) from None
    if not costs:
        raise RecordError(f"macs {path}: no rows")
    return costs


def _check_names(artefacts: Sequence[Artefact]) -> None:
    names = [artefact.name for artefact in artefacts]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two models are called {name}: give each its own name in its description"
            )


def _folder_names(
    data: DataSource, labels: NDArray[np.int64], classes: int
) -> tuple[str, ...] | None:
    """Name classes by the data's own labels where they are names and all there."""
    names = {int(index): sample.label for index, sample in zip(labels, data.samples, strict=True)}
    if len(names) != classes or all(name.isdigit() for name in names.values()):
        return None
    return tuple(names[index] for index in range(classes))


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def open_input_data(given: ImageInput) -> DataSource:
    """Open the images of a plan."""
    if isinstance(given.data, DataSource):
        return given.data
    return open_data(given.data, group_column=given.group_column)
