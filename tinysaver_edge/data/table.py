"""Tables of file and label: .csv and .jsonl."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinysaver_edge._support.documents import parse_json
from tinysaver_edge.data.source import Sample
from tinysaver_edge.errors import DataError

_FILE_COLUMNS = ("file", "path", "image", "filename")
_LABEL_COLUMNS = ("label", "class", "target")


def table_samples(path: Path, group_column: str | None, *, labelled: bool) -> Iterator[Sample]:
    """Yield the samples that a table names.

    Args:
        path: the table.
        group_column: column of each file's clip or scene, or None.
        labelled: whether every row needs a label.

    Raises:
        DataError: the table cannot be read, or a row is incomplete.
    """
    for number, row in _rows(path):
        file = _first(row, _FILE_COLUMNS)
        label = _first(row, _LABEL_COLUMNS) if labelled else ""
        if file is None or label is None:
            missing = "file" if file is None else "label"
            raise DataError(
                f"data {path}, line {number}: no {missing}; columns there: "
                f"{', '.join(map(str, row)) or 'none'}"
            )
        if group_column is not None and not row.get(group_column):
            raise DataError(f"data {path}, line {number}: no value in column {group_column!r}")
        yield Sample(file=file, label=label, group=row[group_column] if group_column else None)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and columns of each row of a table."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data {path}: not readable as UTF-8 text ({error})") from error
    if path.suffix.lower() == ".csv":
        rows = csv.DictReader(text.splitlines())
        try:
            for row in rows:
                filled = {key: value or "" for key, value in row.items() if key is not None}
                yield rows.line_num, filled
        except csv.Error as error:
            raise DataError(f"data {path}, line {rows.line_num + 1}: not CSV ({error})") from error
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(f"data {path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"data {path}, line {number}: expected an object, got {line[:40]!r}")
        yield number, {key: "" if value is None else str(value) for key, value in row.items()}


def _first(row: dict[str, str], names: Sequence[str]) -> str | None:
    return next((row[name].strip() for name in names if row.get(name, "").strip()), None)
