"""Images on disk: class folders, a .zip of them, or a table of file and label."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from tinysaver_edge.data.images import IMAGE_SUFFIXES
from tinysaver_edge.data.source import DataSource, Sample
from tinysaver_edge.data.table import table_samples
from tinysaver_edge.errors import DataError

# RuntimeError: encrypted, or compressed in a way that Python cannot undo.
_DAMAGED_ZIP = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class FolderData(DataSource):
    """Files below a folder; samples name them relative to it."""

    def read(self, index: int) -> bytes:
        """Return the bytes of one image file."""
        return (self._root / self.samples[index].file).read_bytes()

    @property
    def _root(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    def _state(self, index: int) -> str:
        # Not the size alone: all .bmp files of one shape have the same.
        try:
            status = (self._root / self.samples[index].file).stat()
        except (OSError, ValueError):  # no name that a file can have
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
        names = [entry.filename for entry in self._archive.infolist() if not entry.is_dir()]
        super().__init__(path, _folder_samples(names, path=path, labelled=labelled))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process open the same archive."""
        return partial(ZipData, labelled=self._labelled), (self.path,)

    def read(self, index: int) -> bytes:
        """Return the bytes of one image file."""
        try:
            return self._archive.read(self.samples[index].file)
        except _DAMAGED_ZIP as error:
            raise OSError(str(error) or type(error).__name__) from error

    def _state(self, index: int) -> str:
        return str(self._archive.getinfo(self.samples[index].file).CRC)

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
        names = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        return FolderData(path, _folder_samples(names, path=path, labelled=labelled))
    if not path.is_file():
        raise DataError(f"data {path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return ZipData(path, labelled=labelled)
    if suffix in (".csv", ".jsonl"):
        return FolderData(path, list(table_samples(path, group_column, labelled=labelled)))
    raise DataError(f"data {path}: expected a folder, .zip, .csv or .jsonl, not {suffix or 'this'}")


def _folder_samples(names: Iterable[str], *, path: Path, labelled: bool) -> list[Sample]:
    if labelled:
        return class_folder_samples(names, path=path)
    return [Sample(file=name, label="") for name in sorted(names) if _is_image(name)]


def class_folder_samples(names: Iterable[str], *, path: Path) -> list[Sample]:
    """Read classes off the folders that images lie in.

    Folders that all images share above their class folders are passed over, so that
    ``test/cat/1.png`` and ``cat/1.png`` mean the same.

    Raises:
        DataError: an image lies in no class folder.
    """
    images = sorted(name for name in names if _is_image(name))
    parts = [PurePosixPath(name).parts for name in images]
    shared = 0
    while parts and all(
        len(part) > shared + 2 and part[shared] == parts[0][shared] for part in parts
    ):
        shared += 1
    samples = []
    for name, part in zip(images, parts, strict=True):
        if len(part) < shared + 2:
            raise DataError(
                f"data {path}: {name} lies in no class folder; expected CLASS/IMAGE, "
                f"or a .csv of file and label"
            )
        samples.append(Sample(file=name, label=part[shared]))
    return samples


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden
