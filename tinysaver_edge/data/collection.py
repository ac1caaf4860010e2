"""What a folder of collected frames says of itself: which moments were drawn, what became of them.

`collection.json` and the table `moments.csv` lie beside the pictures. They make the plain
certificate valid for the period that they name: frames at independent, uniformly drawn moments are
independent draws from what the cameras saw in it, whatever the frames look like. A camera that
looks at one resting scene gives many pictures that are alike, and two moments may fall on one
frame: these are draws with replacement, and independent draws are what is counted. Neither file is
signed: who writes both anew is believed, as who says ``--independent`` is, and the certificate
states it. What is noticed is a folder that is no longer what was collected.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinysaver_edge._support.files import parse_json, read_file, read_text, sha256_of
from tinysaver_edge.data.files import CsvLineError, csv_rows
from tinysaver_edge.data.store import Place
from tinysaver_edge.errors import DataError, InputError

SUMMARY = "collection.json"
MOMENTS = "moments.csv"
EPOCH = "epoch.json"
"""In the folder of each collected epoch, beside its pictures."""

SCHEMA_VERSION: Literal[1] = 1

Encoding = Literal["png", "webp", "jpg"]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CollectedUnit(str, Enum):
    """What was drawn."""

    FRAMES = "frames"
    EPOCHS = "epochs"


class Design(str, Enum):
    """How it was drawn.

    Attributes:
        MOMENTS: at moments drawn uniformly and independently over the period.
        SHARE: of the frames that a stream decided, each with the same probability, by itself.
    """

    MOMENTS = "random moments"
    SHARE = "random share"


class CollectionState(str, Enum):
    """How far a collection is.

    Attributes:
        COLLECTING: under way, or killed: nothing is promised of it.
        STOPPED: ended before its time; its period ends there.
        FINISHED: all moments have come.
    """

    COLLECTING = "collecting"
    STOPPED = "stopped"
    FINISHED = "finished"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceEntry(_Strict):
    """One camera or recording, by the name that its user gave it.

    Attributes:
        name: that name, or ``camera1``; never an address.
        duration_s: of a recording; None for a camera.
        size_bytes: of a recording's file, to know it again.
        drawn: moments that fell on it and have come.
    """

    name: str
    duration_s: Seconds | None = None
    size_bytes: Count | None = None
    drawn: Count = 0
    written: Count = 0
    missed: dict[str, Count] = Field(default_factory=dict)


class CollectionFile(_Strict):
    """What `collection.json` holds.

    Attributes:
        design: how they were drawn.
        state: whether it is done.
        start: UTC, of a period in front of cameras; of recordings, when they were read.
        end: UTC, where it ended or is to end; of recordings None.
        period_s: how long the cameras were to be looked at; of recordings all their lengths.
        epoch_s: length of an epoch, or None.
        epoch_fps: frames a second that an epoch keeps at most; None for as many as came.
        share: of the frames, for `Design.SHARE`.
        seed: that the moments were drawn with.
        encoding: ending of the pictures, without a dot.
        cut: what was left out of each frame before it was written, in words; "" for nothing.
        moments_sha256: of the table, once the collection is done.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    created_by: str
    kind: CollectedUnit = CollectedUnit.FRAMES
    design: Design = Design.MOMENTS
    state: CollectionState
    start: datetime
    end: datetime | None = None
    period_s: Seconds
    epoch_s: Seconds | None = None
    epoch_fps: Seconds | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Count
    encoding: Encoding = "png"
    cut: str = ""
    drawn: Count = 0
    written: Count = 0
    missed: dict[str, Count] = Field(default_factory=dict)
    sources: tuple[SourceEntry, ...] = ()
    moments_sha256: str | None = None

    @property
    def recorded(self) -> bool:
        """Whether it was drawn from recordings."""
        return any(one.duration_s is not None for one in self.sources)

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        return self.model_dump_json(indent=1).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class DrawnMoment:
    """One moment that was drawn, and what became of it.

    Attributes:
        name: of the picture, without its ending, or of the epoch's folder: drawn too, so that the
            order of the names tells nothing of that of the moments.
        moment_s: seconds from the start of the period, or into the recording.
        sequence: the frame's number in a recording; None where it is not known beforehand.
        file: the picture, or the epoch's folder; "" where there is none.
        sha256: of that file, of an epoch see `epoch_sha256`; "" where there is none.
        missed: why there is none; "" where there is one, or the moment has not come.
    """

    name: str
    source: str
    moment_s: float
    sequence: int | None = None
    file: str = ""
    sha256: str = ""
    missed: str = ""

    @property
    def settled(self) -> bool:
        """Whether it has come."""
        return bool(self.file or self.missed)

    def taken(self, file: str, sha256: str) -> DrawnMoment:
        """Return it with its picture."""
        return replace(self, file=file, sha256=sha256, missed="")

    def missing(self, why: str) -> DrawnMoment:
        """Return it as missed."""
        return replace(self, file="", sha256="", missed=why)


