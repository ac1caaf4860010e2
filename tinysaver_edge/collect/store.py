"""The folder of a collection: whole after a kill, a full disk or a lost camera at any moment.

The drawn moments are on disk before the first frame is taken. A picture takes its place only when
all of it is written, then a line of a journal says so; the journal becomes part of the table when
the folder is opened again, and at the end.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tinysaver_edge._support.files import (
    atomic_write,
    half_written,
    lock,
    parse_json,
    read_file,
    sha256_of,
)
from tinysaver_edge._support.packages import opencv
from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge._support.text import brief
from tinysaver_edge._version import __version__
from tinysaver_edge.collect.draw import Draw
from tinysaver_edge.data.collection import (
    MOMENTS,
    SUMMARY,
    CollectedUnit,
    CollectionFile,
    CollectionState,
    DrawnMoment,
    SourceEntry,
    epoch_sha256,
    length_of,
    moments_csv,
    read_moments,
    read_summary,
)
from tinysaver_edge.errors import InputError
from tinysaver_edge.preprocess import Frame as Picture

if TYPE_CHECKING:
    from typing_extensions import Self

JOURNAL = ".taken.jsonl"
LOCK = ".lock"
ROOM = ".room"
"""Holds room on the disk for the table that is written at the end."""

_ROOM_BYTES, _ROOM_FOR_EACH = 8192, 160

_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600
"""Pictures show people: nobody but the user sees them until the user says so."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

ENOUGH_AGAIN = 5
"""Pictures in a row that must be written for a full disk to be one no more."""

AWAY = "the camera was away"
STOPPED = "nobody collected"
FULL = "no room on the disk"
"""Why a moment was missed."""


def encode(picture: Picture, encoding: str) -> bytes:
    """Return a picture as a file's content: ``png`` and ``webp`` without loss, ``jpg`` with some.

    Raises:
        InputError: this OpenCV cannot write it.
    """
    cv2 = opencv("Saving frames")
    parameters = {"png": [], "webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}.get(
        encoding, [cv2.IMWRITE_JPEG_QUALITY, 95]
    )
    try:
        good, data = cv2.imencode(f".{encoding}", picture, parameters)
    except cv2.error as error:
        raise InputError(f"OpenCV cannot write .{encoding} of such a picture here") from error
    if not good:
        raise InputError(f"OpenCV cannot write .{encoding} here")
    return bytes(data.tobytes())


