"""A place for the newest frame: whoever puts one never waits, whoever takes one gets no old one."""

from __future__ import annotations

import threading

from tinysaver_edge.stream.sources.frame import Frame


class Slot:
    """Holds at most one frame, for one giver and one taker."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._frame: Frame | None = None
        self._closed = False

    def put(self, frame: Frame) -> Frame | None:
        """Leave a frame; return the one that nobody took, which is now dropped."""
        with self._condition:
            if self._closed:
                return frame
            dropped, self._frame = self._frame, frame
            self._condition.notify()
            return dropped

    def take(self, timeout_s: float) -> Frame | None:
        """Wait for a frame and take it; None when none came in time or the slot is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._frame is not None or self._closed, timeout_s)
            frame, self._frame = self._frame, None
            return frame

    def clear(self) -> Frame | None:
        """Throw away what is there, and return it."""
        with self._condition:
            frame, self._frame = self._frame, None
            return frame

    def close(self, *, discard: bool) -> None:
        """Take no more frames and wake the taker.

        Args:
            discard: throw away what is there; else it may still be taken.
        """
        with self._condition:
            self._closed = True
            if discard:
                self._frame = None
            self._condition.notify_all()

    @property
    def closed(self) -> bool:
        """Whether no more frames will come."""
        with self._condition:
            return self._closed and self._frame is None
