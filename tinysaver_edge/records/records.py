"""Records: what one model answered on one data set, on disk, whole or not there."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import (
    atomic_write,
    parse_json,
    read_arrays,
    read_file,
    write_text,
)
from tinysaver_edge._support.numbers import percent
from tinysaver_edge.data.alike import (
    FEWEST,
    LEAST_WEIGHT,
    ORDERED,
    PAIRS,
    leading_group,
    random_pairs,
)
from tinysaver_edge.errors import InputError, RecordError
from tinysaver_edge.outputs import Outputs, sample_hashes

_TOP_CLASS = "_class"
MOST_CLASSES = 2**31
"""No index of a class is as large."""


@dataclass(frozen=True, slots=True)
class RecordKey:
    """All that a record's numbers depend on: equal keys, equal numbers."""

    model_sha256: str
    preprocess: Mapping[str, Any]
    engine: str
    device: str
    precision: str
    data: str

    @property
    def digest(self) -> str:
        """A hash of all of it."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Record:
    """What one model answered on every sample of a data set.

    Attributes:
        outputs: its answers, ``(n, …)``.
        skipped: samples that could not be read; their rows mean nothing.
        key: what the numbers depend on; None for records that users bring.
    """

    name: str
    outputs: Outputs
    skipped: tuple[int, ...] = ()
    key: RecordKey | None = None


def record_path(folder: Path, name: str) -> Path:
    """Return where the record of a model lies."""
    return folder / f"{name}.npz"


def load_record(folder: Path, name: str) -> Record:
    """Read a record, the user's own or one that this package wrote.

    Args:
        folder: holds ``NAME.npz`` with ``logits`` ``(n, classes)``, or with ``top<K>_class`` and
            ``top<K>_prob`` ``(n, K)``.
        name: the model's name.

    Raises:
        RecordError: it is missing, damaged or of another form.
    """
    path = record_path(folder, name)
    if not path.is_file():
        known = ", ".join(record_names(folder)) or "none"
        raise RecordError(f"record {path}: no such file; records there: {known}")
    try:
        tables = read_arrays(path)
    except (OSError, ValueError) as error:
        raise RecordError(f"record {path}: damaged or not an .npz file ({error})") from error
    if "" in tables:
        raise RecordError(f"record {path}: damaged or not an .npz file (a single array)")
    skipped, key = _read_sidecar(path)
    samples = min((len(table) for table in tables.values() if table.ndim), default=0)
    if not all(0 <= index < samples for index in skipped):
        sidecar = path.with_suffix(".json")
        raise RecordError(f"record {sidecar}: skips samples that are not there; delete it")
    return Record(name=name, outputs=_outputs(tables, path, skipped), skipped=skipped, key=key)


def _outputs(tables: dict[str, NDArray[Any]], path: Path, skipped: tuple[int, ...]) -> Outputs:
    for name, table in tables.items():
        if name not in ("logits", "margin") and not name.startswith("top"):
            continue
        whole = name.endswith(_TOP_CLASS)
        if table.dtype.kind not in "iuf" or (whole and not _are_whole(table)):
            kind = "whole numbers" if whole and table.dtype.kind == "f" else "numbers"
            raise RecordError(f"record {path}: {name} is of {table.dtype}; expected {kind}")
    try:
        if "logits" in tables:
            logits = tables["logits"]
            if skipped:
                logits = logits.copy()
                logits[list(skipped)] = 0
            return Outputs.from_logits(logits)
        names = [key for key in tables if key.startswith("top") and key.endswith(_TOP_CLASS)]
        if len(names) == 1:
            stem = names[0].removesuffix(_TOP_CLASS)
            if f"{stem}_prob" in tables:
                return Outputs.from_topk(
                    tables[names[0]], tables[f"{stem}_prob"], margin=tables.get("margin")
                )
    except (InputError, ValueError, TypeError) as error:  # the latter two: no numbers
        raise RecordError(f"record {path}: {error}") from error
    raise RecordError(
        f"record {path}: holds {', '.join(tables) or 'nothing'}; expected logits (n, classes), "
        f"or top5_class and top5_prob (n, 5)"
    )


def _tables(outputs: Outputs) -> dict[str, NDArray[Any]]:
    """Return answers as a record has them."""
    if outputs.logits is not None:
        return {"logits": outputs.logits}
    assert outputs.top_class is not None
    assert outputs.top_prob is not None
    stem = f"top{outputs.width}"
    tables: dict[str, NDArray[Any]] = {
        f"{stem}{_TOP_CLASS}": outputs.top_class.astype(np.int32),
        f"{stem}_prob": outputs.top_prob,
    }
    if outputs.margin is not None:
        tables["margin"] = outputs.margin
    return tables


def _read_sidecar(path: Path) -> tuple[tuple[int, ...], RecordKey | None]:
    """Return which samples a record skipped and its key, where it has a sidecar."""
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return (), None
    try:
        content = parse_json(read_file(sidecar))
        skipped = tuple(int(index) for index in content.get("skipped", ()))
        key = RecordKey(**content["key"]) if "key" in content else None
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise RecordError(f"record {sidecar}: damaged ({error}); delete it") from error
    return skipped, key


def record_names(folder: Path) -> list[str]:
    """Return the names of the records in a folder, sorted.

    Raises:
        RecordError: there is no such folder.
    """
    if not folder.is_dir():
        raise RecordError(f"records {folder}: no such folder")
    return sorted(path.stem for path in folder.glob("*.npz") if not path.name.startswith("."))


_CHUNKS = re.compile(r"key|\d{9}\.npz|tmp\w+|\..+\.[0-9a-f]{12}")
"""What lies in a folder of chunks."""


@dataclass(slots=True)
class RecordWriter:
    """Takes a model's answers in chunks and keeps each, so that a killed run resumes.

    Chunks lie in ``NAME.partial/`` beside the record, with the key they were made for; a chunk of
    another key is thrown away. Every file appears whole or not at all.

    Attributes:
        key: what the numbers depend on.
    """

    folder: Path
    name: str
    key: RecordKey
    samples: int
    chunk: int = 512
    _partial: Path = field(init=False)

    def __post_init__(self) -> None:
        self._partial = self.folder / f"{self.name}.partial"
        path = record_path(self.folder, self.name)
        if path.is_file() and not (path.with_suffix(".json").is_file() or self._partial.is_dir()):
            raise RecordError(
                f"record {path}: is there and was not measured here, or it would have a "
                f"{self.name}.json; it would be lost: move it, or name another folder"
            )
        marker = self._partial / "key"
        # Without a key, as a kill while chunks were being dropped leaves them, nobody vouches.
        if self._partial.is_dir() and not (marker.is_file() and marker.read_text() == self._stamp):
            if any(not _CHUNKS.fullmatch(one.name) for one in self._partial.iterdir()):
                raise RecordError(
                    f"record {self._partial}: a folder of something else is there: move it, or "
                    "name another folder"
                )
            self._discard()
        write_text(marker, self._stamp)

    @property
    def _stamp(self) -> str:
        return f"{self.key.digest} {self.samples} {self.chunk}"

    @property
    def starts(self) -> range:
        """First sample of every chunk."""
        return range(0, self.samples, self.chunk)

    def has(self, start: int) -> bool:
        """Whether the chunk that begins there is kept already."""
        return self._chunk_path(start).is_file()

    def put(self, start: int, outputs: Outputs, skipped: list[int]) -> None:
        """Keep one chunk.

        Args:
            start: its first sample.
            outputs: ``(chunk, …)``; rows of skipped samples mean nothing.
            skipped: samples, counted from 0 over the whole data set, that could not be read.
        """
        with atomic_write(self._chunk_path(start)) as file:
            np.savez(file, **_tables(outputs), skipped=np.array(skipped, np.int64))  # type: ignore[arg-type]

    def finish(self) -> Record:
        """Join the chunks into the record, write it and drop them.

        Raises:
            RecordError: a chunk is damaged; it is dropped, so that the next run makes it anew.
        """
        skipped: list[int] = []
        path = record_path(self.folder, self.name)
        with tempfile.TemporaryDirectory(dir=self._partial) as folder:
            tables = self._joined(Path(folder), skipped)
            path.with_suffix(".json").unlink(missing_ok=True)  # an old key must not vouch for this
            with atomic_write(path) as file:
                np.savez(file, **tables)  # type: ignore[arg-type]
        content = {
            "schema_version": 1,
            "model": self.name,
            "samples": self.samples,
            "skipped": skipped,
            "key": asdict(self.key),
        }
        write_text(path.with_suffix(".json"), json.dumps(content, indent=2) + "\n")
        self._discard()
        return load_record(self.folder, self.name)

    def _joined(self, folder: Path, skipped: list[int]) -> dict[str, NDArray[Any]]:
        """Copy every chunk to its place in tables on disk: the whole may not fit into memory."""
        tables: dict[str, NDArray[Any]] = {}
        for start in self.starts:
            part, missing = self._read(start)
            skipped.extend(missing)
            for name, rows in part.items():
                if name not in tables:
                    shape = (self.samples, *rows.shape[1:])
                    tables[name] = np.lib.format.open_memmap(
                        folder / f"{name}.npy", "w+", rows.dtype, shape
                    )
                if tables[name].shape[1:] != rows.shape[1:]:
                    wide = sorted({tables[name].shape[1], rows.shape[1]})
                    raise RecordError(f"record {self.name}: chunks of {wide} classes")
                tables[name][start : start + len(rows)] = rows
        return tables

    def _read(self, start: int) -> tuple[dict[str, NDArray[Any]], list[int]]:
        path = self._chunk_path(start)
        try:
            arrays = read_arrays(path)
            skipped = arrays.pop("skipped").tolist()
            if not arrays:
                raise ValueError("no answers")
            return arrays, skipped
        except (OSError, ValueError, KeyError) as error:
            path.unlink(missing_ok=True)
            raise RecordError(f"chunk {path}: damaged ({error}); run again to remake it") from error

    def _chunk_path(self, start: int) -> Path:
        return self._partial / f"{start:09d}.npz"

    def _discard(self) -> None:
        shutil.rmtree(self._partial)


def is_finished(folder: Path, name: str, key: RecordKey) -> bool:
    """Whether there is a record of exactly this key; its numbers are not read."""
    path = record_path(folder, name)
    try:
        return path.is_file() and _read_sidecar(path)[1] == key
    except RecordError:
        return False


def finished_record(folder: Path, name: str, key: RecordKey) -> Record | None:
    """Return the record of exactly this key, or None when it has to be made."""
    if not is_finished(folder, name, key):
        return None
    try:
        return load_record(folder, name)
    except RecordError:
        return None


def read_groups(path: Path) -> NDArray[np.str_]:
    """Read which clip or scene each sample of records is of: numbers or names, ``(n,)``.

    Raises:
        RecordError: the file is missing, damaged or not one name a sample.
    """
    groups = _read_column(path, what="groups")
    if groups.dtype.kind not in "iuU":
        raise RecordError(f"groups {path}: {groups.dtype}; expected whole numbers or names")
    return groups.astype(np.str_)


def read_labels(path: Path) -> NDArray[np.int64]:
    """Read the true classes of records.

    Raises:
        RecordError: the file is missing, damaged or not one whole number a sample.
    """
    labels = _read_column(path, what="labels")
    if np.issubdtype(labels.dtype, np.floating) and _are_whole(labels):
        labels = labels.astype(np.int64)
    if (
        not np.issubdtype(labels.dtype, np.integer)
        or not len(labels)
        or not 0 <= labels.min() <= labels.max() < MOST_CLASSES
    ):
        raise RecordError(
            f"labels {path}: {labels.dtype} of {len(labels)}; expected whole numbers from 0"
        )
    return labels.astype(np.int64)


def _are_whole(values: NDArray[Any]) -> bool:
    """Whether floats are whole numbers that an index can be, as spreadsheets write them."""
    whole = np.isfinite(values) & (values == np.round(values)) & (abs(values) < MOST_CLASSES)
    return bool(whole.all())


def _read_column(path: Path, *, what: str) -> NDArray[Any]:
    try:
        values = read_arrays(path).get("")
    except OSError as error:
        raise RecordError(f"{what} {path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise RecordError(f"{what} {path}: not an .npy file of numbers or names") from error
    if values is None or values.ndim != 1:
        raise RecordError(f"{what} {path}: expected one value a sample, (n,)")
    return values


@dataclass(frozen=True, slots=True)
class RepeatedRows:
    """Samples whose answers are an earlier one's, or much like the next one's.

    Attributes:
        copies: how many samples are answered as an earlier one is, to the last digit.
        samples: of how many.
        repeated: whether so many are that they cannot count as so many samples.
        order: how often a sample is answered more like the next than like another of its class,
            0..1, by all models on average; None where that cannot be told.
        example: positions of two that are equal; None without copies.
    """

    copies: int
    samples: int
    repeated: bool
    order: float | None
    example: tuple[int, int] | None

    @property
    def independent(self) -> bool:
        """Whether they may count as independent draws."""
        return not self.repeated and (self.order is None or self.order < ORDERED)

    @property
    def brief(self) -> str:
        """What was found, in a few words."""
        if self.repeated or self.order is None:
            return f"{self.copies} of {self.samples} samples are copies of others"
        return (
            f"in their order, {percent(self.order, 0)} of the samples are answered more like the "
            "next than like another of their class (50 % where they are independent)"
        )


def find_repeated(
    answers: Sequence[Outputs],
    labels: NDArray[np.int64],
    groups: NDArray[np.str_] | None = None,
) -> RepeatedRows:
    """Count the samples that every model answers as it answers an earlier one, or as the next.

    Samples of one group are not held against each other: groups are what is counted then, and one
    is a copy where most of its samples are of another's.

    Args:
        answers: each model's on the same n samples.
        labels: ``(n,)`` their classes.
        groups: ``(n,)`` clip or scene of each sample, or None.
    """
    rows, samples = sample_hashes(answers), answers[0].samples
    places, first = np.flatnonzero(rows), np.arange(samples)
    _, begins, which = np.unique(rows[places], return_index=True, return_inverse=True)
    first[places] = places[begins[which]]
    if groups is not None:
        first = np.where(groups[first] == groups, np.arange(samples), first)
    copied = np.flatnonzero(first != np.arange(samples))
    leaders = first if groups is None else leading_group(first, groups)
    sizes = np.bincount(leaders).astype(float)
    alone = bool(sizes.sum() ** 2 >= LEAST_WEIGHT * len(leaders) * (sizes**2).sum())
    found = [_order(one, labels) for one in answers] if groups is None else []
    orders = [one for one in found if one is not None]
    return RepeatedRows(
        copies=len(copied),
        samples=samples,
        repeated=not alone,
        order=sum(orders) / len(orders) if orders else None,
        example=(int(first[copied[0]]), int(copied[0])) if len(copied) else None,
    )


def _order(outputs: Outputs, labels: NDArray[np.int64]) -> float | None:
    """Return how often a sample is answered more like the next of its class than like another.

    Alike are answers whose probabilities overlap (Bhattacharyya 1943), over the best five classes.
    """
    ranked = np.argsort(labels, kind="stable")
    one, other = ranked[:-1], ranked[1:]
    one, other = (side[labels[one] == labels[other]] for side in (one, other))
    if len(one) < FEWEST:
        return None
    classes, best = outputs.top(min(5, outputs.width))
    roots = np.sqrt(np.maximum(best.astype(np.float64), 0))

    def overlap(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
        same = classes[one][:, :, None] == classes[other][:, None, :]
        return np.asarray(np.einsum("nab,na,nb->n", same, roots[one], roots[other]), np.float64)

    usual = np.sort(overlap(*random_pairs(labels)))
    if not len(usual):
        return None
    found = overlap(one[:PAIRS], other[:PAIRS])
    below = np.searchsorted(usual, found, "left") + np.searchsorted(usual, found, "right")
    return float(below.mean()) / (2 * len(usual))
