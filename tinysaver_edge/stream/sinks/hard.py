"""Saved hard frames: those that the saver was unsure of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tinysaver_edge.decision import AnswerSource, Decision, Reason
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sinks.pictures import PictureFolder
from tinysaver_edge.stream.sources.source import Frame

if TYPE_CHECKING:
    from typing_extensions import Self


class HardFramesSink:
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
        self.name = f"hard frames {folder.name}"
        self._folder = PictureFolder(folder, suffix=suffix, most=most)
        self._clock = clock
        self._wall = wall
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

    def __enter__(self) -> Self:
        """Make the folder.

        Raises:
            InputError: it cannot be made.
        """
        self._folder.open()
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def is_hard(decision: Decision) -> bool:
    """Whether a frame was escalated and its last word is spoken, the saver's own or another's."""
    if decision.reason is Reason.PROVISIONAL:
        return False
    answered = decision.source in (AnswerSource.LARGE, AnswerSource.FUSED)
    return decision.escalated and (answered or decision.degraded is not None)
