"""Given records: read with labels and MACs as a problem and its origin; copies among them found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.measured.independence import Independence
from tinysaver_edge.calibrate.plan import RecordInput
from tinysaver_edge.calibrate.problem import (
    MeasuredProblem,
    ModelAnswers,
    Problem,
    join_records,
)
from tinysaver_edge.calibrate.targets import Method
from tinysaver_edge.data.alike import FEWEST, LEAST_WEIGHT, leading_group
from tinysaver_edge.data.files import CsvLineError, csv_rows
from tinysaver_edge.errors import DataError, InputError, RecordError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.records.records import (
    load_record,
    read_groups,
    read_labels,
    record_names,
)

MOST_LEVELS = 1024
"""Answers that take no more values than this are quantised: two INT8 logits differ in 511 ways, and
each way gives two probabilities."""

LEAST_DOUBT = 1e-3
"""What a model must leave open of a sample for its answer to tell it from others: probabilities
nearer to 1 are coarse."""

_COUNTED = 1 << 18  # values, of all that there are
_SEED = 0xC0B1


@dataclass(frozen=True, slots=True)
class RepeatedRows:
    """Samples whose answers are an earlier one's.

    Attributes:
        copies: how many samples they are.
        samples: of how many.
        independent: whether few enough are to count them all.
        example: positions of two that are equal; None without copies.
    """

    copies: int
    samples: int
    independent: bool
    example: tuple[int, int] | None

    @property
    def brief(self) -> str:
        """What was found, in a few words."""
        return f"{self.copies} of {self.samples} samples are copies of others"


def check_copies(
    problem: Problem, *, where: str, method: Method, stated: bool, numbered: NDArray[np.int64]
) -> Independence:
    """Refuse to promise anything on samples that were written several times.

    Args:
        problem: the records' answers.
        where: the records, for people.
        method: how the threshold is found; one that promises nothing is only warned.
        stated: whether the user vouches for the samples' independence.
        numbered: ``(n,)`` positions of the samples in the records.

    Raises:
        DataError: there are too many copies, and nobody says that they are none.
    """
    found = find_repeated(problem)
    if found is None or found.example is None or found.independent:
        return Independence()
    one, other = (int(numbered[place]) for place in found.example)
    said = f"{found.brief}: every model answers samples {one} and {other} alike to the last digit"
    if stated:
        line = f"{said}; they count as independent, as --independent says"
        return Independence((line,), f"that its samples are independent, although {found.brief}")
    if method in (Method.EMPIRICAL, Method.TINYSAVER):
        return Independence((f"{said}: the figures rest on fewer samples than they seem to",))
    raise DataError(
        f"records {where}: {said}. A certificate counts independent samples, and these are not. "
        f"Take copies out; name each sample's clip or scene with --groups; or, where they are "
        f"different images after all, say --independent: the certificate then states that it is "
        f"your word"
    )


def find_repeated(problem: Problem) -> RepeatedRows | None:
    """Count the samples that every model answers as it answers an earlier one.

    Samples of one group are not held against each other: groups are what is counted then, and one
    is a copy where most of its samples are of another's.

    Returns:
        None where there are too few samples, or no model's answers are fine enough to tell.
    """
    models = (problem.large, *problem.savers)
    samples = len(problem.labels)
    fine = [one for one in models if _is_fine(one.outputs)]
    if samples < FEWEST or not fine:
        return None
    telling = np.logical_or.reduce([_tells_apart(one) for one in fine])
    places = np.flatnonzero(telling)
    rows = np.zeros(samples, np.uint64)
    for number, one in enumerate(models):
        rows += _row_hashes(one.outputs, seed=_SEED + number)
    first = np.arange(samples)
    _, begins, which = np.unique(rows[places], return_index=True, return_inverse=True)
    first[places] = places[begins[which]]
    groups = first if problem.groups is None else problem.groups
    if problem.groups is not None:
        first = np.where(groups[first] == groups, np.arange(samples), first)
    copied = np.flatnonzero(first != np.arange(samples))
    leaders = first if problem.groups is None else leading_group(first, groups)
    sizes = np.bincount(leaders).astype(float)
    weight = sizes.sum() ** 2 / (sizes**2).sum()
    return RepeatedRows(
        copies=len(copied),
        samples=samples,
        independent=bool(weight >= LEAST_WEIGHT * len(leaders)),
        example=(int(first[copied[0]]), int(copied[0])) if len(copied) else None,
    )


def _table(outputs: Outputs) -> NDArray[np.float32]:
    table = outputs.logits if outputs.top_prob is None else outputs.top_prob
    assert table is not None
    return table


def _is_fine(outputs: Outputs) -> bool:
    """Whether a model's answers take so many values that equal ones are no chance."""
    table = _table(outputs)
    rows = max(1, _COUNTED // table.shape[1])
    values = table[:: max(1, len(table) // rows)][:rows]
    return len(np.unique(values)) > MOST_LEVELS


def _tells_apart(model: ModelAnswers) -> NDArray[np.bool_]:
    """Return for which samples one model's answer is fine: enough values, and not saturated."""
    return np.asarray(model.outputs.confidences < 1 - LEAST_DOUBT)


def _row_hashes(outputs: Outputs, *, seed: int) -> NDArray[np.uint64]:
    table = np.ascontiguousarray(_table(outputs))
    parts = [table.view(np.uint32)]
    if outputs.top_class is not None:
        parts.append(outputs.top_class.astype(np.uint32))
    rng = np.random.default_rng(seed)
    hashes = np.zeros(len(table), np.uint64)
    for part in parts:
        for column in part.T:
            odd = rng.integers(1 << 63, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
            hashes += column.astype(np.uint64) * odd
    return hashes


def from_records(given: RecordInput) -> MeasuredProblem:
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
    return MeasuredProblem(problem=problem, sample_index=kept)


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


def read_macs(path: Path) -> dict[str, float]:
    """Read MACs by model name from a table with columns ``name`` and ``macs``.

    Raises:
        RecordError: the file is missing, or a column or number is.
    """
    try:
        rows = list(csv_rows(path.read_text(encoding="utf-8-sig").splitlines()))
    except UnicodeDecodeError as error:
        raise RecordError(f"macs {path}: no text; expected CSV with columns name, macs") from error
    except OSError as error:
        raise RecordError(f"macs {path}: not readable ({error})") from error
    except CsvLineError as error:
        raise RecordError(f"macs {path}, line {error.line}: not CSV ({error})") from error
    filled = [(number, cells) for number, cells in rows if cells]
    header = filled[0][1] if filled else []
    if len(filled) > 1 and not {"name", "macs"} <= set(header):
        raise RecordError(f"macs {path}: needs columns name and macs, has {', '.join(header)}")
    costs: dict[str, float] = {}
    for number, cells in filled[1:]:
        cells += [""] * (len(header) - len(cells))
        row = dict(zip(header, cells, strict=False))
        name = row["name"].strip()
        if name in costs:
            raise RecordError(f"macs {path}, line {number}: {name} is there twice")
        try:
            costs[name] = float(row["macs"])
        except ValueError:
            raise RecordError(
                f"macs {path}, line {number}: {row['macs']!r} is not a number"
            ) from None
    if not costs:
        raise RecordError(f"macs {path}: no rows")
    return costs