_COLUMNS = ("name", "source", "moment_s", "sequence", "file", "sha256", "missed")


def moments_csv(moments: Iterable[DrawnMoment]) -> bytes:
    """Return the table of moments."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for one in moments:
        sequence = "" if one.sequence is None else one.sequence
        moment = f"{one.moment_s:.6f}"
        rows.writerow((one.name, one.source, moment, sequence, one.file, one.sha256, one.missed))
    return text.getvalue().encode("utf-8", "backslashreplace")


def read_moments(path: Path) -> list[DrawnMoment]:
    """Read the table of moments.

    Raises:
        DataError: it is not what `moments_csv` writes.
    """
    try:
        rows = list(csv_rows(read_text(path).splitlines()))
        if tuple(rows[0][1]) != _COLUMNS:
            raise ValueError("other columns")
        return [
            DrawnMoment(
                _inside(name),
                source,
                _seconds(at),
                int(number) if number else None,
                _inside(file) if file else "",
                sha256 if not file or _SHA256.fullmatch(sha256) else _refuse(sha256),
                missed,
            )
            for _, (name, source, at, number, file, sha256, missed) in rows[1:]
        ]
    except (OSError, ValueError, CsvLineError, IndexError, TypeError) as error:
        why = getattr(error, "strerror", None) or "damaged"
        raise DataError(f"{path}: the table of drawn moments cannot be read ({why})") from error


_SHA256 = re.compile("[0-9a-f]{64}")
_PLAIN = re.compile(r"\w[\w.-]*")


def _inside(name: str) -> str:
    """Return a name that is one of a file in the folder: whoever goes on writes to it."""
    return name if _PLAIN.fullmatch(name) else _refuse(name)


def _refuse(text: str) -> str:
    raise ValueError(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def epoch_sha256(folder: Path) -> str:
    """Return one hash of all files of an epoch, by their names."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Collection:
    """A folder that was collected.

    Attributes:
        folder: where it lies.
        moments: every moment that was drawn.
    """

    folder: Path
    file: CollectionFile
    moments: Sequence[DrawnMoment]

    @classmethod
    def read(cls, folder: Path) -> Collection:
        """Read what a folder says of itself, and hold its two files against each other.

        Raises:
            DataError: they are damaged, of a newer release, unfinished, or do not fit each other.
        """
        place = folder / SUMMARY
        file = read_summary(place)
        if file.state is CollectionState.COLLECTING:
            raise DataError(
                f"{place}: the collection is not finished: the command that made it, called again "
                f"with the same folder, goes on, and ends it in time or at Ctrl-C"
            )
        moments = read_moments(folder / MOMENTS)
        if file.moments_sha256 != sha256_of(folder / MOMENTS):
            raise DataError(f"{place}: {MOMENTS} is not the table that was collected")
        written = sum(1 for one in moments if one.file)
        if written != file.written or sum(1 for one in moments if one.settled) != file.drawn:
            raise DataError(f"{place}: counts other moments than {MOMENTS} has")
        return cls(folder, file, moments)

    @property
    def written(self) -> list[DrawnMoment]:
        """The moments that there is a picture or an epoch of."""
        return [one for one in self.moments if one.file]

    def doubt(self, content: NDArray[np.uint64]) -> str | None:
        """Say why some pictures are not those that were collected; None where they are.

        Where they lie does not matter: they may have been sorted into class folders. Which does:
        somebody who leaves some out, or adds others, has chosen, and a choice is no draw.

        Args:
            content: ``(n,)`` uint64 of each picture, as `looks.content_hash`; 0 for what cannot be
                read.
        """
        if self.file.kind is not CollectedUnit.FRAMES:
            return "it holds epochs, which are no single frames (calibrate --epochs)"
        drawn = np.array([int(one.sha256[:16], 16) or 1 for one in self.written], np.uint64)
        values = np.concatenate([drawn, content])
        found = np.unique(values, return_inverse=True)[1]
        most = int(found.max()) + 1 if len(found) else 0
        more = np.bincount(found[len(drawn) :], minlength=most)
        more -= np.bincount(found[: len(drawn)], minlength=most)
        added, lost = int(more[more > 0].sum()), int(-more[more < 0].sum())
        if added and lost:
            return (
                f"{lost} of its {len(drawn)} pictures are missing or changed, and {added} are new"
            )
        if lost:
            return f"{lost} of its {len(drawn)} pictures are missing"
        return f"{added} pictures beside its {len(drawn)} were not collected" if added else None

    @property
    def statement(self) -> str:
        """What a certificate takes as given, in words that follow "as the user states"."""
        file = self.file
        of = f"{file.written} of {file.drawn} drawn, the others missed" if file.missed else "all"
        if file.design is Design.SHARE:
            drawn = f"each of the decided frames was drawn with probability {file.share:g}"
        elif file.kind is CollectedUnit.EPOCHS:
            drawn = f"its epochs of {file.epoch_s:g} s began at independent random moments"
        else:
            drawn = "its samples were taken at independent random moments"
        # With their seed the moments of a recording can be drawn again.
        seed = f", drawn with seed {file.seed}" if file.recorded else ""
        return f"that {drawn} {self.period}{seed} ({of}), so that it holds for that period"

    @property
    def warnings(self) -> list[str]:
        """What whoever relies on it should know, a line each."""
        file = self.file
        lines = []
        missed = sum(file.missed.values())
        if missed:
            why = ", ".join(f"{count} as {reason}" for reason, count in file.missed.items())
            lines.append(
                f"{missed} of {file.drawn} drawn moments were missed ({why}): of those nothing is "
                "promised"
            )
        if file.encoding == "jpg":
            lines.append("collected as JPEG: what is certified holds for frames that were JPEG")
        if file.cut:
            lines.append(f"collected with {file.cut}: what is certified holds for frames cut alike")
        return lines

    @property
    def period(self) -> str:
        """The period, in words."""
        file = self.file
        if file.recorded:
            return f"of recordings {length_of(file.period_s)} long"
        end = "" if file.end is None else f" to {_minute(file.end)}"
        return f"from {_minute(file.start)}{end}"


