"""Images on disk: class folders, a .zip of them, or a table (.csv, .jsonl) of file and label."""

from __future__ import annotations

import csv
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from tinysaver_edge._support.files import OddZipError, members_of, parse_json
from tinysaver_edge._support.limits import MOST_FILE_BYTES
from tinysaver_edge._support.text import without_logins
from tinysaver_edge.data.images import NOTHING, LeftOut, is_image, left_out_of, printable
from tinysaver_edge.data.shards import open_shards, shards_name_labels
from tinysaver_edge.data.source import DataSource, Sample, one_spelling
from tinysaver_edge.data.store import (
    DataPlace,
    DataStore,
    Place,
    find_shards,
    is_url,
    parted,
    store_of,
    suffix_of,
)
from tinysaver_edge.errors import DataError, TinySaverError

_FILE_COLUMNS = ("file", "path", "image", "filename")
_LABEL_COLUMNS = ("label", "class", "target")
ANSWER_COLUMN = "answer"
"""Column of tables that this package writes: what the models answered, which nobody has checked."""

_TABLES = (".csv", ".jsonl")
_SEPARATORS = ",;\t|"
_EXPECTED = "expected the columns file and label, parted by commas"
# RuntimeError: encrypted, or compressed in a way that Python cannot undo.
_DAMAGED_ZIP = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def open_data(path: Place, *, group_column: str | None = None, labelled: bool = True) -> DataSource:
    """Open labelled images.

    Args:
        path: a folder of class folders, a .zip of the same, a .csv or .jsonl with columns ``file``
            (relative to it) and ``label`` (a class's name or index), WebDataset's .tar or Parquet
            files, one or many; here, or as a URL (``s3://``, ``gs://``, ``https://``).
        group_column: column that names each file's clip or scene; of tables, Parquet and the .json
            of WebDataset.
        labelled: whether labels are wanted; without, images may lie anywhere in the folder and a
            table needs no labels.

    Raises:
        DataError: there is nothing there, it holds no images, or a row is incomplete.
        MissingDependencyError: what reads such a place is not installed.
    """
    path = DataPlace.of(path)
    if (shards := find_shards(path)) is not None:
        return open_shards(path, shards, group_column=group_column, labelled=labelled)
    suffix = suffix_of(path)
    if group_column is not None and suffix not in _TABLES:
        raise DataError(f"data {path}: a group column needs a .csv, .jsonl or Parquet table")
    if suffix in _TABLES:
        folder, _ = parted(path)
        samples = list(table_samples(path, group_column, labelled=labelled))
        places = [one.file for one in samples]
        afar = isinstance(path, str) or any(map(is_url, places))
        store = store_of(
            folder if isinstance(folder, str) or not afar else folder.absolute().as_uri()
        )
        if any(map(is_url, places)):  # what samples are called goes into reports and tables
            samples = [replace(one, file=without_logins(one.file)) for one in samples]
        return FolderData(path, samples, store, places=places)
    if suffix == ".zip":
        return ZipData(path, labelled=labelled)
    if isinstance(path, str) or path.is_dir():
        store = store_of(path)
        samples, places, left_out = _folder_samples(*store.find(), path=path, labelled=labelled)
        return FolderData(path, samples, store, left_out=left_out, places=places)
    if not path.is_file():
        raise DataError(f"data {path}: no such file or folder")
    raise DataError(
        f"data {path}: expected a folder, .zip, .csv, .jsonl, .tar or .parquet, not "
        f"{suffix or 'this'}"
    )


def names_labels(path: Place) -> bool:
    """Tell whether images come with labels: class folders, or a column of a table.

    Images that all lie in a folder itself have none, nor has a table without any such column.
    Whatever cannot be read counts as labelled, so that who opens it says what is wrong.
    """
    try:
        if (shards := find_shards(path)) is not None:
            return shards_name_labels(path, shards)
        if suffix_of(path) in _TABLES:
            return table_names_labels(path)
        if suffix_of(path) == ".zip":
            with _opened_zip(path) as archive:
                names = list(_members(archive, path)[0])
        else:
            names = store_of(path).find()[0]
    except (TinySaverError, *_DAMAGED_ZIP):
        return True
    images = [name for name in names if is_image(name)]
    return not images or any("/" in name for name in images)


