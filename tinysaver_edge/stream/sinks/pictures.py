"""A folder of saved frames with a table of them, as calibration reads it; the oldest go."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import deque
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tinysaver_edge._support.files import atomic_write, claim, parse_json, read_text
from tinysaver_edge._support.packages import opencv
from tinysaver_edge.data.files import ANSWER_COLUMN
from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import InputError
from tinysaver_edge.preprocess import Frame as Picture

TABLE = "frames.jsonl"

PICTURES = (".jpg", ".png")

_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600
"""Pictures show people: nobody but the user sees them until the user says so."""

FORGET = 0.25
"""When the folder is full, so much of it goes at once: the table is then written anew."""


class PictureFolder:
    """Frames as picture files, and `frames.jsonl` with a row for each: file, answer and more.

    The answer is that of whoever was asked last; nobody has checked it, so it is no label. The
    table can be given to ``calibrate --data`` with ``--reference large``, or once a person has
    corrected the answers and called their column ``label``. What is made
    here only its user can read.

    Args:
        path: the folder; one that is there is continued.
        suffix: ".png" keeps every pixel, ".jpg" takes a tenth of the room.
        most: how many frames stay.

    Raises:
        InputError: the number is below 1.
    """

    def __init__(self, path: Path, *, suffix: str, most: int) -> None:
        if most < 1:
            raise InputError(f"{path}: cannot keep {most} frames: at least 1")
        self.path = path
        self._suffix = suffix
        self._most = most
        self._rows: deque[dict[str, Any]] = deque()
        self._held: int | None = None

    def open(self) -> None:
        """Make the folder, or read what is there.

        Raises:
            InputError: it cannot be made or read, or another run writes there.
            MissingDependencyError: OpenCV is not installed.
        """
        opencv("Saving frames")
        try:
            self.path.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
            if self._held is None:
                self._held = claim(self.path)
            table = self.path / TABLE
            lines = read_text(table).splitlines() if table.is_file() else []
            probe = self.path / f".{os.getpid()}.probe"
            probe.touch()
            probe.unlink()
        except (OSError, UnicodeDecodeError) as error:
            self.close()
            why = getattr(error, "strerror", None) or error
            raise InputError(f"{self.path}: frames cannot be saved there ({why})") from error
        self._rows.clear()
        for line in lines:
            with suppress(ValueError, KeyError, TypeError, OSError):  # a kill cut the line short
                row = parse_json(line)
                if not isinstance(row, dict) or not {"file", "saved_at_s"} <= row.keys():
                    self.close()
                    raise InputError(f"{table}: holds rows of something else; name a new folder")
                if self._is_ours(row["file"]):
                    self._rows.append(row)
        if len(self._rows) != len(lines):
            self._write_table()

    def close(self) -> None:
        """Let others write there. Legal in every state."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def _is_ours(self, name: str) -> bool:
        """Whether a name of the table is that of a picture in this folder, and nothing else's.

        Tables are corrected by hand and passed on, and what they name is removed one day.
        """
        file = self.path / name
        return file.parent == self.path and file.suffix in PICTURES and file.is_file()

    def save(self, picture: Picture, decision: Decision, *, time_s: float, **more: object) -> Path:
        """Save a frame and add its row.

        Args:
            picture: ``(height, width, 3)`` BGR uint8.
            decision: names the frame and its answer.
            time_s: seconds since 1970, for the file's name.
            more: further columns.

        Returns:
            The picture's file.

        Raises:
            OSError: it cannot be written; nothing of it stays then.
        """
        if len(self._rows) >= self._most:
            self._forget()
        name = f"{moment(time_s)}-{plain(decision.frame_id.source_id)}"
        file = self.path / f"{name}-{decision.frame_id.sequence}{self._suffix}"
        data = encoded(picture, self._suffix)
        row = {
            "file": file.name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "saved_at_s": round(time_s, 3),
            ANSWER_COLUMN: decision.label,
            "confidence": round(decision.confidence, 6),
            "score": decision.to_dict()["score"],
            "answered_by": decision.source.value,
            "source_id": decision.frame_id.source_id,
            "sequence": decision.frame_id.sequence,
            "taken_at": decision.taken_at,
            **more,
        }
        with atomic_write(file, private=True) as target:
            target.write(data)
        try:
            self._append(row)
        except OSError:
            file.unlink(missing_ok=True)
            raise
        self._rows.append(row)
        return file

    def _append(self, row: dict[str, Any]) -> None:
        line = json.dumps(row).encode() + b"\n"
        with open(self.path / TABLE, "ab", buffering=0, opener=_privately) as table:
            before = table.tell()
            try:
                written = table.write(line)
            except OSError:
                table.truncate(before)
                raise
            if written != len(line):
                table.truncate(before)
                raise OSError(28, "No space left on device", str(self.path / TABLE))

    def _forget(self) -> None:
        for _ in range(max(1, int(FORGET * self._most), len(self._rows) - self._most + 1)):
            (self.path / self._rows.popleft()["file"]).unlink(missing_ok=True)
        self._write_table()

    def _write_table(self) -> None:
        with atomic_write(self.path / TABLE, private=True) as table:
            table.writelines(json.dumps(row).encode() + b"\n" for row in self._rows)


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags, _PRIVATE_FILE)


def encoded(picture: Picture, suffix: str) -> bytes:
    """Return a picture, ``(height, width, 3)`` BGR uint8, as the content of a .jpg or .png."""
    cv2 = opencv("Saving frames")
    parameters = [cv2.IMWRITE_JPEG_QUALITY, 92] if suffix == ".jpg" else []
    good, data = cv2.imencode(suffix, picture, parameters)
    if not good:
        raise InputError(f"OpenCV cannot write {suffix} here")
    encoded: bytes = data.tobytes()
    return encoded


def moment(time_s: float) -> str:
    """Return a time, in seconds since 1970, as it begins names that sort by it."""
    moment = datetime.fromtimestamp(time_s, timezone.utc)
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}"


def plain(name: str) -> str:
    """Return a source's name as a part of a file's."""
    return re.sub(r"[^\w-]+", "_", name)[-60:] or "frame"
