"""JSON lines: one line a decision, in files that rotate."""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tinysaver_edge._support.files import lock, open_regular
from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sources.source import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

_BEGINS = b'{"label"'
"""A line of a decision, one that a kill cut short too."""


class JsonlSink:
    """Appends every decision to a file as one line of JSON.

    When the file would grow beyond its limit it becomes ``NAME.1``, the one before it ``NAME.2``,
    and so on; the oldest goes. A file that somebody removes is made anew. A line is written whole
    or not at all: what a full disk took of it is cut off again, and the next decision is tried
    anew. A pipe takes decisions only while somebody reads it.

    Args:
        path: the file; one that is there is continued.
        max_bytes: how large it may grow; None for no limit.
        keep: how many older files stay.

    Raises:
        InputError: a limit makes no sense.
    """

    wants_frames = False

    def __init__(self, path: Path, *, max_bytes: int | None = 64 << 20, keep: int = 3) -> None:
        if (max_bytes is not None and max_bytes < 1) or keep < 0:
            raise InputError(
                f"{path}: cannot rotate at {max_bytes} bytes keeping {keep} files: "
                "bytes must be above 0, files 0 or more"
            )
        self.name = f"jsonl {path.name}"
        self._path = Path(os.path.realpath(path)) if path.is_file() else path
        self._max_bytes = max_bytes
        self._keep = keep
        self._file: int | None = None
        self._size = 0
        self._is_file = True

    def write(self, decision: Decision, frame: Frame | None) -> None:
        """Append one line.

        Raises:
            OSError: it cannot be written.
        """
        line = json.dumps(decision.to_dict(), separators=(",", ":")).encode() + b"\n"
        full = self._max_bytes is not None and 0 < self._size > self._max_bytes - len(line)
        if full and self._is_file:
            self._rotate()
        if self._file is not None and not os.fstat(self._file).st_nlink:
            self._close()  # removed: nobody would ever read what is written there
        file = self._open() if self._file is None else self._file
        written = 0
        try:
            while written < len(line):
                written += os.write(file, line[written:])
        except OSError:
            with suppress(OSError):  # devices cannot be cut off
                os.ftruncate(file, self._size)
            self._close()
            raise
        self._size += written

    def _rotate(self) -> None:
        """Give the full file another name; a link's target, so that the link stays."""
        self._close()
        for number in range(self._keep, 0, -1):
            older = self._path if number == 1 else self._numbered(number - 1)
            with suppress(FileNotFoundError):
                older.replace(self._numbered(number))
        if not self._keep:
            self._path.unlink(missing_ok=True)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _check_content(self) -> None:
        """Refuse to append to what is no file of decisions, and to rotate over one: a picture."""
        older = [] if self._max_bytes is None else map(self._numbered, range(1, self._keep + 1))
        for path in (self._path, *older):
            if not path.is_file() or not path.stat().st_size:
                continue
            with open_regular(path) as file:
                begins = file.read(len(_BEGINS))
            if begins != _BEGINS[: len(begins)]:
                what = "holds something else than decisions"
                if path != self._path:
                    what += f", and {self._path.name} takes its place when it is full"
                raise InputError(f"{path}: {what}; name a new file")

    def _open(self) -> int:
        """Open or make the file; a line that a kill cut short is ended."""
        if self._path.is_fifo():
            file = self._open_pipe()
        else:
            file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._file, self._size = file, os.fstat(file).st_size
        self._is_file = stat.S_ISREG(os.fstat(file).st_mode)  # pipes and devices do not rotate
        if self._is_file:  # two would cut off each other's lines on a full disk
            lock(file, f"{self._path}: another run writes there: name another file")
        if self._size and os.pread(file, 1, self._size - 1) != b"\n":
            self._size += os.write(file, b"\n")
        return file

    def _open_pipe(self) -> int:
        """Open a pipe that has a reader: one opened to be read, too, would keep all for nobody."""
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise OSError(errno.ENXIO, "nobody reads this pipe") from error
            raise
        os.set_blocking(file, True)  # a slow reader is waited for
        return file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file, self._size = None, 0

    def __enter__(self) -> Self:
        """Open the file.

        Raises:
            InputError: it cannot be opened.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._check_content()
            self._open()
        except OSError as error:
            if error.errno == errno.ENXIO and self._path.is_fifo():
                return self  # a reader may come yet; what it misses are failed writes
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from error
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()
