"""The contract of a sink, where decisions go; a function, changes and other packages as sinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tinysaver_edge._support.plug_ins import PlugIns
from tinysaver_edge.decision import Decision, Reason
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sources.source import Frame
from tinysaver_edge.stream.telemetry.events import Changed, Listener

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


class Sink(Protocol):
    """Takes decisions, in the order in which they are given out.

    A context manager: the stream enters it before the first frame and leaves it after the last
    decision, also when it is interrupted, so that nothing is lost that was taken.

    `write` is called by one thread at a time, and the stream goes on only when it returns: a sink
    that may take long (a disk, a network, a window) puts what it gets into a bounded queue and
    works it off in a thread of its own, dropping and counting what does not fit. What `write`
    raises is counted and told as `SinkFailed`; the stream goes on.
    """

    name: str
    """What it is called in events and metrics, without credentials."""

    @property
    def wants_frames(self) -> bool:
        """Whether it needs the picture of the next frame; asked before each.

        A stream that need not keep pictures is quicker: it reads them all into one buffer.
        """

    def write(self, decision: Decision, frame: Frame | None) -> bool | None:
        """Take one decision.

        Args:
            decision: ``decision.revision`` is 1 where it replaces the one given before for the
                same ``decision.frame_id``.
            frame: the frame at its full size, for the sink to keep but not to change; None where
                `wants_frames` was false when it was read.

        Returns:
            False where this decision is none that it writes, which tells nothing of whether it
            works; anything else where it has written it.
        """

    def __enter__(self) -> Self:
        """Open whatever is written to.

        Raises:
            TinySaverError: it cannot be; the stream does not start.
        """

    def __exit__(self, *exception: object) -> None:
        """Write out what is left and close. It takes no longer than its own time-out."""


PLUG_INS = PlugIns("sink", InputError)
"""Sinks of other packages.

Each names a function of an argument, "" where none is given, that returns a `Sink`.
"""


def open_sink(text: str) -> Sink:
    """Make a sink of another package.

    Args:
        text: ``NAME`` or ``NAME:ARGUMENT``; what the argument means is the sink's affair.

    Raises:
        InputError: there is no such sink, or what stands for it is none.
        TinySaverError: the sink refuses the argument.
    """
    name, _, argument = text.partition(":")
    known = sorted(PLUG_INS.names())
    if name not in known:
        there = f"there are {', '.join(known)}" if known else "no installed package brings any"
        raise InputError(f"sink {name!r}: no such sink; {there}")
    made: Sink = PLUG_INS.make(name, argument)  # type: ignore[assignment]
    missing = [part for part in ("name", "wants_frames", "write") if not hasattr(made, part)]
    missing += [part for part in ("__enter__", "__exit__") if not hasattr(type(made), part)]
    if missing:
        raise InputError(
            f"{PLUG_INS.told(name)} made no tinysaver_edge.stream.Sink: it has no {missing[0]}"
        )
    return made


SURE = 0.9
"""Confidence from which one frame alone announces a class."""


class ChangeSink:
    """Tells a listener as `Changed` when a source shows another class, and keeps on showing it.

    A new class is announced after so many frames running that agree on it, or by one that is sure:
    whose answer is what the policy asks for, with a confidence of at least `sure`. An answer that
    is repeated counts as its frame's own. A provisional answer announces nothing: its revision
    does. Decisions themselves stay what they are.

    Args:
        hold: frames that must agree, at least 1.
        listener: hears of it.
        clock: seconds, for the events.
        sure: confidence from which one frame suffices, 0..1; above 1 none does.

    Raises:
        InputError: no frame would have to agree.
    """

    name = "changes"
    wants_frames = False

    def __init__(
        self, hold: int, *, listener: Listener, clock: Callable[[], float], sure: float = SURE
    ) -> None:
        if hold < 1:
            raise InputError(f"hold {hold}: at least 1 frame")
        self._hold, self._sure = hold, sure
        self._listener, self._clock = listener, clock
        self._announced: dict[str, str] = {}
        self._seen: dict[str, tuple[str, int]] = {}

    def write(self, decision: Decision, frame: Frame | None) -> bool | None:
        """Take one decision; announce what it settles."""
        if decision.reason is Reason.PROVISIONAL:
            return False
        source_id, label = decision.frame_id.source_id, decision.label
        before, count = self._seen.get(source_id, (label, 0))
        count = count + 1 if before == label else 1
        self._seen[source_id] = (label, count)
        announced = self._announced.get(source_id)
        certain = decision.degraded is None and decision.confidence >= self._sure
        if label == announced or not (certain or count >= self._hold):
            return None
        self._announced[source_id] = label
        self._listener(
            Changed(
                source_id,
                self._clock(),
                decision.frame_id.sequence,
                announced,
                label,
                decision.confidence,
                decision.source.value,
            )
        )
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass
