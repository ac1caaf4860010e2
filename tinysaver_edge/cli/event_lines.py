"""What happens to a stream, told on the terminal: at most a few lines at a time, none invented."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tinysaver_edge.cli import terminal
from tinysaver_edge.decision import Reason
from tinysaver_edge.stream.telemetry.events import (
    Connected,
    Corrupt,
    Dropped,
    Ended,
    Event,
    Lost,
    Retrying,
    Undecided,
    frames,
)
from tinysaver_edge.stream.telemetry.metrics import Counter, Tally

EVERY_S = 30.0
"""How often one kind of event is told again, where it comes in floods."""

RETRIES_EVERY_S = 600.0
"""The same for a camera that stays away, which may be for days."""

FLOODS: Mapping[type[Event], tuple[int, float]] = MappingProxyType(
    {
        Dropped: (1, EVERY_S),
        Corrupt: (5, EVERY_S),
        Undecided: (5, EVERY_S),
        Retrying: (5, RETRIES_EVERY_S),
    }
)
"""Events that come in floods: how many are told one by one, and how often then a sum."""


@dataclass(slots=True)
class _Flood:
    """Events of one kind: when they were last told, and what has been held back since."""

    since_s: float
    told: int = 0
    events: int = 0
    frames: int = 0


class Teller:
    """A listener that writes what happens to stderr, unless it is as expected.

    A camera that is too quick drops frames all day, and a damaged file may lack thousands: of such
    events the first are told as they come, the rest as sums, one line in half a minute or more.
    Frames that are held back at the end are in the totals, see `left_out`.

    Args:
        clock: seconds.
        say: writes one line.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], object] = terminal.say,
    ) -> None:
        self._clock, self._say = clock, say
        self._lock = threading.Lock()
        self._floods: dict[tuple[type[Event], str], _Flood] = {}

    def __call__(self, event: Event, /) -> None:
        """Tell it, or hold it back."""
        if isinstance(event, Connected | Ended):
            return
        with self._lock:
            if isinstance(event, Lost):  # what follows is news again
                self._floods.pop((Retrying, event.source_id), None)
            text = self._text(event) if type(event) in FLOODS else event.text
            if text is not None:
                self._say(f"{event.source_id}: {text}" if event.source_id else text)

    def _text(self, event: Event) -> str | None:
        now = self._clock()
        singly, every_s = FLOODS[type(event)]
        name = "" if isinstance(event, Corrupt) else event.source_id  # each image is a source
        flood = self._floods.setdefault((type(event), name), _Flood(now))
        flood.events += 1
        flood.frames += event.frames if isinstance(event, Dropped) else 1
        if now - flood.since_s >= every_s:
            goes_on = flood.events > 1
            self._floods[type(event), name] = _Flood(now, told=singly if goes_on else 1)
            return _summed(event, flood, now - flood.since_s) if goes_on else event.text
        if flood.told >= singly:
            return None
        flood.told += 1
        flood.events = flood.frames = 0
        return event.text


def _summed(event: Event, flood: _Flood, spent_s: float) -> str:
    if isinstance(event, Dropped):
        return f"{frames(flood.frames)} dropped in {spent_s:.0f} s: newer ones had come"
    return f"{event.text} (and {flood.events - 1} others in {spent_s:.0f} s)"


WHY = {
    Reason.DEADLINE: "past the deadline",
    Reason.IN_FLIGHT: "as too many frames waited for the large model already",
    Reason.RATE: "as their source had used up what it may ask of the large model",
    Reason.FAILED: "as a model failed",
    Reason.LOCAL: "as the stream is local",
    Reason.STOPPED: "as the stream was closed",
    Reason.FALLBACK_DEVICE: "on another device than asked for",
}


def degraded(tally: Tally) -> list[str]:
    """Say why answers are not what the policy asks for."""
    counts = {why: tally.total(Counter.DEGRADED, detail=why.value) for why in WHY}
    parts = [f"{count} {WHY[why]}" for why, count in counts.items() if count]
    return [f"degraded: {', '.join(parts)}"] if parts else []


def left_out(tally: Tally, source_ids: Sequence[str]) -> list[str]:
    """Say how many frames got no answer, by cause, and of which sources they were."""
    lines = []
    for counter, what in (
        (Counter.DROPPED, "dropped: newer ones had come"),
        (Counter.CORRUPT, "could not be decoded"),
        (Counter.UNDECIDED, "had no answer: no model could give one"),
    ):
        counts = {one: tally.total(counter, source_id=one) for one in source_ids}
        shares = [f"{name} {count}" for name, count in counts.items() if count]
        if shares:
            of = f" ({', '.join(shares)})" if len(counts) > 1 else ""
            lines.append(f"{frames(sum(counts.values()))} {what}{of}")
    return lines
