"""Rows of a CSV text with the line that each begins on; quotes that nothing closes are found."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence


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
