"""Epochs that are being written: each a folder of frames that gets its name when it is whole."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tinysaver_edge._support.files import atomic_write
from tinysaver_edge.collect.store import FULL, Store, encode
from tinysaver_edge.data.collection import EPOCH, DrawnMoment, epoch_sha256
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.sources.source import SLACK_S


@dataclass(slots=True)
class _Epoch:
    """One that is being written.

    Attributes:
        moment: that was drawn.
        start_s: where it begins, on the clock of its frames.
        folder: where they lie meanwhile.
        seconds: of each frame, from the start.
    """

    moment: DrawnMoment
    start_s: float
    folder: Path
    seconds: list[float] = field(default_factory=list)


def _linked(file: Path, place: Path) -> bool:
    """Give a file a second name; False where the file system does not."""
    try:
        os.link(file, place)
    except OSError:
        return False
    return True


class Epochs:
    """The epochs of one source that are under way; they may overlap, and share frames then.

    Args:
        store: the folder.
        again: whether the moments of epochs that found no room are to come again; else they are
            missed.
    """

    def __init__(self, store: Store, *, again: bool = False) -> None:
        self._store, self._full = store, "" if again else FULL
        self._open: list[_Epoch] = []

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, moment: DrawnMoment, *, start_s: float) -> bool:
        """Begin one; return whether there was room."""
        folder = self._store.folder / f".{moment.name}"
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            self._store.note_no_room(error)
            if self._full:
                self._store.miss(moment, self._full)
            return False
        self._open.append(_Epoch(moment, start_s, folder))
        return True

    def see(self, image: Picture, at_s: float) -> bool:
        """End the epochs that are over, and write a frame into those that want one.

        Args:
            image: ``(height, width, 3)`` BGR uint8.
            at_s: when it was taken, on the clock of their starts.

        Returns:
            Whether there was room.
        """
        file, room = self._store.file, True
        for epoch in [one for one in self._open if at_s >= one.start_s + (file.epoch_s or 0.0)]:
            room &= self._end(epoch)
        pause_s = 0.0 if not file.epoch_fps else 1 / file.epoch_fps - SLACK_S
        wanted = [
            one
            for one in self._open
            if not one.seconds or at_s - one.start_s - one.seconds[-1] >= pause_s
        ]
        data = encode(image, file.encoding) if wanted else b""
        written: Path | None = None
        for epoch in wanted:
            place = epoch.folder / f"{len(epoch.seconds):05d}.{file.encoding}"
            added = self._add(epoch, place, data, at_s - epoch.start_s, same=written)
            written = place if added else written
            room &= added
        return room

    def _add(
        self, epoch: _Epoch, place: Path, data: bytes, second: float, *, same: Path | None
    ) -> bool:
        """Write a frame; one that another epoch has as well takes no more room."""
        try:
            if not (same is not None and _linked(same, place)):
                with atomic_write(place, private=True) as target:
                    target.write(data)
        except OSError as error:
            self._give_up(epoch, self._full)
            self._store.note_no_room(error)
            return False
        epoch.seconds.append(round(second, 6))
        return True

    def end_all(self) -> None:
        """End them all where they are: their source has no more frames."""
        for epoch in list(self._open):
            self._end(epoch)

    def give_up_all(self, why: str) -> None:
        """Leave nothing of them, and say why; "" leaves their moments to come again."""
        for epoch in list(self._open):
            self._give_up(epoch, why)

    def _give_up(self, epoch: _Epoch, why: str) -> None:
        self._open.remove(epoch)
        shutil.rmtree(epoch.folder, ignore_errors=True)
        if why:
            self._store.miss(epoch.moment, why)

    def _end(self, epoch: _Epoch) -> bool:
        moment, file = epoch.moment, self._store.file
        start = None if file.recorded else file.start + timedelta(seconds=moment.moment_s)
        content = {
            "source": moment.source,
            "start": None if start is None else start.isoformat().replace("+00:00", "Z"),
            "moment_s": round(moment.moment_s, 6),
            "recorded_s": round(epoch.start_s, 6) if file.recorded else None,
            "length_s": file.epoch_s,
            "files": [f"{place:05d}.{file.encoding}" for place in range(len(epoch.seconds))],
            "seconds": epoch.seconds,
        }
        try:
            with atomic_write(epoch.folder / EPOCH, private=True) as target:
                target.write(json.dumps(content, indent=1).encode() + b"\n")
            epoch.folder.rename(self._store.folder / moment.name)
        except OSError as error:
            self._give_up(epoch, self._full)
            self._store.note_no_room(error)
            return False
        self._open.remove(epoch)
        sha256 = epoch_sha256(self._store.folder / moment.name)
        self._store.settle(moment.taken(moment.name, sha256))
        return True
