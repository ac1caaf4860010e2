"""A function of the user's as a sink."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tinysaver_edge.decision import Decision
from tinysaver_edge.stream.sources.source import Frame

if TYPE_CHECKING:
    from typing_extensions import Self


class CallbackSink:
    """Calls a function with every decision, and with the frame where it wants frames.

    Args:
        function: called as ``function(decision, frame)``; the frame is None unless asked for.
        frames: whether it wants the pictures.
        name: what it is called in events and metrics.
    """

    def __init__(
        self,
        function: Callable[[Decision, Frame | None], object],
        *,
        frames: bool = False,
        name: str = "callback",
    ) -> None:
        self.name = name
        self._function = function
        self._frames = frames

    @property
    def wants_frames(self) -> bool:
        """Whether the function wants pictures."""
        return self._frames

    def write(self, decision: Decision, frame: Frame | None) -> None:
        """Call the function."""
        self._function(decision, frame if self._frames else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass
