"""The simulated camera as a live source: `demo://?fps=30&seed=1&frames=300`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from tinysaver_edge.demo.camera import LabelledFrame, SimulatedCamera
from tinysaver_edge.errors import InputError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.sources.live import Connection, LiveOptions, LiveSource
from tinysaver_edge.stream.sources.opening import float_option, int_option, need_known
from tinysaver_edge.stream.sources.source import Clock
from tinysaver_edge.stream.sources.uri import SourceUri


class DemoDevice:
    """The simulated camera, at its own pace.

    Args:
        fps: frames a second.
        seed: which camera.
        frames: how many it takes; None for no end.
        clock: seconds, to keep the pace with.
    """

    def __init__(
        self,
        *,
        fps: float = 30.0,
        seed: int = 0,
        frames: int | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._camera = SimulatedCamera(seed=seed, fps=fps)
        self._frames = frames
        self._clock = clock

    def connect(self, options: LiveOptions, stopping: threading.Event) -> Connection:
        """Start the camera anew."""
        return _Running(iter(self._camera), self._camera.fps, self._frames, self._clock, stopping)


class _Running:
    """The camera while it runs; a frame that is drawn too late is taken late, not left out."""

    live_wait_s: float | None = None

    def __init__(
        self,
        drawn: Iterator[LabelledFrame],
        fps: float,
        frames: int | None,
        clock: Clock,
        stopping: threading.Event,
    ) -> None:
        self._drawn, self._period_s, self._left = drawn, 1 / fps, frames
        self._clock, self._stopping = clock, stopping
        self._next_s = clock()

    def read(self, into: Picture | None) -> Picture | None:
        """Wait for the next frame."""
        if self._left == 0:
            return None
        if self._left is not None:
            self._left -= 1
        frame, _ = next(self._drawn)
        wait_s = self._next_s - self._clock()
        if wait_s > 0:
            self._stopping.wait(wait_s)
        self._next_s = max(self._next_s, self._clock() - self._period_s) + self._period_s
        return frame

    def close(self) -> None:
        """Let go of nothing."""


def open_demo(uri: SourceUri) -> LiveSource:
    """Open the simulated camera.

    Raises:
        InputError: an option is unknown or out of range.
    """
    need_known(uri, "fps", "seed", "frames")
    seed = uri.options.get("seed", "0")
    if not (seed.isascii() and seed.isdigit()):
        raise InputError(f"source demo: seed {seed!r} is no whole number")
    device = DemoDevice(
        fps=float_option(uri, "fps") or 30.0, seed=int(seed), frames=int_option(uri, "frames")
    )
    return LiveSource(device, source_id=uri.source_id)
