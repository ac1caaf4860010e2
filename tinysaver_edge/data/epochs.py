"""Epochs as data: one folder of frames or one video each, in order, with the time of every frame.

`collect --epochs` writes such folders. The classes come from a table of spans of time, ``epoch,
from_s, to_s, class``, or ``recording, from_s, …`` where the epochs were cut out of recordings.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from tinysaver_edge._support.files import library_path, parse_json, read_file, read_text
from tinysaver_edge._support.packages import opencv
from tinysaver_edge.data.collection import EPOCH, Collection, epoch_sha256, find_collection
from tinysaver_edge.data.files import CsvLineError, csv_rows
from tinysaver_edge.data.images import decode_image, is_image
from tinysaver_edge.data.source import DataSource, Sample, by_number
from tinysaver_edge.errors import DataError
from tinysaver_edge.preprocess import Frame

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts")

VIDEO_PICTURE = ".png"
"""What a frame of a video is given as, where a file is wanted."""

AS_LONG = 0.1
"""By what share the length of an epoch may differ from the others'."""

KEPT_FRAMES = 64
"""Decoded frames of a video that are kept, for threads that ask for them a little out of order."""

COLUMNS = ("epoch", "from_s", "to_s", "class")

RECORDING = "recording"
"""In place of the first of them, where the seconds are those of the recordings cut into epochs."""


class _EpochFile(BaseModel):
    """What `epoch.json` says, as far as it is needed here."""

    model_config = ConfigDict(extra="ignore")

    files: list[str]
    seconds: list[float]
    length_s: float | None = None
    source: str | None = None
    start: str | None = None
    moment_s: float | None = None
    recorded_s: float | None = None


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch.

    Attributes:
        files: names of its frames in the folder, in order; empty for a video.
        seconds: when each frame was taken, from the epoch's start, rising.
        source: the camera or recording, None where nobody says.
        recorded_s: of one that was cut out of a recording: the time of its first frame in that.
    """

    name: str
    path: Path
    files: tuple[str, ...]
    seconds: tuple[float, ...]
    length_s: float
    source: str | None = None
    moment_s: float | None = None
    recorded_s: float | None = None


class EpochData(DataSource):
    """The frames of all epochs, one after the other: epoch by epoch, each in order.

    Attributes:
        epoch_s: how long one lasts, in seconds.
        times_s: ``(n,)`` when each frame was taken, from its epoch's start.
        numbers: ``(n,)`` its epoch's position in `epochs`.
        collection: what the folder says of how they were drawn; None where it says nothing.
    """

    # Who makes epochs draws them, or says how; that their frames look alike is the point.
    independent = True

    def __init__(
        self,
        path: Path,
        epochs: Sequence[Epoch],
        classes: Sequence[str],
        *,
        collection: Collection | None = None,
    ) -> None:
        self.epochs = tuple(epochs)
        self.epoch_s = max(one.length_s for one in epochs)
        self.times_s = np.array([at for one in epochs for at in one.seconds])
        self.numbers = np.repeat(np.arange(len(epochs)), [len(one.seconds) for one in epochs])
        self.collection = collection
        self._starts = np.concatenate(([0], np.cumsum([len(one.seconds) for one in epochs])))
        self._videos: dict[int, _Video] = {}
        self._lock = threading.Lock()
        names = (
            f"{one.name}/{one.files[place] if one.files else place}"
            for one in epochs
            for place in range(len(one.seconds))
        )
        groups = (epochs[number].name for number in self.numbers.tolist())
        super().__init__(path, [Sample(*row) for row in zip(names, classes, groups, strict=True)])

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process open the same epochs."""
        classes = [sample.label for sample in self.samples]
        made = partial(EpochData, collection=self.collection)
        return made, (self.path, self.epochs, classes)

    def read(self, index: int) -> bytes:
        """Return the bytes of one frame's file; of a video, the frame as PNG.

        Raises:
            OSError: it cannot be read.
        """
        epoch, place = self._place(index)
        if epoch.files:
            return read_file(epoch.path / epoch.files[place])
        frame = self.frame(index)
        if frame is None:
            raise OSError(f"epoch {epoch.name}: frame {place} cannot be decoded")
        encoded: bytes = opencv("Writing pictures").imencode(VIDEO_PICTURE, frame)[1].tobytes()
        return encoded

    def frame(self, index: int) -> Frame | None:
        """Return one frame decoded, or None when it cannot be read or is damaged."""
        epoch, place = self._place(index)
        if not epoch.files:
            return self._video(int(self.numbers[index]), epoch).frame(place)
        try:
            return decode_image(self.read(index))
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Close what is open. Legal in every state."""
        with self._lock:
            videos, self._videos = list(self._videos.values()), {}
        for video in videos:
            video.close()

    def _place(self, index: int) -> tuple[Epoch, int]:
        number = int(self.numbers[index])
        return self.epochs[number], index - int(self._starts[number])

    def _video(self, number: int, epoch: Epoch) -> _Video:
        """Return an epoch's video, the one before it being let go of."""
        with self._lock:
            for other in [one for one in self._videos if abs(one - number) > 1]:
                self._videos.pop(other).close()
            return self._videos.setdefault(number, _Video(epoch.path))

    def _state(self, index: int) -> str:
        epoch, place = self._place(index)
        path = epoch.path / epoch.files[place] if epoch.files else epoch.path
        try:
            status = path.stat()
        except OSError:
            return "missing"
        return f"{status.st_size} {status.st_mtime_ns} {epoch.seconds[place]!r}"


