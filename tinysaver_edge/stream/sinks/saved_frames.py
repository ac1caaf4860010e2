"""Saved frames: the hard ones to look at, and the next calibration set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge.decision import AnswerSource, Decision, Reason
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sinks.base import Sink
from tinysaver_edge.stream.sinks.pictures import PictureFolder
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
        """Make the folder.

        Raises:
            InputError: it cannot be made.
        """
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
    """Saves every frame it is given, without loss, with the large model's answer beside it.

    It is given the frames that the drift watch audits, and by `EscalationSample` as large a share
    of those that were escalated: together they are the field as it is. Calibrate on them with
    ``--reference large``, which needs no labels, and ``--independent``, as they are drawn at
    random; or correct the answers and call their column ``label``.

    Args:
        folder: where they go; see `PictureFolder`.
        wall: seconds since 1970, for the names of the files.
        most: how many stay.
    """

    wants_frames = True

    def __init__(self, folder: Path, *, wall: Callable[[], float], most: int = 20_000) -> None:
        super().__init__("calibration set", PictureFolder(folder, suffix=".png", most=most), wall)

    def write(self, decision: Decision, frame: Frame | None) -> bool:
        """Save it; return whether there was a frame.

        Raises:
            OSError: it cannot be written.
        """
        if frame is None:
            return False
        self._folder.save(frame.image, decision, time_s=self._wall())
        return True


class EscalationSample:
    """Hands a random share of the frames that the large model answered to another sink.

    Args:
        sink: takes them; it is entered and left with this one.
        share: of the answered frames, 0..1; that of the audits.
        seed: decides which.

    Raises:
        InputError: the share is out of range.
    """

    wants_frames = True

    def __init__(self, sink: Sink, *, share: float, seed: int) -> None:
        if not 0 < share <= 1:
            raise InputError(f"share {share}: must be above 0 and at most 1")
        self.name = sink.name
        self._sink = sink
        self._share = share
        self._random = np.random.default_rng(seed)

    def write(self, decision: Decision, frame: Frame | None) -> None:
        """Draw whether it is handed on."""
        if _large_answered(decision) and self._random.random() < self._share:
            self._sink.write(decision, frame)

    def __enter__(self) -> Self:
        """Open the other sink."""
        self._sink.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._sink.__exit__(*exception)


def _large_answered(decision: Decision) -> bool:
    return decision.source in (AnswerSource.LARGE, AnswerSource.FUSED)
