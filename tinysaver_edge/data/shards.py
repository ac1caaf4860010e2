"""Shards: many samples in few files, WebDataset's .tar and Parquet with the images' bytes in it."""

from __future__ import annotations

import tarfile
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from tinysaver_edge._support.files import parse_json
from tinysaver_edge._support.limits import MOST_FILE_BYTES
from tinysaver_edge._support.packages import needs
from tinysaver_edge.data.images import (
    IMAGE_SUFFIXES,
    NOTES,
    LeftOut,
    is_hidden,
    printable,
)
from tinysaver_edge.data.source import DataSource, Sample, one_spelling
from tinysaver_edge.data.store import DataStore, Place, Shards, store_of
from tinysaver_edge.errors import DataError

LABELS = ("label", "class", "target")
"""Columns of Parquet, and keys of WebDataset's .json, that hold a class."""

IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "picture")
"""Columns of Parquet that hold an image's bytes."""

FILES = ("file", "path", "filename", "file_name")

MOST_LABEL_BYTES = 1 << 20
"""Of a .cls or .json beside it."""

MOST_GROUP_BYTES = 1 << 30
"""Images of one row group of Parquet: they are read together."""

MANY_ROWS = 100_000
"""Of a row group; those of more have at least a byte each."""

GROUPS_KEPT = 2


def open_shards(
    path: Place, shards: Shards, *, group_column: str | None, labelled: bool
) -> DataSource:
    """Open the samples of shards; see `files.open_data`."""
    kind = TarData if shards.kind == ".tar" else ParquetData
    return kind(path, shards, group_column=group_column, labelled=labelled)


def shards_name_labels(path: Place, shards: Shards) -> bool:
    """Tell whether a class is told of the samples; see `files.names_labels`.

    Raises:
        DataError: they cannot be read.
    """
    if shards.kind == ".parquet":
        return _Columns.of(store_of(shards.folder), shards.names[0], path).label is not None
    one = Shards(shards.folder, shards.names[:1], shards.kind)
    with TarData(path, one, group_column=None, labelled=False) as data:
        return data.names_labels


class TarData(DataSource):
    """WebDataset's shards: files of one key stand together, ``7.jpg``, ``7.cls`` or ``7.json``.

    A .tar of class folders, without any .cls or .json, is read as the folders would be. Where each
    image lies is read once; then any of them can be had with one read of its bytes.

    Attributes:
        names_labels: whether a class is told of any sample.
    """

    def __init__(
        self, path: Place, shards: Shards, *, group_column: str | None, labelled: bool
    ) -> None:
        self._store, self._names = store_of(shards.folder), shards.names
        found = [
            entry
            for number, name in enumerate(shards.names)
            for entry in _tar_entries(self._store, name, number, path)
        ]
        images = [one for one in found if one.image is not None]
        self.names_labels = any(one.told for one in images)
        if self.names_labels or not labelled:
            samples = [_told_sample(one, path, group_column, labelled=labelled) for one in images]
        else:
            images, samples = _in_class_folders(images, path)
        classes = {one.label for one in samples} if labelled else None
        super().__init__(path, samples, left_out=_left_out(found, classes))
        places = [one.image for one in images if one.image is not None]
        self._places = np.array(places, np.int64).reshape(-1, 3)

    def read(self, index: int) -> bytes:
        """Return the bytes of one image."""
        shard, start, size = map(int, self._places[index])
        content = self._store.read(self._names[shard], start, size)
        if len(content) < size:
            raise OSError(f"{self._names[shard]} ends in the middle of an image")
        return content

    def _state(self, index: int) -> str:
        shard, start, size = map(int, self._places[index])
        return f"{self._store.states([self._names[shard]])[0]} {start} {size}"

    def _states(self) -> Sequence[str]:
        files = self._store.states(self._names)
        return [f"{files[shard]} {start} {size}" for shard, start, size in self._places.tolist()]


