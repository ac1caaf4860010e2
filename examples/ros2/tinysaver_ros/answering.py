"""What the node does with a cascade: topics as sources, headers of answers, figures to tell.

Knows nothing of ROS: a header is whatever the message brought, kept until the answer goes out, so
that not a nanosecond of its stamp passes through a float.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

from tinysaver_edge import Bundle, Cascade, Decision, TinySaverError
from tinysaver_edge.stream import (
    CallbackSink,
    Corrupt,
    Counter,
    DriftOptions,
    DriftWatch,
    Event,
    Frame,
    Listener,
    Service,
    ServiceOptions,
    Source,
    Stream,
)
from tinysaver_ros.pictures import Picture, PictureError

HEADERS = 1024
"""Headers that are kept of images without an answer yet, far more than may be on their way."""

Reader: TypeAlias = Callable[[Any], Picture]
"""Reads a message; raises PictureError."""

TOLD_EVERY_S = 5.0
"""How often a topic whose images cannot be read says so."""


class TopicSource(Source):
    """A camera whose images come as messages: gives the newest ones, and knows their headers.

    Args:
        name: the camera's.
        picture_of: reads a message; called in the stream's thread, for images that are decided.
        waiting: images that may wait; where there are more the oldest is left out.
    """

    live = True

    def __init__(self, name: str, picture_of: Reader, *, waiting: int = 1) -> None:
        super().__init__(name)
        self._picture_of, self._most = picture_of, waiting
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, float, Any]] = deque()
        self._headers: OrderedDict[int, Any] = OrderedDict()
        self._sequence = 0
        self._told_s = float("-inf")

    def put(self, message: Any) -> None:
        """Take a message, from any thread; returns at once."""
        now_s = self.context.clock()
        with self._changed:
            left_out = len(self._waiting) == self._most
            if left_out:
                self._waiting.popleft()
            self._waiting.append((self._sequence, now_s, message))
            self._sequence += 1
            self._changed.notify()
        if left_out:
            self.context.metrics.count(Counter.DROPPED, self.source_id)

    def header_of(self, sequence: int) -> Any:
        """Return the header of an image, once; None where it is not kept any more."""
        with self._changed:
            return self._headers.pop(sequence, None)

    def _frames(self, reuse: bool) -> Iterator[Frame]:
        while (item := self._next()) is not None:
            sequence, came_s, message = item
            try:
                picture = self._picture_of(message)
            except PictureError as error:
                self._pass_over(sequence, error)
                continue
            with self._changed:
                self._headers[sequence] = message.header
                if len(self._headers) > HEADERS:
                    self._headers.popitem(last=False)
            yield Frame(picture, came_s, sequence, self.source_id)

    def _next(self) -> tuple[int, float, Any] | None:
        with self._changed:
            while not self._waiting and not self.closed:
                self._changed.wait()
            return None if self.closed else self._waiting.popleft()

    def _pass_over(self, sequence: int, error: PictureError) -> None:
        self.context.metrics.count(Counter.CORRUPT, self.source_id)
        now_s = self.context.clock()
        if now_s - self._told_s >= TOLD_EVERY_S:
            self._told_s = now_s
            self.tell(Corrupt(self.source_id, now_s, sequence, str(error)))

    def _close(self) -> None:
        with self._changed:
            self._changed.notify_all()


class Level(IntEnum):
    """How something is; the numbers are those of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class Status:
    """What there is to say of one thing.

    Attributes:
        name: of the thing: a camera, drift, hosts.
        level: how it is.
        message: the same in a few words.
        values: figures.
    """

    name: str
    level: Level
    message: str
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """How the cameras are decided; as the node's parameters of the same names.

    Attributes:
        cameras: their names, at least one; "" is a camera without a name.
        escalation: ``"wait"`` or ``"local"``.
        deadline_ms: from an image's arrival to its answer.
        waiting: images of a camera that may wait.
        audit_share: of the accepted answers that the large model checks; 0 for none.
    """

    cameras: tuple[str, ...]
    escalation: str
    deadline_ms: float
    waiting: int
    audit_share: float


