"""Recordings: random moments of videos that are there, each frame weighing as long as it is shown.

A file is read twice: once for the times of its frames, which no container tells reliably, once up
to the last frame that was drawn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.collect.draw import Draw, shown_s
from tinysaver_edge.collect.epochs import Epochs
from tinysaver_edge.collect.store import Store, encode, utc
from tinysaver_edge.data.collection import CollectionFile, DrawnMoment, SourceEntry, length_of
from tinysaver_edge.errors import InputError
from tinysaver_edge.records.timeline import first_film_alike
from tinysaver_edge.reuse import SIDE, STEPS, Thumbnailer
from tinysaver_edge.stream.sources.cut import cut_sources
from tinysaver_edge.stream.sources.opening import open_source
from tinysaver_edge.stream.sources.source import Clock, Context, Frame, Source
from tinysaver_edge.stream.sources.uri import parse_uri
from tinysaver_edge.stream.telemetry.events import Connected, Ended, Event, Listener, ignore

if TYPE_CHECKING:
    from collections.abc import Generator

UNREADABLE = "the recording's frame cannot be decoded"

MOMENTS = 100
"""At most so many seconds of two recordings are held against each other."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A source that ends, and can be read again.

    Attributes:
        name: what the folder calls it.
        open: opens it anew.
        size_bytes: of its file, to know it again; None where it is none.
    """

    name: str
    open: Callable[[], Source]
    size_bytes: int | None = None


class _Stopped(Exception):  # noqa: N818 - no error
    """Somebody asked for the end."""


def collect_recorded(
    recordings: Sequence[Recording],
    store: Store,
    draw: Draw | None,
    *,
    wall: Clock,
    stop: threading.Event,
    cut: str = "",
    progress: Progress = SILENT,
    listener: Listener = ignore,
    begun: Callable[[CollectionFile], object] = lambda file: None,
) -> CollectionFile | None:
    """Take frames, or epochs, of recordings at the drawn moments.

    Args:
        recordings: at least one.
        store: the folder, open.
        draw: what is to be drawn; None goes on with what there is.
        wall: seconds since 1970.
        stop: set, from any thread, to end; the next call goes on.
        cut: what the sources leave out of each frame, in words.
        progress: hears of the files that are read for the times of their frames.
        listener: hears of frames that cannot be decoded.
        begun: called once the moments are drawn.

    Returns:
        What the folder says of itself now; None where it was stopped.

    Raises:
        InputError: it is another collection's folder, a recording is another one or cannot be
            read, or there is no room left.
    """
    names = [one.name for one in recordings]
    if store.begun:
        store.check_same(draw, names, cut=cut)
        for one, entry in zip(recordings, store.file.sources, strict=True):
            if one.size_bytes != entry.size_bytes:
                raise InputError(f"{one.name}: is not the recording that was begun with")
    elif draw is None:
        raise InputError(f"--out {store.folder}: holds no collection to go on with: say --number")
    try:
        if not store.begun:
            assert draw is not None
            found = [_times(one, listener, stop, progress) for one in recordings]
            _check_copies(names, found)
            for one, times in zip(recordings, found, strict=True):
                if draw.epoch_s is not None and not times.rising:
                    raise InputError(
                        f"--from {one.name}: does not say when its frames are shown: no epochs can "
                        "be cut out of it"
                    )
            moments = draw.moments(names, [one.length_s for one in found])
            by_name = dict(zip(names, found, strict=True))
            moments = [by_name[one.source].found(one) for one in moments]
            entries = [
                SourceEntry(name=one.name, duration_s=times.length_s, size_bytes=one.size_bytes)
                for one, times in zip(recordings, found, strict=True)
            ]
            store.begin(draw, moments, entries, start=utc(wall()), cut=cut)
        else:
            store.resume()
        begun(store.file)
        left = store.open_moments
        for one in recordings:
            mine = [moment for moment in left if moment.source == one.name]
            if mine:
                _read(one, mine, store, listener, stop)
    except _Stopped:
        return None
    return store.finish()


@dataclass(frozen=True, slots=True)
class _Times:
    """When each frame of a recording is shown.

    Attributes:
        starts_s: ``(n,)`` from where on each is shown, all of that without what was not decoded.
        numbers: ``(n,)`` in the file.
        length_s: of all of them together.
        rising: whether the file tells times at all.
        seconds: ``(k, 256)`` thumbnails of the first frames of its seconds.
    """

    starts_s: NDArray[np.float64]
    numbers: NDArray[np.int64]
    length_s: float
    rising: bool
    seconds: NDArray[np.float16]

    def found(self, moment: DrawnMoment) -> DrawnMoment:
        """Return a moment with the number of the frame that is shown then."""
        place = int(np.searchsorted(self.starts_s, moment.moment_s, side="right")) - 1
        return replace(moment, sequence=int(self.numbers[max(0, place)]))


def _times(
    recording: Recording, listener: Listener, stop: threading.Event, progress: Progress
) -> _Times:
    times, numbers, thumbnail = [], [], Thumbnailer()
    seconds: list[NDArray[np.float16]] = []
    progress.note(f"{recording.name}: reading the times of its frames")
    for frame in _frames(recording, listener, stop):
        times.append(frame.timestamp_s)
        numbers.append(frame.sequence)
        if frame.timestamp_s - times[0] >= len(seconds) - 1e-3:
            seconds.append((thumbnail(frame.image).ravel() / STEPS).astype(np.float16))
    shown = shown_s(np.array(times, float), np.array(numbers, np.int64))
    ends = np.cumsum(shown)
    length_s = float(ends[-1]) if len(ends) else 0.0
    progress.note(f"{recording.name}: {len(times)} frames, {length_of(length_s)}")
    rising = bool((np.diff(times) > 0).all()) and len(times) > 1
    small = np.array(seconds, np.float16).reshape(-1, SIDE * SIDE)
    return _Times(ends - shown, np.array(numbers, np.int64), length_s, rising, small)


def _check_copies(names: Sequence[str], found: Sequence[_Times]) -> None:
    """Refuse a recording that is there twice, though encoded anew: it adds no time.

    Raises:
        InputError: so it is.
    """
    for (name, one), (other, two) in combinations(zip(names, found, strict=True), 2):
        if abs(one.length_s - two.length_s) > 1:
            continue
        count = min(len(one.seconds), len(two.seconds))
        moments = np.unique(np.linspace(0, count - 1, MOMENTS).astype(int))
        if not first_film_alike(np.stack([one.seconds[moments], two.seconds[moments]]))[1]:
            raise InputError(
                f"--from {other}: shows from second to second what {name} does; a copy adds "
                "nothing, and the period would be stated too long: leave one out"
            )


def _frames(recording: Recording, listener: Listener, stop: threading.Event) -> Iterator[Frame]:
    def hear(event: Event) -> None:
        if not isinstance(event, Connected | Ended):
            listener(event)

    with recording.open() as source:
        if source.live:
            raise InputError(
                f"--from {recording.name}: a camera, no recording: give it as --source, with --for"
            )
        source.attach(Context(hear))
        with closing(cast("Generator[Frame, None, None]", source.frames(reuse=True))) as frames:
            for frame in frames:
                if stop.is_set():
                    raise _Stopped
                yield frame


def _read(
    recording: Recording,
    moments: Sequence[DrawnMoment],
    store: Store,
    listener: Listener,
    stop: threading.Event,
) -> None:
    """Take what was drawn of one recording."""
    epochs = store.file.epoch_s is not None
    taker = _Stretches(moments, store) if epochs else _Single(moments, store)
    with closing(cast("Generator[Frame, None, None]", _frames(recording, ignore, stop))) as frames:
        whole = False
        try:
            for frame in frames:
                taker.see(frame)
                if taker.done:
                    break
            whole = True
        finally:
            taker.end(stopped=not whole)


class _Single:
    """Takes frames by their numbers."""

    def __init__(self, moments: Sequence[DrawnMoment], store: Store) -> None:
        self._store = store
        self._left: dict[int, list[DrawnMoment]] = {}
        for one in moments:
            self._left.setdefault(one.sequence or 0, []).append(one)

    @property
    def done(self) -> bool:
        return not self._left

    def see(self, frame: Frame) -> None:
        mine = self._left.pop(frame.sequence, [])
        data = encode(frame.image, self._store.file.encoding) if mine else b""
        for moment in mine:
            if not self._store.take(moment, data):
                raise _no_room(self._store)

    def end(self, *, stopped: bool) -> None:
        if not stopped:
            for moments in self._left.values():
                for moment in moments:
                    self._store.miss(moment, UNREADABLE)


class _Stretches:
    """Takes the frames of epochs, each from the frame on that was shown at its moment."""

    def __init__(self, moments: Sequence[DrawnMoment], store: Store) -> None:
        self._store = store
        self._coming = sorted(moments, key=lambda one: one.sequence or 0, reverse=True)
        self._epochs = Epochs(store, again=True)

    @property
    def done(self) -> bool:
        return not (self._coming or self._epochs)

    def see(self, frame: Frame) -> None:
        at_s, room = frame.timestamp_s, True
        while self._coming and (self._coming[-1].sequence or 0) <= frame.sequence:
            room &= self._epochs.begin(self._coming.pop(), start_s=at_s)
        if not (self._epochs.see(frame.image, at_s) and room):
            raise _no_room(self._store)

    def end(self, *, stopped: bool) -> None:
        if stopped:
            self._epochs.give_up_all("")
            return
        self._epochs.end_all()  # the last ones end with the recording
        for moment in self._coming:
            self._store.miss(moment, UNREADABLE)


def _no_room(store: Store) -> InputError:
    return InputError(
        f"--out {store.folder}: no space left on device; what is written is whole: make room and "
        "call the same again, it goes on"
    )


def recordings_of(
    texts: Sequence[str], *, regions: Sequence[str] = (), masks: Sequence[str] = ()
) -> tuple[list[Recording], str]:
    """Find recordings, ``[NAME=]FILE`` each.

    Args:
        texts: as `open_source` takes them.
        regions: the parts that are kept, as `cut_sources` takes them.
        masks: the parts that are blanked, likewise.

    Returns:
        The recordings, and what is left out of each frame, in words.

    Raises:
        InputError: one cannot be understood, or two have one name.
    """
    opened = [open_source(text) for text in texts]
    call_sources(opened, "recording")
    names = [one.source_id for one in opened]
    cut = cut_sources(opened, regions=regions, masks=masks)[1]

    def reopened(place: int) -> Source:
        again = [open_source(text) for text in texts]
        for one, name in zip(again, names, strict=True):
            one.source_id = name
        return cut_sources(again, regions=regions, masks=masks)[0][place]

    return [
        Recording(name, lambda place=place: reopened(place), _size(text))  # type: ignore[misc]
        for place, (name, text) in enumerate(zip(names, texts, strict=True))
    ], cut


def _size(text: str) -> int | None:
    path = Path(text) if Path(text).exists() else Path(parse_uri(text).target)
    return path.stat().st_size if path.is_file() else None


def call_sources(sources: Sequence[Source], kind: str) -> None:
    """Give names to sources that their user has not named: an address tells of a place."""
    for place, one in enumerate(sources, start=1):
        if not one.named:
            one.source_id = f"{kind}{place}"
    names = [one.source_id for one in sources]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two sources are called {name}: give each its own NAME=")
