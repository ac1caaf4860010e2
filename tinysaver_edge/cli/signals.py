"""SIGINT and SIGTERM end what runs, in good order; one more, a second later, ends it at once."""

from __future__ import annotations

import atexit
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)

AGAIN_S = 1.0
"""A signal that follows sooner is the same one, passed on by a shell, `timeout` or a runner."""


@dataclass(slots=True)
class Stop:
    """Whether a signal came, and which.

    Attributes:
        signal: the first that came, or None.
    """

    signal: signal.Signals | None = None


@contextmanager
def stopping_on_signals(
    close: Callable[[], None], *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Stop]:
    """Call a function when a signal to stop comes, instead of being interrupted anywhere.

    It is called in a thread of its own: a handler runs in the middle of whatever the main thread
    does, which may hold the very lock that is needed.

    Args:
        close: makes the work inside end.
        clock: seconds.
    """
    stop, first_s = Stop(), 0.0
    before = {number: signal.getsignal(number) for number in STOPPING}

    def stopped(number: int, _: FrameType | None) -> None:
        nonlocal first_s
        if stop.signal is None:
            stop.signal, first_s = signal.Signals(number), clock()
            threading.Thread(target=close, name="stopping", daemon=True).start()
        elif clock() - first_s >= AGAIN_S:
            for each, handler in before.items():
                signal.signal(each, handler)
            signal.raise_signal(number)

    def deaf() -> None:
        if stop.signal is not None:  # Python takes its handlers down: the last moment is not safe
            for each in STOPPING:
                signal.signal(each, signal.SIG_IGN)

    try:
        for number in STOPPING:
            signal.signal(number, stopped)
        atexit.register(deaf)
    except ValueError:  # not the main thread: whoever is will be told of signals
        yield stop
        return
    try:
        yield stop
    finally:
        if stop.signal is None:  # else the same signal may still come once more, before the end
            for number, handler in before.items():
                signal.signal(number, handler)
