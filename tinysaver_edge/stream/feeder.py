"""Reads one source, brings its frames to the saver's size and hands them to the dispatcher."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, cast

from tinysaver_edge.deciding.verdict import Case
from tinysaver_edge.preprocess import Preprocessor
from tinysaver_edge.stream.dispatcher import Dispatcher
from tinysaver_edge.stream.item import Item
from tinysaver_edge.stream.lane import Lane
from tinysaver_edge.stream.sources.frame import Frame
from tinysaver_edge.stream.sources.source import Source

if TYPE_CHECKING:
    from collections.abc import Generator

    from tinysaver_edge.cascade import Cascade


class Feeder:
    """One thread: reading, decoding and resizing overlap with the models at work.

    A frame is asked of the source only when there is room for it: a live source then gives its
    newest.

    Args:
        source: where frames come from.
        lane: where they go.
        dispatcher: takes them in.
        cascade: whose first stage they are prepared for.
        deadline_s: seconds from a frame's arrival to its final decision; None for no limit.
        shows: whether a sink wants the next frame's picture.
        ended: called at the end, with what went wrong or None.
    """

    def __init__(
        self,
        source: Source,
        lane: Lane,
        dispatcher: Dispatcher,
        cascade: Cascade,
        *,
        deadline_s: float | None,
        shows: Callable[[], bool],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._source, self._lane, self._dispatcher = source, lane, dispatcher
        self._deadline_s, self._shows, self._ended = deadline_s, shows, ended
        asked = cascade.judge.asked
        preprocess = cascade.stages[asked[0]].preprocess
        # Where all stages take the same input, nobody looks at the picture again.
        self._keeps = any(cascade.stages[later].preprocess != preprocess for later in asked[1:])
        self._preprocessor = Preprocessor(preprocess)
        self._thread = threading.Thread(
            target=self._run, name=f"feeder {source.source_id}", daemon=True
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end."""
        if self._thread is not threading.current_thread():
            self._thread.join(max(0.0, timeout_s))

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            reuse = not self._keeps
            frames = cast("Generator[Frame, None, None]", self._source.frames(reuse=reuse))
            with closing(frames):
                self._feed(frames)
        except BaseException as error:
            failure = error
        finally:
            self._ended(failure)

    def _feed(self, frames: Iterator[Frame]) -> None:
        clock = self._source.context.clock
        deadline_s = self._deadline_s
        while (batch := self._dispatcher.reserve(self._lane)) is not None:
            shown = self._shows()
            frame = next(frames, None)
            if frame is None:
                self._dispatcher.give_back(self._lane, batch)
                return
            started_s = clock()
            arrived_s = frame.timestamp_s if self._source.live else started_s
            self._preprocessor.into(frame.image, batch[0])
            case = Case(frame.frame_id, frame.timestamp_s)
            case.spent("preprocess", (clock() - started_s) * 1e3)
            if shown and not self._keeps:  # the source writes the next frame over this one
                frame = Frame(
                    frame.image.copy(), frame.timestamp_s, frame.sequence, frame.source_id
                )
            item = Item(
                self._lane,
                case,
                arrived_s,
                float("inf") if deadline_s is None else arrived_s + deadline_s,
                batch,
                frame=frame if shown or self._keeps else None,
                shown=shown,
            )
            if not self._dispatcher.offer(item):
                return
