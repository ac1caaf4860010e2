"""SIGINT and SIGTERM end what runs, in good order; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Stop:
    """Whether a signal came, and which.

    Attributes:
        signal: the first that came, or None.
    """

    signal: signal.Signals | None = None


@contextmanager
def stopping_on_signals(close: Callable[[], None]) -> Iterator[Stop]:
    """Call a function when a signal to stop comes, instead of being interrupted anywhere.

    It is called in a thread of its own: a handler runs in the middle of whatever the main thread
    does, which may hold the very lock that is needed.

    Args:
        close: makes the work inside end.
    """
    stop = Stop()
    before = {number: signal.getsignal(number) for number in STOPPING}

    def stopped(number: int, _: FrameType | None) -> None:
        stop.signal = signal.Signals(number)
        for each, handler in before.items():
            signal.signal(each, handler)
        threading.Thread(target=close, name="stopping", daemon=True).start()

    try:
        for number in STOPPING:
            signal.signal(number, stopped)
    except ValueError:  # not the main thread: whoever is will be told of signals
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
