"""Tables of file and label: .csv and .jsonl."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tinysaver_edge._support.files import parse_json
from tinysaver_edge.data.source import Sample, one_spelling
from tinysaver_edge.errors import DataError


class CsvLineError(ValueError):
    """A text is no CSV.

    Attributes:
        line: where, counted from 1.
    """

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def csv_rows(lines: Sequence[str], *, separator: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield each row's first line, counted from 1, and its cells.

    Args:
        lines: the text, without ends of lines.
        separator: what parts the cells.

    Raises:
        CsvLineError: the text is no CSV; of a quote that nothing closes, the line it is on.
    """
    rows = csv.reader(lines, delimiter=separator)
    while True:
        before = rows.line_num
        try:
            cells = next(rows, None)
        except csv.Error as error:
            _check_closed(lines, before, rows.line_num)
            raise CsvLineError(before + 1, str(error)) from error
        if cells is None:
            return
        if rows.line_num == len(lines):
            _check_closed(lines, before, rows.line_num)
        yield before + 1, cells


def _check_closed(lines: Sequence[str], before: int, after: int) -> None:
    """Refuse a row of several lines whose quotes do not come in pairs."""
    quotes = sum(line.count('"') for line in lines[before:after])
    if after - before > 1 and quotes % 2:
        raise CsvLineError(before + 1, "a quote on it is never closed")


_FILE_COLUMNS = ("file", "path", "image", "filename")
_LABEL_COLUMNS = ("label", "class", "target")
ANSWER_COLUMN = "answer"
"""Column of tables that this package writes: what the models answered, which nobody has checked."""

_SEPARATORS = ",;\t|"
_EXPECTED = "expected the columns file and label, parted by commas"


def table_samples(path: Path, group_column: str | None, *, labelled: bool) -> Iterator[Sample]:
    """Yield the samples that a table names.

    Names of columns may differ in case and in blanks around them.

    Args:
        path: the table.
        group_column: column of each file's clip or scene, or None.
        labelled: whether every row needs a label.

    Raises:
        DataError: the table cannot be read, or a row is incomplete.
    """
    group = None if group_column is None else _plain(group_column)
    for number, row in _rows(path):
        file = _first(row, _FILE_COLUMNS)
        label = _first(row, _LABEL_COLUMNS) if labelled else ""
        if file is None or label is None:
            raise DataError(f"data {path}, line {number}: {_missing(row, file)}")
        if not _can_be_a_file(file):
            raise DataError(f"data {path}, line {number}: {file!r} is no name that a file can have")
        if group is not None and not row.get(group):
            lacks = "no value in" if group in row else "no"
            raise DataError(
                f"data {path}, line {number}: {lacks} column {group_column!r}; "
                f"columns there: {', '.join(map(str, row)) or 'none'}"
            )
        yield Sample(file=file, label=one_spelling(label), group=row[group] if group else None)


def table_names_labels(path: Path) -> bool:
    """Tell whether a table has a column of labels at all.

    Raises:
        DataError: the table cannot be read.
    """
    columns = {name for _, row in _rows(path) for name in row}
    return not columns or not columns.isdisjoint(_LABEL_COLUMNS)


def _can_be_a_file(name: str) -> bool:
    """Whether a name has neither a NUL nor half a character, which JSON can write."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name


def _missing(row: Mapping[str, str], file: str | None) -> str:
    """Say what a row lacks, and what would mend it."""
    there = f"columns there: {', '.join(map(str, row)) or 'none'}"
    what, names = ("file", _FILE_COLUMNS) if file is None else ("label", _LABEL_COLUMNS)
    if what == "label" and row.get(ANSWER_COLUMN):
        return (
            f"no label; {ANSWER_COLUMN} is what the models said themselves, which no accuracy can "
            f"be measured against: say --reference large, or call the column label once a person "
            f"has corrected it"
        )
    column = next((name for name in names if name in row), None)
    if column is not None:
        return f"no {what}: its {column} is empty; {there}"
    return f"no {what}; {there}; {_EXPECTED}"


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and columns of each row of a table."""
    text = _text(path)
    if path.suffix.lower() == ".csv":
        yield from _csv_rows(text, path)
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
        yield number, {_plain(key): "" if v is None else str(v) for key, v in row.items()}


def _text(path: Path) -> str:
    """Read a table's text; spreadsheets write UTF-16 as well, with a mark at its start."""
    try:
        data = path.read_bytes()
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff")) and len(data) % 2 == 0
        return data.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"data {path}: not readable as UTF-8 text ({error}): save it as CSV in UTF-8"
        ) from error


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    lines = text.splitlines()
    skipped = 0
    while skipped < len(lines) and not lines[skipped].strip():
        skipped += 1
    separator = _separator(lines[skipped]) if skipped < len(lines) else ","
    if lines[skipped : skipped + 1] and lines[skipped].lower().startswith("sep="):
        separator = lines[skipped][4:5] or separator  # as Excel says it
        skipped += 1
    header: list[str] | None = None
    try:
        for place, cells in csv_rows(lines[skipped:], separator=separator):
            line = place + skipped
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [_plain(cell) for cell in cells]
                _check_header(header, path, line)
                continue
            cells += [""] * (len(header) - len(cells))
            yield line, dict(zip(header, map(str.strip, cells), strict=False))
    except CsvLineError as error:
        raise DataError(f"data {path}, line {error.line + skipped}: not CSV ({error})") from error


def _check_header(header: Sequence[str], path: Path, line: int) -> None:
    for name in (*_FILE_COLUMNS, *_LABEL_COLUMNS):
        if header.count(name) > 1:
            raise DataError(f"data {path}, line {line}: {header.count(name)} columns named {name}")


def _separator(header: str) -> str:
    """Return what parts a table's columns: the sign by which its header names a file's column."""
    for sign in _SEPARATORS:
        names = {_plain(cell) for cell in next(csv.reader([header], delimiter=sign), [])}
        if len(names) > 1 and names & set(_FILE_COLUMNS):
            return sign
    return ","


def _plain(name: str) -> str:
    return name.strip().strip("\ufeff").strip().lower()


def _first(row: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((row[name].strip() for name in names if row.get(name, "").strip()), None)