@dataclass(slots=True)
class _Entry:
    """What a shard holds under one key.

    Attributes:
        name: of the image, with the shard's before it.
        key: what its files share.
        image: number of the shard, place and size in it; None where there is no image.
        told: what is said of it, by ending.
        others: further members of its key.
        lost: members whose name is there twice, and links and the like, which hold nothing.
    """

    key: str
    name: str = ""
    member: str = ""
    image: tuple[int, int, int] | None = None
    told: dict[str, Any] | None = None
    others: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def _left_out(found: Sequence[_Entry], classes: set[str] | None) -> LeftOut:
    """Return what may have been samples, and is none.

    Args:
        found: all that the shards hold.
        classes: of the samples; None where none is told.
    """
    lost = tuple(printable(name) for one in found for name in one.lost)
    unknown: list[str] = []
    missed: set[str] = set()
    for one in found:
        if one.image is not None:
            continue
        said = (one.told or {}).get("cls")
        names = [name for name in one.others if PurePosixPath(name).suffix.lower() not in NOTES]
        if not names and said is not None and not one.lost:
            names = [f"{one.key.lstrip('/')}.cls"]
        unknown += map(printable, names)
        if names or said is not None:
            folder = one.key.rpartition("/")[0].rpartition("/")[2]
            label = folder if said is None else said.decode("utf-8", "replace").strip()
            missed.add(one_spelling(printable(label)))
    empty = tuple(sorted(missed - classes - {""})) if classes is not None else ()
    return LeftOut(tuple(unknown), lost, empty=empty)


def _tar_entries(store: DataStore, name: str, number: int, path: Place) -> list[_Entry]:
    """Read which samples one shard holds.

    Raises:
        DataError: it is no .tar, is cut short, or holds what would unpack to more than it is.
    """
    entries: OrderedDict[str, _Entry] = OrderedDict()
    try:
        with store.open(name) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                _take(entries, archive, member, name, number, path)
            file.seek(archive.offset)
            if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                raise DataError(
                    f"data {path}: {name} is cut short: it lacks the block that closes a .tar; "
                    "copy or write it anew"
                )
    except FileNotFoundError:
        raise DataError(f"data {path}: there is no {name}") from None
    except (OSError, ValueError, EOFError, tarfile.TarError) as error:
        raise DataError(f"data {path}: {name} is no readable .tar ({error})") from error
    return list(entries.values())


def _take(
    entries: OrderedDict[str, _Entry],
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    shard: str,
    number: int,
    path: Place,
) -> None:
    """Take in one file of a shard."""
    where = f"data {path}: {shard}: {printable(member.name)}"
    if member.issparse():
        raise DataError(f"{where} is sparse, which unpacks to more than is there: leave it out")
    if member.isdir() or is_hidden(member.name):
        return
    folder, _, base = member.name.rpartition("/")
    stem, _, ending = base.partition(".")
    key, ending = f"{folder}/{stem}", ending.lower()
    entry = entries.setdefault(key, _Entry(key))
    if not member.isreg():
        entry.lost += (member.name,)
    elif f".{ending}" in IMAGE_SUFFIXES:
        if member.size > MOST_FILE_BYTES:
            most = MOST_FILE_BYTES >> 20
            raise DataError(f"{where} has {member.size:,} bytes; an image has at most {most} MiB")
        if entry.image is not None and entry.member == member.name:
            entry.lost += (member.name,)
        entry.name, entry.member = f"{shard}/{printable(member.name)}", member.name
        entry.image = (number, member.offset_data, member.size)
    elif ending in ("cls", "json"):
        if member.size > MOST_LABEL_BYTES:
            raise DataError(f"{where} has {member.size:,} bytes, too many for a label")
        content = archive.extractfile(member)
        assert content is not None
        entry.told = {**(entry.told or {}), ending: content.read()}
    else:
        entry.others += (member.name,)