class _Video:
    """Frames of a video by their number, read forwards."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._capture: Any = None
        self._next = 0
        self._kept: dict[int, Frame] = {}
        self._lock = threading.Lock()

    def frame(self, place: int) -> Frame | None:
        with self._lock:
            if place not in self._kept and place < self._next:
                self._rewind()
            if self._capture is None:
                self._capture = opencv("Reading videos").VideoCapture(str(self._path))
            while self._next <= place:
                read, frame = self._capture.read()
                if not read:
                    return None
                self._kept[self._next] = frame
                self._kept.pop(self._next - KEPT_FRAMES, None)
                self._next += 1
            return self._kept.get(place)

    def _rewind(self) -> None:
        self._capture.release()
        self._capture, self._next = None, 0
        self._kept.clear()

    def close(self) -> None:
        with self._lock:
            if self._capture is not None:
                self._rewind()


def open_epochs(path: Path, *, spans: Path | None = None) -> EpochData:
    """Open a folder of epochs.

    Args:
        path: holds one folder of frames with an ``epoch.json``, or one video, for each epoch.
        spans: the classes' table; None where the large model is the reference.

    Raises:
        DataError: there are none, one cannot be read or does not fit the others, or the table
            does not fit them.
    """
    epochs = _found(path)
    collection = _collection(path, epochs)
    if collection is None:
        _check_apart(epochs)
    classes = [""] * sum(len(one.seconds) for one in epochs)
    if spans is not None:
        what, rows = _rows(spans)
        named = _spans(spans, rows, what=what, names=[_called(one, what, spans) for one in epochs])
        classes = [
            name
            for one in epochs
            for name in _classes_of(one, named[_called(one, what, spans)], what)
        ]
    return EpochData(path, epochs, classes, collection=collection)


def _found(path: Path) -> list[Epoch]:
    if not path.is_dir():
        raise DataError(f"epochs {path}: no such folder; it holds one folder or video an epoch")
    entries = sorted(
        (one for one in path.iterdir() if not one.name.startswith(".")),
        key=lambda one: by_number(one.name),
    )
    epochs = [
        epoch_of(one) if one.is_dir() else _from_video(one)
        for one in entries
        if one.is_dir() or one.suffix.lower() in VIDEO_SUFFIXES
    ]
    if not epochs:
        raise DataError(
            f"epochs {path}: holds no epochs; expected one folder of frames with an {EPOCH}, or "
            f"one video ({', '.join(VIDEO_SUFFIXES)}), for each: collect --epochs writes them"
        )
    for epoch in epochs:
        if len(epoch.seconds) < 2:
            raise DataError(
                f"epoch {epoch.name}: has {len(epoch.seconds)} frame{'s' * (not epoch.seconds)}; "
                "within an epoch a frame is held against those before it: give at least 2"
            )
        first, last, length_s = epoch.seconds[0], epoch.seconds[-1], epoch.length_s
        if not (0 < length_s < math.inf and first >= 0 and last <= length_s + 1e-5):
            raise DataError(
                f"epoch {epoch.name}: lasts {length_s:g} s, and has frames from {first:g} to "
                f"{last:g} s: they must lie within it"
            )
    middle = float(np.median([one.length_s for one in epochs]))
    for epoch in epochs:
        if abs(epoch.length_s - middle) > AS_LONG * middle:
            raise DataError(
                f"epoch {epoch.name}: lasts {epoch.length_s:.3g} s and others {middle:.3g} s; what "
                "is certified holds for epochs of one length: cut them alike, or leave it out"
            )
    return epochs


def epoch_of(path: Path) -> Epoch:
    """Read a folder of frames with an `epoch.json`, an epoch or a whole recording.

    Raises:
        DataError: it says nothing of the frames' times, or nothing that can be so.
    """
    said = _said(path)
    files, seconds = said.files, said.seconds
    if len(files) != len(seconds):
        raise DataError(
            f"epoch {path.name}: {EPOCH} names {len(files)} files and {len(seconds)} seconds: "
            "it needs the time of each"
        )
    if not all(math.isfinite(at) for at in seconds) or any(b <= a for a, b in pairwise(seconds)):
        raise DataError(f"epoch {path.name}: the seconds in {EPOCH} must rise from frame to frame")
    for name in files:
        if "/" in name or "\\" in name or not is_image(name) or not (path / name).is_file():
            raise DataError(f"epoch {path.name}: {EPOCH} names {name!r}, which is no image there")
    step = (seconds[-1] - seconds[0]) / (len(seconds) - 1) if len(seconds) > 1 else 0.0
    length_s = said.length_s if said.length_s else (seconds[-1] + step if seconds else 0.0)
    drawn = (said.source, said.moment_s, said.recorded_s)
    return Epoch(path.name, path, tuple(files), tuple(seconds), length_s, *drawn)


def _said(path: Path) -> _EpochFile:
    place = path / EPOCH
    if not place.is_file():
        raise DataError(
            f"epoch {path.name}: has no {EPOCH}, which says when each frame was taken: "
            '{"files": ["0.png", …], "seconds": [0.0, …]}; collect --epochs writes it'
        )
    try:
        return _EpochFile.model_validate(parse_json(read_file(place)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise DataError(
            f"epoch {path.name}: {EPOCH} is damaged ({where}: {first['msg']})"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"epoch {path.name}: {EPOCH} cannot be read ({error})") from None


def _from_video(path: Path) -> Epoch:
    cv2 = opencv("Reading videos")
    capture = cv2.VideoCapture(library_path(path))
    try:
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        count = 0
        while capture.grab():
            count += 1
    finally:
        capture.release()
    if not count:
        raise DataError(f"epoch {path.name}: the video cannot be read, or holds no frames")
    if not 0.01 <= rate <= 1000:
        raise DataError(
            f"epoch {path.name}: the video does not say how many frames a second it has"
        )
    seconds = tuple(place / rate for place in range(count))
    return Epoch(path.name, path, (), seconds, count / rate)


def _collection(path: Path, epochs: Sequence[Epoch]) -> Collection | None:
    """Return how the epochs were drawn, where the folder says so and holds just these.

    Raises:
        DataError: it says so, and holds others, not all, or some that were changed.
    """
    folder = find_collection(path)
    if folder is None:
        return None
    collection = Collection.read(folder)
    drawn = {one.file for one in collection.written}
    here = {one.name for one in epochs}
    if drawn != here:
        odd = sorted(drawn ^ here)[0]
        what = "is missing" if odd in drawn else "was not collected"
        raise DataError(
            f"epochs {path}: {odd} {what}; who leaves some out or adds others has chosen, and a "
            "choice is no draw"
        )
    for one in collection.written:
        if not _as_collected(path / one.file, one.sha256):
            raise DataError(
                f"epochs {path}: {one.file} is not as it was collected: its moment says nothing of "
                "other frames; collect anew"
            )
    return collection


def _as_collected(folder: Path, sha256: str) -> bool:
    try:
        return epoch_sha256(folder) == sha256
    except OSError:
        return False


def _check_apart(epochs: Sequence[Epoch]) -> None:
    """Refuse epochs of one source that share moments: these were not drawn, nobody says so."""
    placed = [one for one in epochs if one.source is not None and one.moment_s is not None]
    placed.sort(key=lambda one: (one.source, one.moment_s))
    for _, of_source in groupby(placed, key=lambda one: one.source):
        for one, other in pairwise(of_source):
            assert one.moment_s is not None
            assert other.moment_s is not None
            if other.moment_s < one.moment_s + one.length_s - 1e-6:
                raise DataError(
                    f"epochs {one.name} and {other.name}: overlap in {one.source}; epochs are "
                    "counted as independent: leave one out"
                )


@dataclass(frozen=True, slots=True)
class _Span:
    """A stretch of an epoch and what is to be seen in it."""

    from_s: float
    to_s: float
    name: str
    line: int


def _called(epoch: Epoch, what: str, path: Path) -> str:
    """Return what a table of spans calls an epoch: by itself, or by the recording it is of."""
    if what == COLUMNS[0]:
        return epoch.name
    if epoch.source is None or epoch.recorded_s is None:
        raise DataError(
            f"labels {path}: speaks of recordings, and epoch {epoch.name} does not say where in "
            f"one it was cut out: name the column {COLUMNS[0]}"
        )
    return epoch.source


def _spans(
    path: Path, rows: Iterator[tuple[int, list[str]]], *, what: str, names: Sequence[str]
) -> Mapping[str, list[_Span]]:
    """Read the table of spans, by epoch or recording."""
    spans: dict[str, list[_Span]] = {name: [] for name in names}
    for line, row in rows:
        epoch, begin, end, name = row
        if epoch not in spans and what == COLUMNS[0]:
            raise DataError(f"labels {path}, line {line}: there is no epoch {epoch!r}")
        if epoch not in spans:
            known = ", ".join(sorted(spans))
            raise DataError(
                f"labels {path}, line {line}: there is no recording {epoch!r}, but {known}"
            )
        try:
            span = _Span(float(begin), float(end), name, line)
        except ValueError:
            raise DataError(
                f"labels {path}, line {line}: from_s and to_s are seconds, not {begin!r} and "
                f"{end!r}"
            ) from None
        if not (span.from_s < span.to_s and name):
            raise DataError(f"labels {path}, line {line}: needs a class, and from_s before to_s")
        spans[epoch].append(span)
    for epoch, its in spans.items():
        its.sort(key=lambda one: one.from_s)
        for one, other in pairwise(its):
            if other.from_s < one.to_s:
                raise DataError(
                    f"labels {path}, lines {one.line} and {other.line}: overlap in {what} {epoch}"
                )
    return spans


def _rows(path: Path) -> tuple[str, Iterator[tuple[int, list[str]]]]:
    """Return what the table is about, and its rows, each with the cells of `COLUMNS`."""
    try:
        rows = list(csv_rows(read_text(path).splitlines()))
        head = [cell.strip().lower() for cell in (rows[0][1] if rows else [""])]
        what = RECORDING if RECORDING in head else COLUMNS[0]
        columns = (what, *COLUMNS[1:])
        if not set(columns) <= set(head):
            raise DataError(
                f"labels {path}: columns {', '.join(head) or 'none'}; expected "
                f"{','.join(COLUMNS)}, or {RECORDING} in place of {COLUMNS[0]}"
            )
        places = [head.index(name) for name in columns]
        for line, cells in rows[1:]:
            if any(cells) and len(cells) <= max(places):
                raise DataError(f"labels {path}, line {line}: has too few cells")
        found = (
            (line, [cells[at].strip() for at in places]) for line, cells in rows[1:] if any(cells)
        )
        return what, found
    except CsvLineError as error:
        raise DataError(f"labels {path}, line {error.line}: no CSV ({error})") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no text in UTF-8"
        raise DataError(f"labels {path}: cannot be read ({why})") from None


def _classes_of(epoch: Epoch, its: Sequence[_Span], what: str) -> Iterator[str]:
    starts = [one.from_s for one in its]
    begin_s = 0.0 if what == COLUMNS[0] else epoch.recorded_s or 0.0
    for second in epoch.seconds:
        at = begin_s + second
        place = bisect_right(starts, at) - 1
        if place < 0 or at >= its[place].to_s:
            raise DataError(
                f"epoch {epoch.name}: the table of labels has no span for {at:.3f} s"
                f"{'' if what == COLUMNS[0] else f' of {epoch.source}'}; every frame "
                "needs a class: spans reach from from_s up to, not including, to_s"
            )
        yield its[place].name
