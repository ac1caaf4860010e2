"""What happens to a stream besides frames: values, and who listens to them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a source or to the stream around it.

    No text of an event holds credentials.

    Attributes:
        source_id: which source; empty where it concerns them all.
        time_s: when, on the stream's clock, in seconds.
    """

    kind: ClassVar[str] = "event"
    """The event's name in logs and metrics."""

    _words: ClassVar[str] = "{0.kind}"
    """Its text, filled in with the event itself."""

    source_id: str
    time_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return the event as plain values for JSON, its kind among them."""
        return {"event": self.kind, **asdict(self)}

    @property
    def text(self) -> str:
        """The event in a few words, for people; without the source's name."""
        return self._words.format(self)


@dataclass(frozen=True, slots=True)
class Connected(Event):
    """A source is open and has given its first frame."""

    kind: ClassVar[str] = "connected"


@dataclass(frozen=True, slots=True)
class Lost(Event):
    """A live source gives no more frames; it is being opened again.

    Attributes:
        reason: what went wrong, in a few words.
    """

    kind: ClassVar[str] = "lost"
    _words: ClassVar[str] = "lost: {0.reason}"

    reason: str


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """A live source could not be opened; the next attempt follows after a pause.

    Attributes:
        attempt: how many have failed in a row, from 1.
        wait_s: seconds until the next.
        reason: why the last one failed.
    """

    kind: ClassVar[str] = "retrying"
    _words: ClassVar[str] = "attempt {0.attempt} failed, the next in {0.wait_s:.1f} s: {0.reason}"

    attempt: int
    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Reconnected(Event):
    """A lost source gives frames again.

    Attributes:
        down_s: seconds since it was lost.
        attempts: how often it was tried, the attempt that succeeded included.
    """

    kind: ClassVar[str] = "reconnected"
    _words: ClassVar[str] = "back after {0.down_s:.1f} s"

    down_s: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Dropped(Event):
    """Frames were left out because newer ones came before anyone asked for them.

    Attributes:
        frames: how many since the last event of this kind.
    """

    kind: ClassVar[str] = "dropped"

    frames: int

    @property
    def text(self) -> str:
        """The event in a few words."""
        return f"{frames(self.frames)} dropped: newer ones had come"


@dataclass(frozen=True, slots=True)
class Corrupt(Event):
    """A frame of a file could not be decoded; the stream goes on with the next.

    Attributes:
        sequence: which frame; the decisions have a gap there.
        reason: what is wrong with it.
    """

    kind: ClassVar[str] = "corrupt"
    _words: ClassVar[str] = "frame {0.sequence} left out: {0.reason}"

    sequence: int
    reason: str


@dataclass(frozen=True, slots=True)
class Doubtful(Event):
    """A source can be read, but perhaps not as meant. Told once a source and cause.

    Attributes:
        reason: what is doubtful: files of a folder that are left out, pictures that go dark, or
            further pictures in a file.
    """

    kind: ClassVar[str] = "doubtful"
    _words: ClassVar[str] = "{0.reason}"

    reason: str


@dataclass(frozen=True, slots=True)
class Frozen(Event):
    """A camera goes on giving frames, all of them the same; told once, until one differs.

    Attributes:
        for_s: how long it has done so.
    """

    kind: ClassVar[str] = "frozen"
    _words: ClassVar[str] = "frozen: exactly the same picture for {0.for_s:.0f} s"

    for_s: float


@dataclass(frozen=True, slots=True)
class Changed(Event):
    """A source shows another class than it did, by enough frames or by one that is sure.

    Attributes:
        sequence: the frame that settled it.
        before: the class announced before; None for the first.
        after: the class from now on.
        confidence: of that frame's answer, 0..1.
        answered_by: its `Decision.source`.
    """

    kind: ClassVar[str] = "changed"

    sequence: int
    before: str | None
    after: str
    confidence: float
    answered_by: str

    @property
    def text(self) -> str:
        """The event in a few words."""
        return f"now {self.after}{'' if self.before is None else f' (before: {self.before})'}"


