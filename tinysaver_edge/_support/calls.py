"""Who is in the middle of a call: signal handlers and forked processes must not wait for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType

from tinysaver_edge.errors import EngineError


class Calls:
    """The threads that are in the middle of a call to some object. Entered around each call.

    A signal handler runs in the middle of whatever the main thread does: where that is a call to
    the object, its locks are held by the very thread that would wait for them. And of a process
    that is forked only the thread that forked goes on: locks that others hold stay held.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._process = os.getpid()
        self._depth: dict[int, int] = {}

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that made the object."""
        return os.getpid() != self._process

    @property
    def inside(self) -> bool:
        """Whether this thread is in the middle of a call."""
        return threading.get_ident() in self._depth

    def check(self) -> None:
        """Refuse to go on in a forked process.

        Raises:
            EngineError: this is one.
        """
        if self.forked:
            raise EngineError(
                f"{self._what} does not survive a fork: load it in each process, after the fork"
            )

    def end(self, close: Callable[[], None], *, apart: bool = False) -> None:
        """Call what ends the object: at once, or, from within a call, in a thread of its own.

        In a forked process there is nothing to end.

        Args:
            close: ends it.
            apart: in a thread of its own in any case.
        """
        if self.forked:
            return
        if apart or self.inside:
            threading.Thread(target=close, name="closing").start()
            return
        with self:
            close()

    def __enter__(self) -> None:
        thread = threading.get_ident()
        self._depth[thread] = self._depth.get(thread, 0) + 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        thread = threading.get_ident()
        left = self._depth[thread] - 1
        if left:
            self._depth[thread] = left
        else:
            del self._depth[thread]