def _told_sample(entry: _Entry, path: Place, group_column: str | None, *, labelled: bool) -> Sample:
    """Return the sample of an image and what is said of it.

    Raises:
        DataError: no class is told of it, or no group where one is asked for.
    """
    told, where = entry.told or {}, f"data {path}: {entry.name}"
    said: dict[str, Any] = {}
    try:
        label = told["cls"].decode().strip() if "cls" in told else None
        if "json" in told:
            said = dict(parse_json(told["json"]))
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: what is said of it cannot be read ({error})") from error
    if label is None:
        label = next((str(said[name]) for name in (*LABELS, "cls") if name in said), None)
    if labelled and not label:
        raise DataError(
            f"{where} is without its label: expected a file of the same key ending in .cls, or in "
            f".json with one of {', '.join(LABELS)}"
        )
    if group_column is not None and group_column not in said:
        raise DataError(f"{where}: the .json of its key names no {group_column!r}, its group")
    group = None if group_column is None else str(said[group_column])
    return Sample(entry.name, one_spelling(label or "") if labelled else "", group)


def _in_class_folders(images: Sequence[_Entry], path: Place) -> tuple[list[_Entry], list[Sample]]:
    """Read the classes off the folders within the shards; a folder above all is passed over."""
    samples = []
    for one in images:
        folder = one.member.rpartition("/")[0].rpartition("/")[2]
        if not folder:
            raise DataError(
                f"data {path}: {one.name} is without its label: expected a file of the same key "
                f"ending in .cls or .json, as WebDataset has it, or CLASS/IMAGE"
            )
        samples.append(Sample(one.name, one_spelling(printable(folder))))
    return list(images), samples


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns of a Parquet file hold what.

    Attributes:
        image: the images.
        nested: whether they are structs with ``bytes``, as Hugging Face's data sets have them.
        label: the classes, or None.
        names: of the classes that numbers stand for, or None.
    """

    image: str
    nested: bool
    label: str | None
    names: tuple[str, ...] | None

    @classmethod
    def of(cls, store: DataStore, name: str, path: Place) -> _Columns:
        """Look at a file's schema.

        Raises:
            DataError: it is no Parquet file, or no column holds images.
        """
        with _parquet(store, name, path) as file:
            schema = file.schema_arrow
        import pyarrow as pa

        known = {field.name.lower(): field for field in schema}
        for wanted in IMAGES:
            field = known.get(wanted)
            if field is None:
                continue
            nested = pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
            if nested or pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
                label = next((known[one].name for one in LABELS if one in known), None)
                return cls(field.name, nested, label, _class_names(schema, label))
        raise DataError(
            f"data {path}: {name} has no column of images: expected one called image that holds "
            f"their bytes (a .jpg, a .png); columns there: {', '.join(schema.names) or 'none'}"
        )


def _class_names(schema: Any, label: str | None) -> tuple[str, ...] | None:  # noqa: ANN401
    """Return the names of classes as Hugging Face's data sets write them beside the columns."""
    try:
        said = parse_json((schema.metadata or {})[b"huggingface"])
        names = said["info"]["features"][label]["names"]
        return tuple(map(str, names))
    except (KeyError, TypeError, ValueError):
        return None


def _parquet(store: DataStore, name: str, path: Place) -> Any:  # noqa: ANN401
    """Open a Parquet file."""
    with needs("pyarrow", extra="parquet", purpose=f"Reading {name}"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        return pq.ParquetFile(store.open(name))
    except FileNotFoundError:
        raise DataError(f"data {path}: there is no {name}") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"data {path}: {name} is no readable Parquet file ({said})") from error