class FolderData(DataSource):
    """Files below a folder; samples name them relative to it.

    Args:
        path: the folder, or a table in it.
        samples: the images.
        store: the folder's files.
        left_out: files beside them.
        places: the files' names where samples cannot tell them: no UTF-8.
    """

    def __init__(
        self,
        path: Place,
        samples: Sequence[Sample],
        store: DataStore,
        *,
        left_out: LeftOut = NOTHING,
        places: Sequence[str] | None = None,
    ) -> None:
        super().__init__(path, samples, left_out=left_out)
        self._store = store
        self._places = places

    def read(self, index: int) -> bytes:
        """Return the bytes of one image file."""
        return self._store.read(self._name(index))

    def _name(self, index: int) -> str:
        name = self.samples[index].file if self._places is None else self._places[index]
        if "\\" in name and self._store.states([name]) == ["missing"]:  # written on Windows
            name = name.replace("\\", "/")
        return name

    def _state(self, index: int) -> str:
        return self._store.states([self._name(index)])[0]

    def _states(self) -> Sequence[str]:
        return self._store.states([self._name(index) for index in range(len(self))])


class ZipData(DataSource):
    """Files within a .zip."""

    def __init__(self, path: Place, *, labelled: bool = True) -> None:
        self._labelled = labelled
        self._archive = _opened_zip(path)
        self._members, twice = _members(self._archive, path)
        samples, self._places, left_out = _folder_samples(
            self._members, twice, path=path, labelled=labelled
        )
        super().__init__(path, samples, left_out=left_out)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process open the same archive."""
        return partial(ZipData, labelled=self._labelled), (self.path,)

    def read(self, index: int) -> bytes:
        """Return the bytes of one image file."""
        entry = self._members[self._places[index]]
        if entry.file_size > MOST_FILE_BYTES:
            raise OSError(f"unpacks to {entry.file_size} bytes")
        try:
            return self._archive.read(entry)
        except _DAMAGED_ZIP as error:
            raise OSError(str(error) or type(error).__name__) from error

    def _state(self, index: int) -> str:
        return str(self._members[self._places[index]].CRC)

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()


def _opened_zip(path: Place) -> zipfile.ZipFile:
    """Open an archive."""
    folder, name = parted(path)
    try:
        return zipfile.ZipFile(store_of(folder).open(name))
    except FileNotFoundError:
        raise DataError(f"data {path}: no such file or folder") from None
    except _DAMAGED_ZIP as error:
        raise DataError(f"data {path}: not a readable .zip ({error})") from error


def _members(archive: zipfile.ZipFile, path: Place) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """Return an archive's files by name, and those of them that cannot be told apart or are links.

    Archives that were made on Windows part folders with a backslash; a name that is there twice
    stands for the last of its files, as whatever unpacks the archive has it.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    lost: list[str] = []
    try:
        entries = members_of(archive)
    except OddZipError as error:
        raise DataError(f"data {path}: {error}") from error
    if any(entry.flag_bits & 1 for entry in entries):
        raise DataError(f"data {path}: is encrypted with a password; unpack it, or zip it without")
    for entry in entries:
        name = entry.filename if "/" in entry.filename else entry.filename.replace("\\", "/")
        if entry.is_dir() or name.endswith("/"):
            continue
        if stat.S_ISLNK(entry.external_attr >> 16):
            lost.append(name)
            continue
        if name in found:
            lost.append(name)
        found[name] = entry
    return found, lost


def _folder_samples(
    names: Iterable[str], unreachable: Iterable[str], *, path: Place, labelled: bool
) -> tuple[list[Sample], list[str], LeftOut]:
    """Return the samples among some files, the files' own names, and what is left out."""
    files = list(names)
    places = sorted(name for name in files if is_image(name))
    if not labelled:
        samples = [Sample(file=printable(name), label="") for name in places]
        return samples, places, left_out_of(files, unreachable, shared=0, classes=None)
    samples = class_folder_samples(places, path=path)
    left_out = left_out_of(
        files,
        unreachable,
        shared=_shared([PurePosixPath(name).parts for name in places]),
        classes={sample.label for sample in samples},
    )
    if not samples and left_out.lines:
        raise DataError(f"data {path}: no images; {'; '.join(left_out.lines)}")
    return samples, places, left_out


