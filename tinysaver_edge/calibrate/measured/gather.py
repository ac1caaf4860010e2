"""Gather: read records, labels and MACs that the user brings, as a problem and its origin."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.calibrate.measured.codec_cost import CodecCost
from tinysaver_edge.calibrate.plan import RecordInput
from tinysaver_edge.calibrate.problem import Answers, Problem
from tinysaver_edge.errors import DataError, InputError, RecordError
from tinysaver_edge.records.records import (
    Record,
    load_record,
    read_groups,
    read_labels,
    record_names,
)


@dataclass(frozen=True, slots=True)
class Gathered:
    """A problem and its origin.

    Attributes:
        problem: answers and labels.
        sample_index: for each of the problem's samples, its position in the data.
        artefacts: the models by name; empty when only records are there.
        label_names: class names, or None.
        lost: savers that were not measured, and why.
        codec_cost: what its codec costs the large model; None where it has none or it is unknown.
        warnings: what the user should know.
    """

    problem: Problem
    sample_index: NDArray[np.int64]
    artefacts: Mapping[str, Artefact] = field(default_factory=dict)
    label_names: tuple[str, ...] | None = None
    lost: Mapping[str, str] = field(default_factory=dict)
    codec_cost: CodecCost | None = None
    warnings: tuple[str, ...] = ()


def from_records(given: RecordInput) -> Gathered:
    """Read records, labels and MACs that the user brings.

    Raises:
        InputError: a file is missing, damaged or does not fit the others.
    """
    costs = read_macs(given.macs)
    names = _saver_names(given, costs)
    for name in (given.large, *names):
        if name not in costs:
            known = ", ".join(costs) or "none"
            raise InputError(f"macs {given.macs}: no row for model {name}; rows there: {known}")
    records = [load_record(given.records, name) for name in (given.large, *names)]
    labels = records[0].outputs.predictions if given.labels is None else read_labels(given.labels)
    groups = None if given.groups is None else read_groups(given.groups)
    problem, kept = join_records(records, costs, labels, groups)
    return Gathered(problem=problem, sample_index=kept)


def _saver_names(given: RecordInput, costs: dict[str, float]) -> tuple[str, ...]:
    if given.savers != ("all",):
        return given.savers
    if given.large not in record_names(given.records):
        raise InputError(
            f"records {given.records}: no {given.large}.npz; records there: "
            f"{', '.join(record_names(given.records)) or 'none'}"
        )
    limit = costs.get(given.large, 0.0)
    names = [name for name in record_names(given.records) if costs.get(name, limit) < limit]
    if not names:
        raise InputError(
            f"records {given.records}: no model there has a row in {given.macs} with fewer MACs "
            f"than {given.large}"
        )
    return tuple(sorted(names, key=lambda name: costs[name]))


def join_records(
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
    except csv.Error as error:
        raise RecordError(f"macs {path}: not CSV ({error})") from error
    costs: dict[str, float] = {}
    for number, row in enumerate(rows, start=2):
        if not {"name", "macs"} <= row.keys():
            columns = ", ".join(column for column in row if column is not None)
            raise RecordError(f"macs {path}: needs columns name and macs, has {columns}")
        name = (row["name"] or "").strip()
        if name in costs:
            raise RecordError(f"macs {path}, line {number}: {name} is there twice")
        try:
            costs[name] = float(row["macs"] or "")
        except ValueError:
            raise RecordError(
                f"macs {path}, line {number}: {row['macs'] or ''!r} is not a number"
            ) from None
    if not costs:
        raise RecordError(f"macs {path}: no rows")
    return costs
