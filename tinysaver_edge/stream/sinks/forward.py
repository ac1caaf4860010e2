"""Store and forward: hard and audited frames wait on disk through an outage and go out later.

They are for labels and the large model's answers after the fact, never for decisions. Each waits as
one file, which is whole or not there, so that a kill loses none and sends none by halves; what was
being sent then is sent again, under the same name.

A target that is away is tried ever more seldom, with another item each time. An item that fails
while others get through is to blame itself, and goes aside after a few tries; one that fails with
all the others is not.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from tinysaver_edge._support.files import atomic_write, kind_of
from tinysaver_edge._support.http_client import WebHost
from tinysaver_edge._support.text import brief
from tinysaver_edge._support.urls import Url, is_loopback, looks_like_address, redacted
from tinysaver_edge.data.files import ANSWER_COLUMN
from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import InputError, TransferError
from tinysaver_edge.stream.sinks.pictures import encoded, moment, plain
from tinysaver_edge.stream.sinks.queued import Counts, DiskQueue, ItemError, Queued, reason_of
from tinysaver_edge.stream.sinks.saved_frames import is_hard
from tinysaver_edge.stream.sources.source import Frame
from tinysaver_edge.stream.telemetry.events import Listener, SinkFailed, SinkRecovered, ignore
from tinysaver_edge.stream.telemetry.metrics import NO_METRICS, Metrics, Reading, reading

if TYPE_CHECKING:
    from typing_extensions import Self

LONGEST_PAUSE_S = 30.0
"""Between two tries while the target is away."""

LEAST_REST_S = 0.004
"""Between two frames, however quick the target: sending takes the interpreter from decisions."""

_OWN_FAULT = (400, 409, 413, 414, 415, 422)
_FORM = "give a folder or http(s)://HOST/PATH, which takes PUT"


@dataclass(frozen=True, slots=True)
class ForwardOptions:
    """What is sent on, and how much of anything it may take.

    Attributes:
        target: a folder, or ``http(s)://…``: each frame becomes NAME.jpg and NAME.json there.
        queue: folder that they wait in.
        most_bytes: of the queue; the oldest give way, and are counted.
        share: of the time that sending may take: the rest of it the uplink is left alone.
        pause_s: least time between two hard frames.

    Raises:
        InputError: a figure is out of range.
    """

    target: str = field(repr=False)
    queue: Path
    most_bytes: int = 256 << 20
    share: float = 0.25
    pause_s: float = 1.0

    def __post_init__(self) -> None:
        if self.most_bytes < 1 or not 0 < self.share <= 1 or not 0 <= self.pause_s < float("inf"):
            raise InputError(
                f"forward: {self.most_bytes} bytes, a share of {self.share:g}, a pause of "
                f"{self.pause_s:g} s: bytes from 1, a share above 0 and at most 1, a pause from 0"
            )


# Where they go


class Receiver(Protocol):
    """Takes items."""

    shown: str
    """It in messages, without credentials."""

    def take(self, name: str, content: bytes) -> None:
        """Take a file.

        Raises:
            ItemError: this one it never takes.
            TransferError: it takes none now.
            OSError: so does its disk.
        """


class _FolderReceiver:
    def __init__(self, folder: Path) -> None:
        self._folder, self.shown = folder, str(folder)

    def take(self, name: str, content: bytes) -> None:
        if not self._folder.is_dir():  # a share that is not mounted: nothing is to be made there
            raise TransferError(f"forward {self._folder}: is not there")
        with atomic_write(self._folder / name, private=True) as file:
            file.write(content)


class _WebReceiver:
    def __init__(self, url: Url) -> None:
        self._host = WebHost(url, what="forward", tls=url.scheme == "https")
        self._base = quote(url.path.rstrip("/"), safe="/%:=&+~!$,;'()*@")
        self._query = f"?{url.query}" if url.query else ""
        self.shown = self._host.shown

    def take(self, name: str, content: bytes) -> None:
        kind = "application/json" if name.endswith(".json") else "image/jpeg"
        headers = {**self._host.login, "Content-Type": kind}
        place = f"{self._base}/{quote(name)}{self._query}"
        answer = self._host.ask("PUT", place, headers=headers, body=content)
        if answer.status in _OWN_FAULT:
            raise ItemError(f"answers {answer.status}")
        self._host.check(answer, 200, 201, 202, 204)
        kind = answer.headers.get("content-type", "").lower()
        if answer.status == 200 and answer.body and kind.startswith("text/html"):
            raise self._host.failed(
                "answers with a page (200), not that it took the frame: is a log-in to the network "
                "in between?"
            )


def receiver_of(target: str) -> Receiver:
    """Return what takes items by its address or path.

    Raises:
        InputError: it is neither.
    """
    if target[:7].lower() == "http://" or target[:8].lower() == "https://":
        url = Url.parse(target, what="forward", form=_FORM)
        if url.scheme == "http" and not is_loopback(url.host):
            raise InputError(
                f"forward {url.shown()}: frames would cross the network in plain text: use https://"
            )
        return _WebReceiver(url)
    if not target or looks_like_address(target):
        raise InputError(f"forward {redacted(target)}: {_FORM}")
    folder = Path(target)
    if folder.exists() and not folder.is_dir():  # one that is not there may be mounted later
        raise InputError(f"forward {target}: is {kind_of(folder) or 'a file'}, no folder; {_FORM}")
    return _FolderReceiver(folder)


class Forwarder:
    """Sends what waits, in a thread of its own. A context manager.

    Args:
        queue: what waits; opened and closed with this.
        receiver: where it goes.
        share: of the time that sending may take.
        clock: seconds.
        listener: hears when the target goes away and when it is back.
        name: what it is called in events.
    """

    def __init__(
        self,
        queue: DiskQueue,
        receiver: Receiver,
        *,
        share: float,
        clock: Callable[[], float],
        listener: Listener = ignore,
        name: str = "forward",
    ) -> None:
        self.queue, self._receiver = queue, receiver
        self._share, self._clock, self._listener, self._name = share, clock, listener, name
        self._failures = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        """Begin to send.

        Raises:
            InputError: the queue's folder cannot be had.
        """
        self.queue.open()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop; what is left goes out after the next start."""
        self._stopping.set()
        with self.queue.changed:
            self.queue.changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(5.0)
        self.queue.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            name = self.queue.next()
            if name is None:
                with self.queue.changed:
                    if not self._stopping.is_set() and not self.queue.waiting:
                        self.queue.changed.wait(1.0)
                continue
            began_s = self._clock()
            self._send(name)
            rest_s = (self._clock() - began_s) * (1 / self._share - 1)
            away_s = min(2.0 ** min(self._failures, 10), LONGEST_PAUSE_S) if self._failures else 0.0
            self._stopping.wait(max(rest_s, away_s, LEAST_REST_S))

    def _send(self, name: str) -> None:
        """Send one item: first its picture, then its row, so that a row always has its picture."""
        try:
            row, picture = self.queue.content(name)
            self._receiver.take(row["file"], picture)
            self._receiver.take(f"{Path(row['file']).stem}.json", json.dumps(row).encode() + b"\n")
        except FileNotFoundError as error:
            if (self.queue.folder / name).exists():
                self._away(name, error)
        except ItemError:
            self.queue.failed(name, blame=True)
        except (TransferError, OSError) as error:
            self._away(name, error)
        else:
            self.queue.sent(name)
            if self._failures:
                self._failures = 0
                self._listener(SinkRecovered("", self._clock(), self._name, 0))

    def _away(self, name: str, error: Exception) -> None:
        self.queue.failed(name, blame=False)
        self._failures += 1
        if self._failures == 1:
            self._listener(SinkFailed("", self._clock(), self._name, reason_of(error)))


