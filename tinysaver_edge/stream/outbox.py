"""Where decisions wait for the program that asks for them, by waiting or by awaiting."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from tinysaver_edge.decision import Decision

Taken = Callable[[], None]
"""Called when a decision was taken."""


class Outbox:
    """Decisions in the order in which they came. Its bounds are the lanes' windows."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._decisions: deque[tuple[Decision, Taken]] = deque()
        self._waiters: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self._error: BaseException | None = None
        self._closed = False

    def put(self, decision: Decision, taken: Taken) -> None:
        """Leave a decision."""
        with self._changed:
            self._decisions.append((decision, taken))
            self._wake()

    def close(self, error: BaseException | None = None) -> None:
        """Take no more; whoever asks gets what is left, and then the error, if there is one."""
        with self._changed:
            self._closed = True
            if self._error is None:
                self._error = error
            self._wake()

    def get(self) -> Decision | None:
        """Wait for a decision; None when there are no more.

        Raises:
            BaseException: what the outbox was closed with.
        """
        with self._changed:
            while not (self._decisions or self._closed):
                self._changed.wait()
        return self._take()

    async def get_async(self) -> Decision | None:
        """Await a decision, as `get` waits for it."""
        while True:
            with self._changed:
                if self._decisions or self._closed:
                    break
                loop = asyncio.get_running_loop()
                woken: asyncio.Future[None] = loop.create_future()
                self._waiters.append((loop, woken))
            await woken
        return self._take()

    def _take(self) -> Decision | None:
        with self._changed:
            if not self._decisions:
                if self._error is not None:
                    raise self._error
                return None
            decision, taken = self._decisions.popleft()
        taken()
        return decision

    def _wake(self) -> None:
        self._changed.notify()
        while self._waiters:
            loop, woken = self._waiters.popleft()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake_up, woken)


def _wake_up(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