@dataclass(frozen=True, slots=True)
class Undecided(Event):
    """No model could answer a frame of a live source; the stream goes on with the next.

    Attributes:
        sequence: which frame; the decisions have a gap there.
        reason: what went wrong.
    """

    kind: ClassVar[str] = "undecided"
    _words: ClassVar[str] = "frame {0.sequence} has no answer: {0.reason}"

    sequence: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """A source has no more frames, or has failed for good.

    Attributes:
        frames: how many it gave.
        reason: why it failed; None where it ran to its end or was closed.
    """

    kind: ClassVar[str] = "ended"

    frames: int
    reason: str | None = None

    @property
    def text(self) -> str:
        """The event in a few words."""
        return f"ended after {frames(self.frames)}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True)
class Drift(Event):
    """Audited frames disagree more often than the calibration promised.

    Attributes:
        audited: frames that were audited so far.
        disagreed: how many of them the large model answered otherwise.
        evidence: value of the e-process.
        alarm_at: the value at which it raises the alarm.
        level: bound on the probability of a false alarm, over the whole life of the stream.
        action: what the stream does about it, in a few words.
    """

    kind: ClassVar[str] = "drift"

    audited: int
    disagreed: int
    evidence: float
    alarm_at: float
    level: float
    action: str

    @property
    def text(self) -> str:
        """The event in a few words."""
        return f"drift: {self.disagreed} of {self.audited} audited frames disagree; {self.action}"


@dataclass(frozen=True, slots=True)
class BundleNews(Event):
    """Something became of a bundle that a stream follows a tag for.

    Attributes:
        outcome: ``trial`` (it decides from now on, and is watched), ``kept`` (it has passed),
            ``rolled_back`` (the one before decides again), ``refused`` (it never decided),
            ``paused`` (it is tried anew at the next start), ``away`` (none can be fetched now) or
            ``damaged`` (what decided before the start cannot be opened; another decides).
        bundle: which: name, version and hash as far as they are known.
        reason: why.
    """

    kind: ClassVar[str] = "bundle"

    outcome: str
    bundle: str
    reason: str

    @property
    def text(self) -> str:
        """The event in a few words."""
        words = {"rolled_back": "rolled back", "trial": "on trial", "away": "not fetched"}
        why = f": {self.reason}" if self.reason else ""
        return f"bundle {self.bundle} {words.get(self.outcome, self.outcome)}{why}"


@dataclass(frozen=True, slots=True)
class SinkFailed(Event):
    """A sink could not take a decision; the stream goes on without it.

    Told when it begins to fail, not for every decision: `Counter.SINK_FAILED` counts those.

    Attributes:
        sink: the sink's name.
        reason: what went wrong.
    """

    kind: ClassVar[str] = "sink_failed"
    _words: ClassVar[str] = "sink {0.sink} failed: {0.reason}"

    sink: str
    reason: str


@dataclass(frozen=True, slots=True)
class SinkRecovered(Event):
    """A sink that failed takes decisions again.

    Attributes:
        sink: the sink's name.
        lost: decisions that it could not take meanwhile.
    """

    kind: ClassVar[str] = "sink_recovered"
    _words: ClassVar[str] = "sink {0.sink} works again; {0.lost} decisions were lost"

    sink: str
    lost: int


@dataclass(frozen=True, slots=True)
class Denied(Event):
    """Somebody asked the page or the metrics with wrong tokens; told once a minute at most.

    Attributes:
        tries: wrong tokens since it was told last.
        address: where the last of them came from.
    """

    kind: ClassVar[str] = "denied"

    tries: int
    address: str

    @property
    def text(self) -> str:
        """The event in a few words."""
        number = "a wrong token" if self.tries == 1 else f"{self.tries} wrong tokens"
        return f"{number}, the last from {self.address}"


def frames(number: int) -> str:
    """Write so many frames: ``1 frame``, ``2 frames``."""
    return f"{number} frame" if number == 1 else f"{number} frames"


class Listener(Protocol):
    """Hears of events. Called from the stream's threads, one call at a time a source.

    It must return at once: what takes long belongs into a queue of the listener's own. What it
    raises is not caught where it would hide a mistake: it ends the stream.
    """

    def __call__(self, event: Event, /) -> None:
        """Something happened."""


def ignore(event: Event, /) -> None:
    """Listen to nothing."""


class Listeners:
    """Passes every event on to several listeners, in their order."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)

    def add(self, listener: Listener) -> None:
        """Pass them on to one more; to be called before the stream starts."""
        self._listeners.append(listener)

    def __call__(self, event: Event, /) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener(event)
