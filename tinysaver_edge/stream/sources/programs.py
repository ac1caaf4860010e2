"""Frames from the program itself: anything that can be iterated, or a function that is called."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from tinysaver_edge.errors import InputError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.sources.live import Connection, Patience
from tinysaver_edge.stream.sources.source import Frame, Source


class IterableSource(Source):
    """Every frame of an iterable, when it is asked for.

    Args:
        items: pictures ``(height, width, 3)`` BGR uint8, which get numbers and the time at which
            they came; or `Frame`, taken as they are.
        source_id: what decisions call it.
    """

    def __init__(self, items: Iterable[Picture | Frame], *, source_id: str = "frames") -> None:
        super().__init__(source_id)
        self._items = items

    def _frames(self, reuse: bool) -> Iterator[Frame]:
        for number, item in enumerate(self._items):
            if self.closed:
                return
            if isinstance(item, Frame):
                yield item
            else:
                checked = _picture(item, self.source_id, number)
                yield Frame(checked, self.context.clock(), number, self.source_id)


class CallbackDevice:
    """A function that waits for the next picture and returns it, or None when there are no more.

    It is called from a thread of the source's own. To have the device opened anew, it raises
    `DeviceError`; anything else that it raises ends the stream.
    """

    live_wait_s: float | None = None

    def __init__(self, function: Callable[[], Picture | None]) -> None:
        self._function = function

    def connect(self, patience: Patience, stopping: threading.Event) -> Connection:
        """Take the function as it is."""
        return self

    def read(self, into: Picture | None) -> Picture | None:
        """Call the function."""
        image = self._function()
        return None if image is None else _picture(image, "callback", None)

    def close(self) -> None:
        """Let go of nothing."""


def _picture(item: object, source_id: str, number: int | None) -> Picture:
    if isinstance(item, np.ndarray) and item.dtype == np.uint8:
        return item
    where = "" if number is None else f", frame {number}"
    kind = item.dtype if isinstance(item, np.ndarray) else type(item).__name__
    raise InputError(
        f"source {source_id}{where}: is {kind}; expected a uint8 array (height, width, 3), BGR"
    )