def class_folder_samples(names: Iterable[str], *, path: Place) -> list[Sample]:
    """Read classes off the folders that images lie in.

    Folders that all images share above their class folders are passed over, so that
    ``test/cat/1.png`` and ``cat/1.png`` mean the same.

    Raises:
        DataError: an image lies in no class folder.
    """
    images = sorted(name for name in names if is_image(name))
    parts = [PurePosixPath(name).parts for name in images]
    shared = _shared(parts)
    samples = []
    for name, part in zip(images, parts, strict=True):
        if len(part) < shared + 2:
            raise DataError(
                f"data {path}: {printable(name)} lies in no class folder; expected CLASS/IMAGE, "
                f"or a .csv of file and label"
            )
        samples.append(Sample(file=printable(name), label=one_spelling(printable(part[shared]))))
    return samples


def _shared(parts: Sequence[tuple[str, ...]]) -> int:
    """Return how many folders all images share above their class folders."""
    shared = 0
    while parts and all(
        len(part) > shared + 2 and part[shared] == parts[0][shared] for part in parts
    ):
        shared += 1
    return shared


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


def table_samples(path: Place, group_column: str | None, *, labelled: bool) -> Iterator[Sample]:
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
    labels: dict[str, str] = {}
    for number, row in _rows(path):
        file = _first(row, _FILE_COLUMNS)
        label = _first(row, _LABEL_COLUMNS) if labelled else ""
        if file is None or label is None:
            raise DataError(f"data {path}, line {number}: {_missing(row, file)}")
        if not _can_be_a_file(file):
            raise DataError(f"data {path}, line {number}: {file!r} is no name that a file can have")
        if labels.setdefault(file, label) != label:
            raise DataError(
                f"data {path}, line {number}: {file} is {label!r} here and {labels[file]!r} in an "
                f"earlier line: leave one of them"
            )
        if group is not None and not row.get(group):
            lacks = "no value in" if group in row else "no"
            raise DataError(
                f"data {path}, line {number}: {lacks} column {group_column!r}; "
                f"columns there: {', '.join(map(str, row)) or 'none'}"
            )
        yield Sample(file=file, label=one_spelling(label), group=row[group] if group else None)


def table_names_labels(path: Place) -> bool:
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


def _rows(path: Place) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and columns of each row of a table."""
    text = _text(path)
    if suffix_of(path) == ".csv":
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


def _text(path: Place) -> str:
    """Read a table's text; spreadsheets write UTF-16 as well, with a mark at its start."""
    folder, name = parted(path)
    try:
        data = store_of(folder).read(name)
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff")) and len(data) % 2 == 0
        return data.decode("utf-16" if wide else "utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"data {path}: no such file or folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"data {path}: not readable as UTF-8 text ({error}): save it as CSV in UTF-8"
        ) from error


def _csv_rows(text: str, path: Place) -> Iterator[tuple[int, dict[str, str]]]:
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
            if any(cell.strip() for cell in cells[len(header) :]):
                raise DataError(
                    f"data {path}, line {line}: {len(cells)} values for {len(header)} columns: "
                    f"names that hold {separator!r} stand in quotes"
                )
            cells += [""] * (len(header) - len(cells))
            yield line, dict(zip(header, map(str.strip, cells), strict=False))
    except CsvLineError as error:
        raise DataError(f"data {path}, line {error.line + skipped}: not CSV ({error})") from error


def _check_header(header: Sequence[str], path: Place, line: int) -> None:
    for name in (*_FILE_COLUMNS, *_LABEL_COLUMNS):
        if header.count(name) > 1:
            raise DataError(f"data {path}, line {line}: {header.count(name)} columns named {name}")


def _separator(header: str) -> str:
    """Return what parts a table's columns: the sign by which its header names a file's column."""
    for sign in _SEPARATORS:
        try:
            cells = next(csv.reader([header], delimiter=sign), [])
        except csv.Error:  # a NUL, for Python 3.10; it is told of where the rows are read
            return ","
        names = {_plain(cell) for cell in cells}
        if len(names) > 1 and names & set(_FILE_COLUMNS):
            return sign
    return ","


def _plain(name: str) -> str:
    return name.strip().strip("\ufeff").strip().lower()


def _first(row: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((row[name].strip() for name in names if row.get(name, "").strip()), None)