class Store:
    """A collection's folder, open for one collector. A context manager; methods are thread-safe."""

    def __init__(
        self,
        folder: Path,
        *,
        warn: Callable[[str], object] = lambda line: None,
        progress: Progress = SILENT,
    ) -> None:
        self.folder = folder
        self.warn, self._progress = warn, progress
        self._lock = threading.RLock()
        self._stack = ExitStack()
        self._journal: IO[bytes] | None = None
        self._unwritten: list[bytes] = []
        self._full, self._since_full = False, 0
        self._file: CollectionFile | None = None
        self._moments: dict[str, DrawnMoment] = {}

    # Opening

    def __enter__(self) -> Self:
        """Make the folder, or read what is there and go on from it.

        Raises:
            InputError: it cannot be made or read, holds something else, or another process
                collects into it.
        """
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Let go of the folder; what was taken stays."""
        with self._lock:
            self._stack.close()
            self._journal = None
            if not self.begun:  # nothing came of it
                with suppress(OSError):
                    (self.folder / LOCK).unlink()
                    self.folder.rmdir()

    def _open(self) -> None:
        try:
            self.folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
            others = [one for one in self.folder.iterdir() if not one.name.startswith(".")]
            held = self._stack.enter_context((self.folder / LOCK).open("w"))
        except OSError as error:
            raise InputError(f"--out {self.folder}: {_reason(error)}") from error
        lock(
            held.fileno(),
            f"--out {self.folder}: another process collects into it: wait for it, or name another "
            "folder",
        )
        place = self.folder / SUMMARY
        if place.is_file():
            self._file = read_summary(place)
            self._moments = {one.name: one for one in read_moments(self.folder / MOMENTS)}
            self._replay()
        elif {one.name for one in others} - {MOMENTS}:
            raise InputError(
                f"--out {self.folder}: holds other files and no collection; name a new folder"
            )

    def _replay(self) -> None:
        """Take over what the table does not have yet, and clear away what was cut short."""
        with suppress(OSError):
            for line in read_file(self.folder / JOURNAL).splitlines():
                with suppress(ValueError, KeyError, TypeError, AttributeError):  # cut short
                    row = parse_json(line)
                    one = self._moments[row["name"]]
                    if row.get("missed"):
                        self._moments[one.name] = one.missing(brief(str(row["missed"])))
                    elif row["file"] == self._name(one):
                        self._moments[one.name] = one.taken(row["file"], brief(str(row["sha256"])))
        for place in self.folder.iterdir():
            if self._was_cut_short(place.name):
                shutil.rmtree(place) if place.is_dir() else place.unlink()
        for one in self._moments.values():
            place = self.folder / self._name(one)
            if not one.settled and place.exists():  # whole, or it would not have its name
                self._moments[one.name] = one.taken(place.name, self._hash(place))

    def _was_cut_short(self, name: str) -> bool:
        """Whether a file or folder is what a kill left; a user's .git is none."""
        whole = half_written(name) or ""
        under_way = name.startswith(".") and name[1:] in self._moments
        ours = (SUMMARY, MOMENTS, ROOM)
        return name == ROOM or under_way or whole in ours or Path(whole).stem in self._moments

    def _name(self, moment: DrawnMoment) -> str:
        frames = self.file.kind is CollectedUnit.FRAMES
        return f"{moment.name}.{self.file.encoding}" if frames else moment.name

    def _hash(self, place: Path) -> str:
        return epoch_sha256(place) if place.is_dir() else sha256_of(place)

    # What is there

    @property
    def begun(self) -> bool:
        """Whether the moments are drawn."""
        return self._file is not None

    @property
    def file(self) -> CollectionFile:
        """What the collection says of itself.

        Raises:
            InputError: it is not begun.
        """
        if self._file is None:
            raise InputError(f"{self.folder}: holds no collection yet")
        return self._file

    @property
    def open_moments(self) -> list[DrawnMoment]:
        """The moments that have not come, in the order in which they come."""
        with self._lock:
            return [one for one in self._moments.values() if not one.settled]

    @property
    def drawn(self) -> int:
        """How many moments there are."""
        return len(self._moments)

    def check_same(self, draw: Draw | None, names: Sequence[str], *, cut: str) -> None:
        """Refuse to go on with what another call began otherwise.

        Raises:
            InputError: it is something else.
        """
        file = self.file
        said = f"--out {self.folder}: holds a collection"
        there = [one.name for one in file.sources]
        if file.state is CollectionState.FINISHED:
            raise InputError(f"{said} that is finished; name a new folder")
        if there != list(names):
            raise InputError(f"{said} of {', '.join(there)}, not of {', '.join(names)}")
        if file.cut != cut:
            raise InputError(f"{said} with {file.cut or 'no region and no mask'}: say the same")
        if draw is None:
            return
        pairs = (
            (draw.count, len(self._moments), "--frames"),
            (draw.period_s if draw.period_s is not None else file.period_s, file.period_s, "--for"),
            (draw.epoch_s, file.epoch_s, "--epochs"),
            (draw.epoch_fps, file.epoch_fps, "--fps"),
            (draw.encoding, file.encoding, "the pictures' format"),
        )
        for asked, was, what in pairs:
            if asked != was:
                raise InputError(
                    f"{said} begun otherwise ({what} was {was}, not {asked}): say the same, or "
                    "name another folder"
                )

    # Beginning, taking, ending

    def begin(
        self,
        draw: Draw,
        moments: Sequence[DrawnMoment],
        sources: Sequence[SourceEntry],
        *,
        start: datetime,
        cut: str = "",
    ) -> None:
        """Put the drawn moments on disk.

        Raises:
            InputError: they cannot be written.
        """
        lengths = [one.duration_s or 0.0 for one in sources]
        period_s = sum(lengths) if draw.period_s is None else draw.period_s
        live = draw.period_s is not None
        self._moments = {one.name: one for one in moments}
        self._file = CollectionFile(
            created_by=f"tinysaver-edge {__version__}",
            kind=draw.kind,
            state=CollectionState.COLLECTING,
            start=start,
            end=start + timedelta(seconds=period_s) if live else None,
            period_s=period_s,
            epoch_s=draw.epoch_s,
            epoch_fps=draw.epoch_fps,
            seed=draw.seed,
            encoding=draw.encoding,
            cut=cut,
            sources=tuple(sources),
        )
        self._write_all(self._file)
        self._keep_room()

    def resume(self) -> None:
        """Say on disk that the collection is under way again."""
        self._file = self.file.model_copy(
            update={"state": CollectionState.COLLECTING, "moments_sha256": None}
        )
        self._write_all(self._file)
        self._keep_room()

    def _keep_room(self) -> None:
        try:
            with atomic_write(self.folder / ROOM, private=True) as file:
                file.write(bytes(_ROOM_BYTES + _ROOM_FOR_EACH * len(self._moments)))
        except OSError as error:
            self.note_no_room(error)

    def take(self, moment: DrawnMoment, data: bytes) -> bool:
        """Write the picture of a moment; where there is no room, it stays open, and False."""
        file = self._name(moment)
        try:
            with atomic_write(self.folder / file, private=True) as target:
                target.write(data)
        except OSError as error:
            self.note_no_room(error)
            return False
        self.settle(moment.taken(file, hashlib.sha256(data).hexdigest()))
        self._note_room()
        return True

    def _note_room(self) -> None:
        """Tell that there is room again: not of the one small picture that a full disk takes."""
        with self._lock:
            self._since_full += self._full
            if self._since_full >= ENOUGH_AGAIN:
                self._full, self._since_full = False, 0
                self.warn(f"{self.folder}: there is room again")

    def miss(self, moment: DrawnMoment, why: str) -> None:
        """Note that there is nothing of a moment."""
        self.settle(moment.missing(why))

    def settle(self, moment: DrawnMoment) -> None:
        """Note what became of a moment."""
        if moment.missed:
            row = {"name": moment.name, "missed": moment.missed}
        else:
            row = {"name": moment.name, "file": moment.file, "sha256": moment.sha256}
        with self._lock:
            self._moments[moment.name] = moment
            self._unwritten.append(json.dumps(row).encode() + b"\n")
            try:
                self._append()
            except OSError as error:  # the lines wait for room
                self.note_no_room(error)
        self._progress.advance(1)

    def _append(self) -> None:
        if self._journal is None:
            path = self.folder / JOURNAL
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, _PRIVATE_FILE)
            self._journal = self._stack.enter_context(os.fdopen(handle, "ab", buffering=0))
        while self._unwritten:
            line, before = self._unwritten[0], self._journal.seek(0, os.SEEK_END)
            try:
                written = self._journal.write(line)
            except OSError:
                self._journal.truncate(before)
                raise
            if written != len(line):
                self._journal.truncate(before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder / JOURNAL))
            self._unwritten.pop(0)
        os.fsync(self._journal.fileno())

    def note_no_room(self, error: OSError) -> None:
        """Tell once that nothing can be written.

        Raises:
            InputError: for another reason than that the disk is full, which time does not mend.
        """
        if error.errno not in _NO_ROOM:
            raise InputError(f"--out {self.folder}: {_reason(error)}") from error
        with self._lock:
            self._since_full = 0
            if not self._full:
                self._full = True
                self.warn(
                    f"{self.folder}: no room left on the disk: frames are missed until there is, "
                    f"and counted; what is written is whole"
                )

    # The end

    def finish(self, *, stopped_at_s: float | None = None) -> CollectionFile:
        """Write the table and the summary.

        Args:
            stopped_at_s: where a period in front of cameras ended before its time; the moments
                after it were not drawn from it.

        Raises:
            InputError: there is no room for them; the pictures are whole, the next call goes on.
        """
        with self._lock:
            file = self.file
            if stopped_at_s is not None:
                for one in self.open_moments:
                    if one.moment_s <= stopped_at_s:
                        self.miss(one, STOPPED)
            entries = [
                one.model_copy(update=_counts(self._moments.values(), one.name))
                for one in file.sources
            ]
            end = file.end
            if stopped_at_s is not None:
                end = file.start + timedelta(seconds=stopped_at_s)
            elif not file.recorded:
                end = file.start + timedelta(seconds=file.period_s)
            table = moments_csv(self._moments.values())
            self._file = file.model_copy(
                update={
                    "state": CollectionState.FINISHED
                    if stopped_at_s is None
                    else CollectionState.STOPPED,
                    "end": end,
                    "sources": tuple(entries),
                    **_counts(self._moments.values(), None),
                    "moments_sha256": hashlib.sha256(table).hexdigest(),
                }
            )
            self._write_all(self._file)
            return self._file

    def _write_all(self, file: CollectionFile) -> None:
        (self.folder / ROOM).unlink(missing_ok=True)
        try:
            with atomic_write(self.folder / MOMENTS, private=True) as table:
                table.write(moments_csv(self._moments.values()))
            with atomic_write(self.folder / SUMMARY, private=True) as summary:
                summary.write(file.to_bytes())
        except OSError as error:
            raise InputError(
                f"--out {self.folder}: {_reason(error)}; what is written is whole: make room and "
                "call the same again, it goes on"
            ) from error
        self._unwritten.clear()
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        (self.folder / JOURNAL).unlink(missing_ok=True)


def _counts(moments: Iterable[DrawnMoment], source: str | None) -> dict[str, Any]:
    """Count what became of the moments of one source, or of all."""
    mine = [one for one in moments if source in (None, one.source)]
    missed = Counter(one.missed for one in mine if one.missed)
    written = sum(1 for one in mine if one.file)
    return {
        "drawn": written + sum(missed.values()),
        "written": written,
        "missed": dict(missed.most_common()),
    }


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def lines_about(file: CollectionFile) -> list[str]:
    """Say what was drawn, taken and missed, for people."""
    what = file.kind.value
    lines = [f"{file.written} of {file.drawn} {what} are in the folder"]
    for one in file.sources:
        if one.missed:
            why = ", ".join(f"{count} as {reason}" for reason, count in one.missed.items())
            lines.append(f"{one.name}: missed {sum(one.missed.values())} of {one.drawn}: {why}")
    if file.state is CollectionState.STOPPED and file.end is not None:
        seconds = (file.end - file.start).total_seconds()
        lines.append(
            f"ended after {length_of(seconds)} of {length_of(file.period_s)}: it holds for that "
            "part; the same command goes on"
        )
    return lines


def utc(seconds: float) -> datetime:
    """Return a moment in seconds since 1970 as UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc)