# What is sent


class _Packing:
    """A sink that puts frames into the queue: hard ones, or every one that it is given."""

    def __init__(
        self, queue: DiskQueue, kind: str, options: ForwardOptions,
        *, clock: Callable[[], float], wall: Callable[[], float],
    ) -> None:  # fmt: skip
        self.name = f"forward {kind}"
        self.large: OrderedDict[object, str] = OrderedDict()
        self._queue, self._kind, self._clock, self._wall = queue, kind, clock, wall
        self._pause_s = options.pause_s if kind == "hard" else 0.0
        self._next_s = float("-inf")
        self._numbers = itertools.count()

    @property
    def wants_frames(self) -> bool:
        return self._clock() >= self._next_s

    def write(self, decision: Decision, frame: Frame | None) -> bool:
        hard = self._kind == "hard"
        if frame is None or (hard and not (is_hard(decision) and self.wants_frames)):
            return False
        self._next_s = self._clock() + self._pause_s
        picture = encoded(frame.image, ".jpg")
        now_s = self._wall()
        of = plain(decision.frame_id.source_id)
        name = f"{moment(now_s)}-{next(self._numbers):06d}-{of}-{decision.frame_id.sequence}"
        row = {
            "file": f"{name}.jpg",
            "sha256": hashlib.sha256(picture).hexdigest(),
            "kind": self._kind,
            "saved_at_s": round(now_s, 3),
            ANSWER_COLUMN: decision.label,
            "large_answer": self.large.pop(decision.frame_id, None),
            "confidence": round(decision.confidence, 6),
            "score": decision.to_dict()["score"],
            "answered_by": decision.source.value,
            "degraded": decision.degraded,
            "source_id": decision.frame_id.source_id,
            "sequence": decision.frame_id.sequence,
            "taken_at": decision.taken_at,
            "bundle": None if decision.bundle is None else asdict(decision.bundle),
        }
        self._queue.add(name, json.dumps(row).encode() + b"\n" + picture)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class Forwarding:
    """All that it takes to send frames on; a context manager around a stream.

    Args:
        options: what is sent where, and how much it may take.
        clock: seconds.
        wall: seconds since 1970, for names.
        listener: hears when the target goes away.
        metrics: counts frames that there was no time to save.

    Attributes:
        sink: for the stream's decisions; opened and closed by the stream.

    Raises:
        InputError: the target is none.
    """

    def __init__(
        self,
        options: ForwardOptions,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        listener: Listener = ignore,
        metrics: Metrics = NO_METRICS,
    ) -> None:
        receiver = receiver_of(options.target)
        self._queue = DiskQueue(options.queue, most_bytes=options.most_bytes)
        self._forwarder = Forwarder(
            self._queue, receiver, share=options.share, clock=clock, listener=listener,
            name=f"forward {brief(receiver.shown, 100)}",
        )  # fmt: skip
        hard = _Packing(self._queue, "hard", options, clock=clock, wall=wall)
        self._audits = _Packing(self._queue, "audited", options, clock=clock, wall=wall)
        self.sink = Queued(hard, clock=clock, listener=listener, metrics=metrics)
        self._audited = Queued(self._audits, clock=clock, listener=listener, metrics=metrics)

    @property
    def counts(self) -> Counts:
        """What became of items so far."""
        return self._queue.counts

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._queue.waiting

    def keep(self, accepted: Decision, large: Decision, frame: Frame) -> None:
        """Take an audited frame: what went out, and what the large model says of it."""
        if len(self._audits.large) >= 64:
            self._audits.large.popitem(last=False)
        self._audits.large[accepted.frame_id] = large.label
        self._audited.write(accepted, frame)

    def readings(self) -> Iterable[Reading]:
        """Return what waits and what became of the rest, for the metrics."""
        counts = asdict(self._queue.counts)
        samples = tuple(((name,), float(value)) for name, value in counts.items())
        yield Reading(
            "forwarded",
            "Frames sent on, by what became of them",
            samples,
            ("outcome",),
            counts=True,
        )
        yield reading("forward_waiting", "Frames that wait to be sent on", self.waiting)
        yield reading("forward_bytes", "Bytes that they take on disk", self._queue.bytes)

    def __enter__(self) -> Self:
        """Open the queue and begin to send.

        Raises:
            InputError: the queue's folder cannot be had.
        """
        self._forwarder.__enter__()
        self._audited.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop. What is left goes out after the next start."""
        self._audited.__exit__(*exception)
        self._forwarder.__exit__(*exception)
