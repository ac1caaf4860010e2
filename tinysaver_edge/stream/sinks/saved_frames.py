"""Saved frames: the hard ones to look at, and the next calibration set."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinysaver_edge._support.files import atomic_write, parse_json, read_file
from tinysaver_edge._version import __version__
from tinysaver_edge.data.collection import (
    MOMENTS,
    SUMMARY,
    CollectionFile,
    CollectionState,
    Design,
    DrawnMoment,
    SourceEntry,
    moments_csv,
    read_summary,
)
from tinysaver_edge.decision import AnswerSource, Decision, Reason
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sinks.base import Sink
from tinysaver_edge.stream.sinks.pictures import TABLE, PictureFolder
from tinysaver_edge.stream.sources.source import Frame

if TYPE_CHECKING:
    from typing_extensions import Self


class _Saving:
    """Opens the folder that its subclasses save to."""

    def __init__(self, kind: str, folder: PictureFolder, wall: Callable[[], float]) -> None:
        self.name = f"{kind} {folder.path.name}"
        self._folder = folder
        self._wall = wall

    def __enter__(self) -> Self:
        """Make the folder."""
        self._folder.open()
        return self

    def __exit__(self, *exception: object) -> None:
        self._folder.close()


class HardFramesSink(_Saving):
    """Saves frames that were escalated, or should have been, with what was answered.

    Args:
        folder: where they go; see `PictureFolder`.
        clock: seconds, for the pause between frames.
        wall: seconds since 1970, for the names of the files.
        most: how many stay.
        pause_s: least time between two saved frames, so that one hard scene does not fill the disk.
        suffix: ".jpg" or ".png".

    Raises:
        InputError: a number makes no sense.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        most: int = 1000,
        pause_s: float = 1.0,
        suffix: str = ".jpg",
    ) -> None:
        if pause_s < 0:
            raise InputError(f"{folder}: a pause of {pause_s} s: 0 or more")
        super().__init__("hard frames", PictureFolder(folder, suffix=suffix, most=most), wall)
        self._clock = clock
        self._pause_s = pause_s
        self._next_s = float("-inf")

    @property
    def wants_frames(self) -> bool:
        """Whether the pause is over."""
        return self._clock() >= self._next_s

    def write(self, decision: Decision, frame: Frame | None) -> bool:
        """Save it, if it is hard and due; return whether it was.

        Raises:
            OSError: it cannot be written.
        """
        if frame is None or not is_hard(decision) or not self.wants_frames:
            return False
        self._next_s = self._clock() + self._pause_s
        self._folder.save(frame.image, decision, time_s=self._wall(), degraded=decision.degraded)
        return True


def is_hard(decision: Decision) -> bool:
    """Whether a frame was escalated and its last word is spoken, the saver's own or another's."""
    if decision.reason is Reason.PROVISIONAL:
        return False
    return decision.escalated and (_large_answered(decision) or decision.degraded is not None)


class CalibrationSetSink(_Saving):
    """Saves every frame it is given, without loss, with what was answered beside it.

    Who gives it the frames decides what they may be taken for; see `RandomShare`. Calibrate on them
    with ``--reference large`` or by questions, or correct the answers and call their column
    ``label``.

    Args:
        folder: where they go; see `PictureFolder`.
        wall: seconds since 1970, for the names of the files.
        most: how many stay.

    Attributes:
        written: frames that it has saved.
    """

    wants_frames = True

    def __init__(self, folder: Path, *, wall: Callable[[], float], most: int = 20_000) -> None:
        super().__init__("calibration set", PictureFolder(folder, suffix=".png", most=most), wall)
        self.written = 0

    def write(self, decision: Decision, frame: Frame | None) -> bool:
        """Save it; return whether there was a frame.

        Raises:
            OSError: it cannot be written.
        """
        if frame is None:
            return False
        self._folder.save(frame.image, decision, time_s=self._wall())
        self.written += 1
        return True


UNSAVED = "it could not be saved in time"


