"""Requests that wait at the same moment are answered at once, where the model is quicker so."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.limits import MOST_ROWS, ROWS_AT_ONCE
from tinysaver_edge.engines.batching import most_at_once
from tinysaver_edge.errors import EngineError
from tinysaver_edge.preprocess import Batch

Answer: TypeAlias = "NDArray[Any] | Exception"


@dataclass(slots=True, eq=False)
class _Request:
    """What somebody waits for."""

    given: NDArray[Any]
    answer: asyncio.Future[NDArray[Any]]


class Batches:
    """Puts requests that wait into batches. Nobody waits for a batch to fill.

    A request whose client has gone while it waited is never begun with. For one event loop.

    Args:
        prepare: makes a request's batch of what was sent; raises `EngineError` where it is none.
        run: answers a batch.
        threads: how many may run at once.
        limit: single frames that are run at once at most.
    """

    def __init__(
        self,
        prepare: Callable[[NDArray[Any]], Batch],
        run: Callable[[Batch], NDArray[Any]],
        *,
        threads: int,
        limit: int,
    ) -> None:
        self._prepare, self._run, self._limit = prepare, run, limit
        self._waiting: deque[_Request] = deque()
        self._idle = threads
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="large")
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, given: NDArray[Any]) -> NDArray[Any]:
        """Wait for the answer to a request.

        One of many frames is answered in pieces, between which others have their turn: it neither
        takes memory by its length, nor keeps anybody waiting for long.

        Raises:
            EngineError: the run failed, the input is none, or it holds too many frames.
        """
        rows = given.shape[0] if given.ndim else 0
        if rows > MOST_ROWS:
            raise EngineError(f"{rows} frames in one request: at most {MOST_ROWS}")
        step = max(self._limit, ROWS_AT_ONCE)
        if rows <= step:
            return await self._turn(given)
        pieces = [await self._turn(given[at : at + step]) for at in range(0, rows, step)]
        return np.concatenate(pieces)

    async def _turn(self, given: NDArray[Any]) -> NDArray[Any]:
        request = _Request(given, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._idle:
            self._idle -= 1
            task = asyncio.create_task(self._answer_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await request.answer

    async def _answer_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while requests := self._next():
                given = [request.given for request in requests]
                answers: Sequence[Answer]
                try:
                    answers = await loop.run_in_executor(self._workers, self._answers, given)
                except Exception as error:  # who waits must hear of it, whatever it is
                    answers = [error] * len(requests)
                for request, answer in zip(requests, answers, strict=True):
                    _settle(request.answer, answer)
        finally:
            self._idle += 1

    def _next(self) -> list[_Request]:
        """Take the requests to answer at once: single frames together, others alone."""
        self._waiting = deque(one for one in self._waiting if not one.answer.cancelled())
        singles = 0
        while singles < len(self._waiting) and self._waiting[singles].given.shape[:1] == (1,):
            singles += 1
        count = max(most_at_once(singles, self._limit), min(1, len(self._waiting)))
        return [self._waiting.popleft() for _ in range(count)]

    def _answers(self, given: Sequence[NDArray[Any]]) -> list[Answer]:
        """Answer some requests in a worker's thread; what one of them lacks harms no other."""
        prepared = [self._prepared(one) for one in given]
        good = [one for one in prepared if not isinstance(one, EngineError)]
        rows = iter(self._rows(good))
        return [one if isinstance(one, EngineError) else next(rows) for one in prepared]

    def _prepared(self, given: NDArray[Any]) -> Batch | EngineError:
        try:
            return self._prepare(given)
        except EngineError as error:
            return error
        except Exception as error:  # what a decoder stumbles over is its sender's affair alone
            return EngineError(f"the input cannot be read ({type(error).__name__})")

    def _rows(self, batches: Sequence[Batch]) -> list[Answer]:
        if len(batches) > 1 and len({batch.shape for batch in batches}) == 1:
            try:
                values = self._run(np.concatenate(batches))
                return [values[place : place + 1] for place in range(len(batches))]
            except Exception:
                pass  # each alone tells which one it was
        return [self._alone(batch) for batch in batches]

    def _alone(self, batch: Batch) -> Answer:
        try:
            return self._run(batch)
        except Exception as error:  # another request's answer must not be lost over it
            return error


def _settle(waiting: asyncio.Future[NDArray[Any]], answer: Answer) -> None:
    if waiting.done():  # its client has gone
        return
    if isinstance(answer, Exception):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)