class Answering:
    """Decides the images of some cameras while it runs; may be started and stopped again and again.

    Drift is watched over all of that: an alarm stays.

    Args:
        cascade: decides.
        bundle: whose cascade it is.
        settings: how.
        answered: called in the stream's thread with a camera's name, the image's header and the
            answer.
        listener: hears of events.
        clock: seconds.
    """

    def __init__(
        self,
        cascade: Cascade,
        bundle: Bundle,
        settings: Settings,
        *,
        answered: Callable[[str, Any, Decision], object],
        listener: Listener,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cascade, self._settings = cascade, settings
        self._answered, self._clock = answered, clock
        share = settings.audit_share
        self.service = Service(
            ServiceOptions(drift=DriftOptions(share=share) if share else None),
            bundle.manifest,
            clock=clock,
            wall=time.time,
            sources=len(settings.cameras),
            listener=listener,
            reuse=cascade.reuse,
        )
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._thread: threading.Thread | None = None
        self._sources: dict[str, TopicSource] = {}
        self._before: dict[tuple[str, Counter], int] = {}
        self._before_s = clock()
        self.failure: str | None = None

    def start(self, picture_of: Reader) -> None:
        """Decide what is put from now on.

        Raises:
            TinySaverError: an option cannot be used.
        """
        settings = self._settings
        self._sources = {
            name: TopicSource(name or "image", picture_of, waiting=settings.waiting)
            for name in settings.cameras
        }
        names = {source.source_id: name for name, source in self._sources.items()}

        def deliver(decision: Decision, _: Frame | None) -> None:
            name = names[decision.frame_id.source_id]
            header = self._sources[name].header_of(decision.frame_id.sequence)
            with self._lock:  # once `stop` has returned nobody is called any more
                if header is not None and self._stream is not None:
                    self._answered(name, header, decision)

        stream = self._cascade.stream(
            *self._sources.values(),
            escalation=settings.escalation,
            deadline_ms=settings.deadline_ms,
            sinks=[CallbackSink(deliver, name="topic"), *self.service.sinks],
            listener=self.service.listener,
            metrics=self.service.metrics,
            watch=self.service.watch,
        )
        self._before, self._before_s = self._counts(), self._clock()
        self._stream = stream
        self._thread = threading.Thread(target=self._run, args=(stream,), name="stream")
        self._thread.start()

    def _run(self, stream: Stream) -> None:
        try:
            stream.run()
        except TinySaverError as error:
            self.failure = str(error)

    def put(self, camera: str, message: Any) -> None:
        """Take an image, from any thread; returns at once."""
        source = self._sources.get(camera)
        if source is not None:
            source.put(message)

    def stop(self) -> None:
        """Answer what is on its way and stop; legal in every state."""
        stream, thread = self._stream, self._thread
        if stream is not None:
            stream.close()
        with self._lock:
            self._stream = self._thread = None
        if thread is not None:
            thread.join()

    @property
    def running(self) -> bool:
        """Whether images are decided."""
        return self._stream is not None

    # What there is to tell

    def statuses(self) -> list[Status]:
        """Return how the cameras are since this was last asked, and drift and hosts."""
        now_s, counts = self._clock(), self._counts()
        passed_s = max(1e-3, now_s - self._before_s)
        told = [self._of_camera(name, counts, passed_s) for name in self._settings.cameras]
        self._before, self._before_s = counts, now_s
        return [*told, *self._of_drift(), *self._of_hosts()]

    def _counts(self) -> dict[tuple[str, Counter], int]:
        tally = self.service.tally
        return {
            (name, counter): tally.total(counter, source_id=name or "image")
            for name in self._settings.cameras
            for counter in (
                Counter.FRAMES,
                Counter.DROPPED,
                Counter.CORRUPT,
                Counter.DECISIONS,
                Counter.ESCALATED,
                Counter.DEGRADED,
                Counter.UNDECIDED,
            )
        }

    def _of_camera(
        self, name: str, counts: Mapping[tuple[str, Counter], int], passed_s: float
    ) -> Status:
        now = {counter: total for (camera, counter), total in counts.items() if camera == name}
        new = {one: total - self._before.get((name, one), 0) for one, total in now.items()}
        values = {one.value: str(total) for one, total in now.items()}
        came = new[Counter.FRAMES] + new[Counter.DROPPED] + new[Counter.CORRUPT]
        values["images_per_s"] = f"{came / passed_s:.1f}"
        values["answers_per_s"] = f"{new[Counter.DECISIONS] / passed_s:.1f}"
        level, said = _judged(new, came)
        if not self.running:
            level, said = Level.OK, "inactive"
        if self.failure is not None:
            level, said = Level.ERROR, self.failure
        return Status(name or "image", level, said, values)

    def _of_drift(self) -> Sequence[Status]:
        watch = self.service.watch
        if not isinstance(watch, DriftWatch):
            return [Status("drift", Level.OK, "not watched")]
        state = watch.state
        values = {
            "audited": str(state.audited),
            "disagreed": str(state.disagreed),
            "promised": f"{state.promised:.4g}",
            "evidence": f"{state.evidence:.3g}",
            "alarms": str(state.alarms),
            "accepting": str(state.accepting).lower(),
        }
        if state.alarms:
            return [Status("drift", Level.WARN, state.last_alarm or "alarm", values)]
        return [Status("drift", Level.OK, "no alarm", values)]

    def _of_hosts(self) -> Iterator[Status]:
        for host in getattr(self._cascade.stages[-1].engine, "hosts", ()):
            values = {
                "answered": str(host.answered),
                "reconnects": str(host.reconnects),
                "latency_ms": f"{host.latency_ms:.1f}",
                "in_use": str(host.in_use).lower(),
                "model": str(host.identity or "not told"),
            }
            well = host.state.value == "closed"
            said = "asked" if well else f"left alone: its breaker is {host.state.value}"
            yield Status(f"host {host.name}", Level.OK if well else Level.WARN, said, values)


def _judged(new: Mapping[Counter, int], came: int) -> tuple[Level, str]:
    """Return how a camera is by what happened since it was last told of."""
    if not came:
        return Level.WARN, "no images come"
    if new[Counter.CORRUPT] == came:
        return Level.ERROR, "no image can be read"
    if new[Counter.UNDECIDED] and not new[Counter.DECISIONS]:
        return Level.ERROR, "no model answers"
    troubles = {
        "cannot be read": new[Counter.CORRUPT],
        "without an answer": new[Counter.UNDECIDED],
        "degraded": new[Counter.DEGRADED],
        "left out": new[Counter.DROPPED],
    }
    said = ", ".join(f"{number} {what}" for what, number in troubles.items() if number)
    return (Level.WARN, f"of {came} images {said}") if said else (Level.OK, "answered")


def heeds(event: Event) -> bool:
    """Whether an event is one that a person should see to."""
    return event.kind in {"corrupt", "doubtful", "drift", "frozen", "sink_failed", "undecided"}
