"""Live cameras for the benchmarks: pictures at a steady rate, and engines that stall."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
from pair import VIDEO

from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.engines.base import Engine
from tinysaver_edge.preprocess import Batch, Frame
from tinysaver_edge.stream.sources.live import DeviceError, LiveOptions


class PacedCamera:
    """Gives the same pictures over and over, at a steady rate, as a camera does.

    Args:
        pictures: at least one.
        fps: frames a second.
        frames: how many it gives; then it ends.
        lost_every: it is lost after so many frames, and there again at once; None for never.
    """

    live_wait_s: float | None = None

    def __init__(
        self,
        pictures: Sequence[Frame],
        *,
        fps: float,
        frames: int,
        lost_every: int | None = None,
    ) -> None:
        self._pictures = itertools.cycle(pictures)
        self._period_s, self._left, self._lost_every = 1 / fps, frames, lost_every

    def connect(self, options: LiveOptions, stopping: threading.Event) -> PacedCamera:
        """Begin."""
        self._next_s = time.monotonic()
        return self

    def read(self, into: Frame | None) -> Frame | None:
        """Wait for the next picture."""
        if not self._left:
            return None
        self._left -= 1
        if self._lost_every and self._left % self._lost_every == 0:
            raise DeviceError("lost, as it was told to be")
        self._next_s += self._period_s
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        return next(self._pictures)

    def close(self) -> None:
        """Let go of nothing."""


def pictures(count: int, *, size: tuple[int, int], step: int = 9) -> list[Frame]:
    """Return pictures of the video, spread over it, at width × height."""
    capture = cv2.VideoCapture(str(VIDEO))
    found: list[Frame] = []
    try:
        while len(found) < count:
            for _ in range(step):
                if not capture.grab():
                    return found
            found.append(cv2.resize(capture.retrieve()[1], size, interpolation=cv2.INTER_AREA))
    finally:
        capture.release()
    return found


def made_slow(stage: Stage, hindrance: Callable[[], None]) -> Stage:
    """Return the stage, its engine hindered before each run: it may sleep, or raise."""
    engine: Engine = stage.engine
    run = engine._run

    def hindered(batch: Batch) -> Batch:
        hindrance()
        return run(batch)

    engine._run = hindered  # type: ignore[method-assign]
    return stage


def rss_bytes() -> int:
    """Memory of this process that is in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    """Open files of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))
