"""Given records: read them, labels and MACs that the user brings, as a problem and its origin."""

from __future__ import annotations

from pathlib import Path

from tinysaver_edge._support.csv_lines import CsvLineError, csv_rows
from tinysaver_edge.calibrate.plan import RecordInput
from tinysaver_edge.calibrate.problem import (
    MeasuredProblem,
    join_records,
)
from tinysaver_edge.errors import InputError, RecordError
from tinysaver_edge.records.records import (
    load_record,
    read_groups,
    read_labels,
    record_names,
)


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
