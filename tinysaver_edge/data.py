"""Labelled images for calibration: class folders, a .zip of them, or a table of file and label."""

from __future__ import annotations

import csv
import hashlib
import json
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.errors import DataError, MissingDependencyError
from tinysaver_edge.preprocess import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
_FILE_COLUMNS = ("file", "path", "image", "filename")
_LABEL_COLUMNS = ("label", "class", "target")
# RuntimeError: encrypted, or compressed in a way that Python cannot undo.
_DAMAGED_ZIP = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image.

    Attributes:
        file: its name within the data source, with forward slashes.
        label: name or index of its class, as the source states it.
        group: name of the clip or scene it belongs to, or None.
    """

    file: str
    label: str
    group: str | None = None


class DataSource(ABC):
    """Labelled images in a fixed order. A context manager; reading is thread-safe.

    Attributes:
        path: where they come from.
        samples: the images, in an order that only the source's content decides.
    """

    def __init__(self, path: Path, samples: Sequence[Sample]) -> None:
        if not samples:
            raise DataError(
                f"data {path}: no images; expected one folder a class with images in it, "
                f"a .zip of such folders, or a .csv/.jsonl with columns file and label"
            )
        self.path = path
        self.samples = tuple(samples)

    @abstractmethod
    def read(self, index: int) -> bytes:
        """Return the bytes of one image file.

        Raises:
            OSError: it cannot be read.
        """

    def close(self) -> None:  # noqa: B027 - folders have nothing open
        """Close what is open. Legal in every state."""

    def frame(self, index: int) -> Frame | None:
        """Return one image decoded, or None when it cannot be read or is damaged."""
        try:
            return decode_image(self.read(index))
        except OSError:
            return None

    def fingerprint(self) -> str:
        """Return a hash of the files' names and state: it changes when the images do.

        Labels are left out: what a model answers does not depend on them.
        """
        digest = hashlib.sha256()
        for index, sample in enumerate(self.samples):
            line = f"{sample.file}\0{self._state(index)}\n"
            digest.update(line.encode())
        return digest.hexdigest()

    @abstractmethod
    def _state(self, index: int) -> str:
        """Return what changes when the file's content does, without reading it."""

    @property
    def groups(self) -> NDArray[np.str_] | None:
        """Each sample's group, or None when the source names none."""
        if all(sample.group is None for sample in self.samples):
            return None
        return np.array([sample.group or "" for sample in self.samples])

    def __len__(self) -> int:
        return len(self.samples)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


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
        except OSError:
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
        return FolderData(path, list(_table_samples(path, group_column, labelled=labelled)))
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


def _table_samples(path: Path, group_column: str | None, *, labelled: bool) -> Iterator[Sample]:
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
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"data {path}, line {number}: not JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise DataError(f"data {path}, line {number}: expected an object, got {line[:40]!r}")
        yield number, {key: "" if value is None else str(value) for key, value in row.items()}


def _first(row: dict[str, str], names: Sequence[str]) -> str | None:
    return next((row[name].strip() for name in names if row.get(name, "").strip()), None)


def decode_image(data: bytes) -> Frame | None:
    """Decode an image file as OpenCV does, turned upright; None when it is damaged.

    A JPEG or PNG whose end is missing counts as damaged, although decoders fill in the rest.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "opencv-python", extra="cpu", purpose="Decoding images"
        ) from error
    if _is_truncated(data):
        return None
    try:
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return frame


def _is_truncated(data: bytes) -> bool:
    if data.startswith(b"\xff\xd8"):
        return data.find(b"\xff\xd9", _jpeg_scan_start(data)) < 0
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:]
    return not data


def _jpeg_scan_start(data: bytes) -> int:
    """Return where a JPEG's own picture begins, past any thumbnail in its headers."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return place


def class_indices(
    samples: Sequence[Sample], *, labels: Sequence[str] | None, classes: int, path: Path
) -> NDArray[np.int64]:
    """Turn the labels of samples into class indices of a model.

    Names are looked up among the model's labels, exactly, else regardless of case, spaces and
    underscores. Whole numbers are indices. Names without any labels to look them up in are
    numbered in sorted order, provided there are as many as the model has classes.

    Args:
        samples: the images.
        labels: the model's class names, or None when they are not known.
        classes: how many classes the model has.
        path: where the samples come from, for messages.

    Returns:
        ``(n,)`` int64.

    Raises:
        DataError: a label is none of the model's.
    """
    names = sorted({sample.label for sample in samples})
    index_of = _label_indices(names, labels=labels, classes=classes, path=path)
    return np.array([index_of[sample.label] for sample in samples], np.int64)


def _label_indices(
    names: Sequence[str], *, labels: Sequence[str] | None, classes: int, path: Path
) -> dict[str, int]:
    if labels is not None:
        found = _named_indices(names, labels, path=path)
        if len(found) == len(names):
            return found
        unknown = [name for name in names if name not in found]
        if not all(name.isdecimal() for name in names):
            raise DataError(
                f"data {path}: label {unknown[0]!r} ({len(unknown)} such) is none of the model's "
                f"{classes} labels ({', '.join(labels[:3])}, …)"
            )
    if all(name.isdecimal() for name in names):
        largest = max(int(name) for name in names)
        if largest >= classes:
            raise DataError(f"data {path}: label {largest}, but the model has {classes} classes")
        return {name: int(name) for name in names}
    if len(names) != classes:
        raise DataError(
            f"data {path}: {len(names)} classes ({', '.join(names[:3])}, …), but the model has "
            f"{classes}: add the model's labels to its description"
        )
    return {name: index for index, name in enumerate(names)}


def _named_indices(names: Sequence[str], labels: Sequence[str], *, path: Path) -> dict[str, int]:
    exact: dict[str, list[int]] = {}
    loose: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        exact.setdefault(label, []).append(index)
        loose.setdefault(_loosely(label), []).append(index)
    found: dict[str, int] = {}
    for name in names:
        places = exact.get(name) or loose.get(_loosely(name), [])
        if len(places) > 1:
            raise DataError(
                f"data {path}: label {name!r} names {len(places)} of the model's classes "
                f"({', '.join(map(str, places))}): label by index instead"
            )
        if places:
            found[name] = places[0]
    return found


def _loosely(label: str) -> str:
    return label.casefold().replace("_", " ").replace("-", " ").strip()