def find_collection(data: Path) -> Path | None:
    """Return the collected folder that some data are, or whose table they are; None for others."""
    folder = data if data.is_dir() else data.parent
    return folder if (folder / SUMMARY).is_file() else None


def read_collected(path: Place, content: NDArray[np.uint64]) -> tuple[Collection | None, list[str]]:
    """Return the collection that some images are, where they are one as it was drawn.

    Its moments make them independent draws from its period, however much they look alike: copies
    of a resting scene are draws that fell on it, and count as often as they fell. What they are
    draws from is that period and no other, which the certificate states.

    Args:
        path: of the images.
        content: ``(n,)`` hashes of them, as for `Collection.doubt`.

    Returns:
        None where there is none, or it is not believed; then with a line that says why.
    """
    folder = find_collection(path) if isinstance(path, Path) else None
    if folder is None:
        return None, []
    try:
        collection = Collection.read(folder)
    except DataError as error:
        return None, [f"not believed to be drawn at random: {error}"]
    doubt = collection.doubt(content)
    if doubt is not None:
        return None, [f"{folder / SUMMARY}: not believed to be drawn at random: {doubt}"]
    return collection, []


def check_single_frames(data: Path) -> None:
    """See that a collected folder does not hold epochs, whose folders look like classes.

    Raises:
        DataError: it does.
    """
    folder = find_collection(data)
    if folder is None:
        return
    try:
        kind = read_summary(folder / SUMMARY).kind
    except DataError:  # whoever looks at the images says so
        return
    if kind is not CollectedUnit.FRAMES:
        raise DataError(f"data {data}: holds epochs, not single frames: name it with --epochs")


def read_summary(path: Path) -> CollectionFile:
    """Read a `collection.json`.

    Raises:
        DataError: it is damaged, or of a newer release.
    """
    try:
        content = parse_json(read_file(path))
        version = content.get("schema_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            writer = content.get("created_by", "a newer tinysaver-edge")
            raise DataError(f"{path}: was written by {writer}, in a form newer than this release's")
        found = CollectionFile.model_validate(content)
        json.dumps(content, ensure_ascii=False).encode()  # halves of surrogate pairs are no text
        return found
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise DataError(f"{path}: damaged or edited ({place}: {first['msg']})") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no JSON"
        raise DataError(f"{path}: damaged or edited ({why})") from error


_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str) -> float:
    """Read a length of time: 90s, 30m, 12h, 3d; a number alone is seconds.

    Raises:
        InputError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(s|m|min|h|d)?", text.strip())
    seconds = 0.0 if found is None else float(found[1]) * _UNITS[found[2] or "s"]
    if not seconds > 0:
        raise InputError(f"'{text}' is no length of time: as 90s, 30m, 12h or 3d")
    return seconds


def length_of(seconds: float) -> str:
    """Write a length of time: ``90.0`` becomes ``1.5 min``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds:.4g} s"


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"