class ParquetData(DataSource):
    """Parquet files with a column of images as bytes and one of labels.

    Images of a row group are read together, and the last few groups kept: whoever reads in order
    reads each once.
    """

    def __init__(
        self, path: Place, shards: Shards, *, group_column: str | None, labelled: bool
    ) -> None:
        self._store, self._names = store_of(shards.folder), shards.names
        self._columns = _Columns.of(self._store, self._names[0], path)
        if labelled and self._columns.label is None:
            raise DataError(
                f"data {path}: {self._names[0]} has no column of labels: expected one called "
                f"{', '.join(LABELS)}"
            )
        samples: list[Sample] = []
        starts, groups = [0], []
        for number, name in enumerate(self._names):
            found, sizes = self._read_file(name, path, group_column, labelled=labelled)
            samples += found
            groups += [(number, group) for group in range(len(sizes))]
            starts += sizes
        super().__init__(path, samples)
        self._starts = np.cumsum(starts)
        self._groups = np.array(groups, np.int64).reshape(-1, 2)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """What is kept of the files stays here."""
        left = ("_lock", "_kept")
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take in what another process sent."""
        self.__dict__.update(state)
        self._reset()

    def _read_file(
        self, name: str, path: Place, group_column: str | None, *, labelled: bool
    ) -> tuple[list[Sample], list[int]]:
        """Read all of one file but its images: samples, and the rows of each row group."""
        columns = self._columns
        with _parquet(self._store, name, path) as file:
            there = file.schema_arrow.names
            wanted = [columns.label if labelled else None, group_column, _file_column(there)]
            for one in (columns.image, *wanted):
                if one is not None and one not in there:
                    raise DataError(
                        f"data {path}: {name} has no column {one!r}; columns there: "
                        f"{', '.join(there)}"
                    )
            about = file.metadata
            sizes = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
            for group in range(about.num_row_groups):
                _check_group(about.row_group(group), columns.image, f"data {path}: {name}")
            table = file.read(columns=[one for one in dict.fromkeys(wanted) if one is not None])
        labels, clips, files = (
            [None] * sum(sizes) if one is None else table.column(one).to_pylist() for one in wanted
        )
        samples = [
            self._sample(f"{name}/{row:07d}" if it is None else f"{name}/{it}", one, clip, path)
            for row, (one, clip, it) in enumerate(zip(labels, clips, files, strict=True))
        ]
        if labelled and any(one is None for one in labels):
            raise DataError(f"data {path}: {samples[labels.index(None)].file} has no label")
        return samples, sizes

    def _sample(self, name: str, label: Any, group: Any, path: Place) -> Sample:  # noqa: ANN401
        names = self._columns.names
        if names is not None and isinstance(label, int):
            if not 0 <= label < len(names):
                raise DataError(f"data {path}: {name}: label {label}, of {len(names)} classes")
            label = names[label]
        said = "" if label is None else one_spelling(str(label))
        return Sample(printable(name), said, None if group is None else str(group))

    def read(self, index: int) -> bytes:
        """Return the bytes of one image."""
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        with self._lock:
            if place not in self._kept:
                self._kept[place] = self._images(place)
                while len(self._kept) > GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(place)
            images = self._kept[place]
        found = images[index - int(self._starts[place])].as_py()
        if self._columns.nested and found is not None:
            found = found["bytes"]
        if found is None:
            raise OSError("the row holds no bytes")
        return bytes(found)

    def _images(self, place: int) -> Any:  # noqa: ANN401
        shard, group = map(int, self._groups[place])
        with _parquet(self._store, self._names[shard], self.path) as file:
            try:
                return file.read_row_group(group, columns=[self._columns.image]).column(0)
            except (OSError, ValueError) as error:
                raise OSError(f"row group {group} is damaged ({error})") from error

    def _state(self, index: int) -> str:
        return f"{self._store.states(self._names)} {index}"

    def _states(self) -> Sequence[str]:
        files = self._store.states(self._names)
        rows = np.diff(self._starts)
        return [
            f"{files[shard]} {group} {row}"
            for (shard, group), count in zip(self._groups.tolist(), rows.tolist(), strict=True)
            for row in range(count)
        ]


def _file_column(names: Sequence[str]) -> str | None:
    return next((one for one in names if one.lower() in FILES), None)


def _check_group(group: Any, image: str, where: str) -> None:  # noqa: ANN401
    """Refuse row groups whose images, or names, do not fit into memory together."""
    columns = [
        group.column(place)
        for place in range(group.num_columns)
        if group.column(place).path_in_schema.split(".")[0] == image
    ]
    packed = sum(one.total_compressed_size for one in columns)
    if group.num_rows > max(MANY_ROWS, packed):  # a few bytes say "and so on" for millions
        raise DataError(f"{where} has {group.num_rows} rows in {packed} bytes: no images do")
    size = sum(one.total_uncompressed_size for one in columns)
    if size > MOST_GROUP_BYTES:
        raise DataError(
            f"{where} has row groups of {size / 1e9:.1f} GB, which are read as a whole: write it "
            f"anew with row_group_size=1000"
        )
