"""Images on disk: class folders, a .zip of them, or a table of file and label."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from tinysaver_edge.data.found import NOTHING, LeftOut, is_image, left_out_of, printable, walk
from tinysaver_edge.data.source import DataSource, Sample, one_spelling
from tinysaver_edge.data.table import table_names_labels, table_samples
from tinysaver_edge.errors import DataError

# RuntimeError: encrypted, or compressed in a way that Python cannot undo.
_DAMAGED_ZIP = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class FolderData(DataSource):
    """Files below a folder; samples name them relative to it.

    Args:
        path: the folder, or a table in it.
        samples: the images.
        left_out: files beside them.
        places: the files' names where samples cannot tell them: no UTF-8.
    """

    def __init__(
        self,
        path: Path,
        samples: Sequence[Sample],
        *,
        left_out: LeftOut = NOTHING,
        places: Sequence[str] | None = None,
    ) -> None:
        super().__init__(path, samples, left_out=left_out)
        self._places = places

    def read(self, index: int) -> bytes:
        """Return the bytes of one image file."""
        return self._file(index).read_bytes()

    def _file(self, index: int) -> Path:
        root = self.path if self.path.is_dir() else self.path.parent
        name = self.samples[index].file if self._places is None else self._places[index]
        if "\\" in name and not (root / name).exists():  # a table that was written on Windows
            name = name.replace("\\", "/")
        return root / name

    def _state(self, index: int) -> str:
        # Not the size alone: all .bmp files of one shape have the same.
        try:
            status = self._file(index).stat()
        except (OSError, ValueError):  # the latter: a NUL in the name
            return "missing"
        return f"{status.st_size} {status.st_mtime_ns}"


class ZipData(DataSource):
    """Files within a .zip."""

    def __init__(self, path: Path, *, labelled: bool = True) -> None:
        self._labelled = labelled
        try:
            self._archive = zipfile.ZipFile(path)
        except _DAMAGED_ZIP as error:
            raise DataError(f"data {path}: not a readable .zip ({error})") from error
        self._members, twice = _members(self._archive)
        samples, self._places, left_out = _folder_samples(
            self._members, twice, path=path, labelled=labelled
        )
        super().__init__(path, samples, left_out=left_out)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process open the same archive."""
        return partial(ZipData, labelled=self._labelled), (self.path,)

    def read(self, index: int) -> bytes:
        """Return the bytes of one image file."""
        try:
            return self._archive.read(self._members[self._places[index]])
        except _DAMAGED_ZIP as error:
            raise OSError(str(error) or type(error).__name__) from error

    def _state(self, index: int) -> str:
        return str(self._members[self._places[index]].CRC)

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()


def open_data(
    path: str | Path, *, group_column: str | None = None, labelled: bool = True
) -> DataSource:
    """Open labelled images.

    Args:
        path: a folder of class folders, a .zip of the same, or a .csv or .jsonl with columns
            ``file`` (relative to it) and ``label`` (a class's name or index).
        group_column: column that names each file's clip or scene; tables only.
        labelled: whether labels are wanted; without, images may lie anywhere in the folder and a
            table needs no labels.

    Raises:
        DataError: there is nothing there, it holds no images, or a row is incomplete.
    """
    path = Path(path)
    if group_column is not None and path.suffix.lower() not in (".csv", ".jsonl"):
        raise DataError(f"data {path}: a group column needs a .csv or .jsonl table")
    if path.is_dir():
        samples, places, left_out = _folder_samples(*walk(path), path=path, labelled=labelled)
        return FolderData(path, samples, left_out=left_out, places=places)
    if not path.is_file():
        raise DataError(f"data {path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return ZipData(path, labelled=labelled)
    if suffix in (".csv", ".jsonl"):
        return FolderData(path, list(table_samples(path, group_column, labelled=labelled)))
    raise DataError(f"data {path}: expected a folder, .zip, .csv or .jsonl, not {suffix or 'this'}")


def names_labels(path: Path) -> bool:
    """Tell whether images come with labels: class folders, or a column of a table.

    Images that all lie in a folder itself have none, nor has a table without any such column.
    Whatever cannot be read counts as labelled, so that who opens it says what is wrong.
    """
    try:
        if path.suffix.lower() in (".csv", ".jsonl") and path.is_file():
            return table_names_labels(path)
        if path.is_dir():
            names: Iterable[str] = walk(path)[0]
        else:
            with zipfile.ZipFile(path) as archive:
                names = list(_members(archive)[0])
    except (DataError, *_DAMAGED_ZIP):
        return True
    images = [name for name in names if is_image(name)]
    return not images or any("/" in name for name in images)


def _members(archive: zipfile.ZipFile) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """Return an archive's files by name, and those of them that cannot be told apart or are links.

    Archives that were made on Windows part folders with a backslash; a name that is there twice
    stands for the last of its files, as whatever unpacks the archive has it.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    lost: list[str] = []
    for entry in archive.infolist():
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
    names: Iterable[str], unreachable: Iterable[str], *, path: Path, labelled: bool
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


def class_folder_samples(names: Iterable[str], *, path: Path) -> list[Sample]:
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