class RandomShare:
    """Hands each frame, by its last decision, to another sink with the same probability.

    It draws before anything else is known to it: whether a saver or the large model answered, in
    time or not, and whether there is room to save the frame. What is drawn and not saved is
    counted. So what is in the folder is a random sample of the frames that the stream decided,
    as `collection.json` beside them says, and may be certified on as that; the frames that were
    escalated (`HardFramesSink`) or audited are no such sample, and neither are frames that a slow
    device never came to.

    Args:
        sink: takes them; it is entered and left with this one.
        folder: where `sink` saves them.
        written: tells how many it has saved.
        share: the probability, 0..1.
        seed: decides which.
        wall: seconds since 1970.

    Raises:
        InputError: the share is out of range.
    """

    wants_frames = True

    def __init__(
        self,
        sink: Sink,
        *,
        folder: Path,
        written: Callable[[], int],
        share: float,
        seed: int,
        wall: Callable[[], float],
    ) -> None:
        if not 0 < share <= 1:
            raise InputError(f"share {share}: must be above 0 and at most 1")
        self.name = sink.name
        self._sink, self._folder, self._written = sink, folder, written
        self._share, self._seed, self._wall = share, seed, wall
        self._random = np.random.default_rng(seed)
        self._drawn = self._missed = 0

    def write(self, decision: Decision, frame: Frame | None) -> None:
        """Draw whether it is handed on."""
        if decision.reason is not Reason.PROVISIONAL and self._random.random() < self._share:
            self._drawn += 1
            self._sink.write(decision, frame)

    def __enter__(self) -> Self:
        """Open the other sink, and say in the folder that frames are drawn into it.

        Raises:
            InputError: there are frames that were drawn otherwise, or nobody knows how.
        """
        place = self._folder / SUMMARY
        if place.is_file():
            before = read_summary(place)
            if before.share != self._share:
                was = "otherwise" if before.share is None else f"with probability {before.share:g}"
                raise InputError(f"{self._folder}: has frames drawn {was}; name a new folder")
            self._missed = sum(before.missed.values())
        elif (self._folder / TABLE).is_file():
            raise InputError(
                f"{self._folder}: has frames of which nobody knows how they were drawn; name a new "
                "folder"
            )
        self._sink.__enter__()
        self._say(CollectionState.COLLECTING, [], self._missed)
        return self

    def __exit__(self, *exception: object) -> None:
        self._sink.__exit__(*exception)
        table = self._folder / TABLE
        lines = read_file(table).splitlines() if table.is_file() else []
        missed = self._missed + max(0, self._drawn - self._written())
        self._say(CollectionState.FINISHED, [parse_json(line) for line in lines], missed)

    def _say(self, state: CollectionState, rows: Sequence[dict[str, Any]], missed: int) -> None:
        """Write what was drawn, and what became of it."""
        now_s = self._wall()
        start_s = min((row["saved_at_s"] for row in rows), default=now_s)
        moments = [
            DrawnMoment(
                Path(row["file"]).stem, row["source_id"], row["saved_at_s"] - start_s,
                sequence=row["sequence"], file=row["file"], sha256=row["sha256"],
            )
            for row in rows
        ]  # fmt: skip
        moments += [DrawnMoment(f"missed-{n}", "", 0.0, missed=UNSAVED) for n in range(missed)]
        table = moments_csv(moments)
        by_source = Counter(row["source_id"] for row in rows)
        said = CollectionFile(
            created_by=f"tinysaver-edge {__version__}",
            design=Design.SHARE,
            state=state,
            start=datetime.fromtimestamp(start_s, timezone.utc),
            end=datetime.fromtimestamp(now_s, timezone.utc),
            period_s=now_s - start_s,
            share=self._share,
            seed=self._seed,
            drawn=len(moments),
            written=len(rows),
            missed={UNSAVED: missed} if missed else {},
            sources=tuple(
                SourceEntry(name=name, drawn=count, written=count)
                for name, count in by_source.items()
            ),
            moments_sha256=hashlib.sha256(table).hexdigest(),
        )
        with atomic_write(self._folder / MOMENTS, private=True) as file:
            file.write(table)
        with atomic_write(self._folder / SUMMARY, private=True) as file:
            file.write(said.to_bytes())


def _large_answered(decision: Decision) -> bool:
    return decision.source in (AnswerSource.LARGE, AnswerSource.FUSED)
