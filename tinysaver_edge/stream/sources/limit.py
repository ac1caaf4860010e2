"""So many frames and no more: what was begun is finished, nothing else is begun."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar, cast

from tinysaver_edge.errors import InputError, SourceError
from tinysaver_edge.stream.sources.source import Context, Frame, Source

if TYPE_CHECKING:
    from collections.abc import Generator


def limited(sources: Sequence[Source], frames: int) -> list[Source]:
    """Return sources that together give so many frames, and end then as files do.

    A stream of them asks the large model about each, and its sinks have each: closing the stream
    after so many decisions would cut off those that are on their way.

    Args:
        sources: each gives its frames through one of those that are returned.
        frames: how many, at least one.

    Raises:
        InputError: it is none.
    """
    if frames < 1:
        raise InputError(f"a limit of {frames} frames: at least 1")
    budget = _Budget(sources, frames)
    return [(_LimitedLive if one.live else _Limited)(one, budget) for one in sources]


class _Budget:
    def __init__(self, sources: Sequence[Source], frames: int) -> None:
        self._sources = sources
        self._left = frames
        self._lock = threading.Lock()

    def is_spent(self) -> bool:
        """Whether no more frames may be given."""
        with self._lock:
            return self._left <= 0

    def take(self) -> bool:
        """Whether one more frame may be given; with the last, nobody waits for another."""
        with self._lock:
            self._left -= 1
            left = self._left
        if left == 0:
            for source in self._sources:
                source.close()
        return left >= 0


class _Limited(Source):
    def __init__(self, source: Source, budget: _Budget) -> None:
        self._source, self._budget = source, budget
        super().__init__(source.source_id)

    @property  # a stream renames sources of one name
    def source_id(self) -> str:
        return self._source.source_id

    @source_id.setter
    def source_id(self, name: str) -> None:
        self._source.source_id = name

    def attach(self, context: Context) -> None:
        super().attach(context)
        self._source.attach(context)

    def frames(self, *, reuse: bool = False) -> Iterator[Frame]:
        return self._counted(reuse)

    def _counted(self, reuse: bool) -> Iterator[Frame]:
        try:
            frames = self._source.frames(reuse=reuse)
        except SourceError:
            if self._budget.is_spent():  # the others were quicker
                return
            raise
        with closing(cast("Generator[Frame, None, None]", frames)):
            for frame in frames:
                if not self._budget.take():
                    return
                yield frame

    def _frames(self, reuse: bool) -> Iterator[Frame]:
        return self._source.frames(reuse=reuse)

    def _close(self) -> None:
        self._source.close()


class _LimitedLive(_Limited):
    live: ClassVar[bool] = True
