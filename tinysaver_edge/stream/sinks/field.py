"""The next calibration set: frames drawn from the field as it is, accepted and escalated alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge.decision import AnswerSource, Decision
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sinks.base import Sink
from tinysaver_edge.stream.sinks.pictures import PictureFolder
from tinysaver_edge.stream.sources.source import Frame

if TYPE_CHECKING:
    from typing_extensions import Self


class CalibrationSetSink:
    """Saves every frame it is given, without loss, labelled with the large model's answer.

    It is given the frames that the drift watch audits, and by `EscalationSample` as large a share
    of those that were escalated: together they are the field. Calibrate on them with
    ``--reference large``, which needs no labels, or correct the labels first.

    Args:
        folder: where they go; see `PictureFolder`.
        wall: seconds since 1970, for the names of the files.
        most: how many stay.
    """

    wants_frames = True

    def __init__(self, folder: Path, *, wall: Callable[[], float], most: int = 20_000) -> None:
        self.name = f"calibration set {folder.name}"
        self._folder = PictureFolder(folder, suffix=".png", most=most)
        self._wall = wall

    def write(self, decision: Decision, frame: Frame | None) -> bool:
        """Save it; return whether there was a frame.

        Raises:
            OSError: it cannot be written.
        """
        if frame is None:
            return False
        self._folder.save(frame.image, decision, time_s=self._wall())
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
        if (
            decision.source in (AnswerSource.LARGE, AnswerSource.FUSED)
            and self._random.random() < self._share
        ):
            self._sink.write(decision, frame)

    def __enter__(self) -> Self:
        """Open the other sink."""
        self._sink.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._sink.__exit__(*exception)
