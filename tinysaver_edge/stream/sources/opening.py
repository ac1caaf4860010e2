"""Opens whatever frames can come from: an address, a path, an iterable, a function, a source."""

from __future__ import annotations

import difflib
import importlib
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from tinysaver_edge._support.plug_ins import PlugIns
from tinysaver_edge.data.images import is_image
from tinysaver_edge.errors import InputError, SourceError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.sources.files import ImageSource, open_file
from tinysaver_edge.stream.sources.live import Connection, LiveOptions, LiveSource, Random
from tinysaver_edge.stream.sources.opencv import CameraDevice, GStreamerDevice, NetworkDevice
from tinysaver_edge.stream.sources.snapshot import EVERY_S, HttpDevice
from tinysaver_edge.stream.sources.source import Frame, Source
from tinysaver_edge.stream.sources.uri import PORTS, SourceUri, is_there, parse_uri, split_url


class IterableSource(Source):
    """Every frame of an iterable, when it is asked for.

    Args:
        items: pictures ``(height, width, 3)`` BGR uint8, which get numbers and the time at which
            they came; or `Frame`, taken as they are.
        source_id: what decisions call it.
    """

    def __init__(self, items: Iterable[Picture | Frame], *, source_id: str = "frames") -> None:
        super().__init__(source_id)
        self._items = items

    def _frames(self, reuse: bool) -> Iterator[Frame]:
        for number, item in enumerate(self._items):
            if self.closed:
                return
            if isinstance(item, Frame):
                yield item
            else:
                checked = _picture(item, self.source_id, number)
                context = self.context
                yield Frame(
                    checked, context.clock(), number, self.source_id, taken_at_s=context.wall()
                )


class CallbackDevice:
    """A function that waits for the next picture and returns it, or None when there are no more.

    It is called from a thread of the source's own. To have the device opened anew, it raises
    `DeviceError`; anything else that it raises ends the stream.
    """

    live_wait_s: float | None = None

    def __init__(self, function: Callable[[], Picture | None]) -> None:
        self._function = function

    def connect(self, options: LiveOptions, stopping: threading.Event) -> Connection:
        """Take the function as it is."""
        return self

    def read(self, into: Picture | None) -> Picture | None:
        """Call the function."""
        image = self._function()
        return None if image is None else _picture(image, "callback", None)

    def close(self) -> None:
        """Let go of nothing."""


def _picture(item: object, source_id: str, number: int | None) -> Picture:
    if isinstance(item, np.ndarray) and item.dtype == np.uint8:
        return item
    where = "" if number is None else f", frame {number}"
    kind = item.dtype if isinstance(item, np.ndarray) else type(item).__name__
    raise InputError(
        f"source {source_id}{where}: is {kind}; expected a uint8 array (height, width, 3), BGR"
    )


PLUG_INS = PlugIns("source", SourceError)
"""Sources of other packages, by the scheme of their addresses.

Each names a function of a `SourceUri` that returns a `Source`.
"""

_BUILT_IN = {"demo": "tinysaver_edge.demo.camera:open_demo"}

AnySource: TypeAlias = (
    "Source | str | Path | int | Iterable[Picture | Frame] | Callable[[], Picture | None]"
)
"""An address or path (see `sources.uri`), a camera's number, pictures, a function, or a source."""


def open_source(
    source: AnySource, *, options: LiveOptions | None = None, random: Random | None = None
) -> Source:
    """Make a source of whatever frames can come from. Cameras are opened when frames are asked for.

    Args:
        source: an address or path, see `tinysaver_edge.stream.sources.uri`; a camera's number; an
            iterable of pictures, of which every one is given; a function that waits for the next
            picture, called in a thread of its own as a live camera is read; or a source,
            returned as it is.
        options: time-outs and retries of live sources.
        random: draws the jitter of their pauses.

    Raises:
        InputError: the address is malformed, or there is no such file.
    """
    if isinstance(source, Source):
        return source
    try:
        return _opened(source, options, random)
    except (OSError, ValueError) as error:  # a name that no file can have: too long, with a NUL
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"source: cannot be opened ({why.lower()})") from error


def _opened(source: AnySource, options: LiveOptions | None, random: Random | None) -> Source:
    if isinstance(source, bool):
        raise InputError(f"source {source}: not an address, a path, a camera or pictures")
    if isinstance(source, str) and _is_plain_path(source):
        return open_file(Path(source))
    if isinstance(source, str | int):
        uri = parse_uri(str(source))
        opened = _open_uri(uri, options, random)
        opened.named = uri.named
        return opened
    if isinstance(source, Path):
        return open_file(source)
    if isinstance(source, Iterable):
        return IterableSource(source)
    if callable(source):
        device = CallbackDevice(source)
        return LiveSource(device, source_id="callback", options=options, random=random)
    raise InputError(f"source: {type(source).__name__} is no address, path, camera or pictures")


def _is_plain_path(text: str) -> bool:
    """Whether there is such a file, whatever else its name may look like: ``a=b.mp4``."""
    special = text.startswith("/dev/") or (text.isascii() and text.isdigit())
    return bool(text.strip()) and not special and is_there(text)


def _open_uri(uri: SourceUri, options: LiveOptions | None, random: Random | None) -> Source:
    if uri.scheme == "file":
        return _open_path(uri)
    if uri.scheme == "camera":
        device: CameraDevice | NetworkDevice | HttpDevice | GStreamerDevice = _camera(uri)
    elif uri.scheme == "gst":
        device = GStreamerDevice(uri.target)
    elif uri.scheme in PORTS:
        device = _network(uri, options)
    else:
        return _registered(uri)
    return LiveSource(device, source_id=uri.source_id, options=options, random=random)


def _open_path(uri: SourceUri) -> Source:
    name = uri.source_id if uri.named else None
    path = Path(uri.target)
    if any(sign in uri.target for sign in "*?[") and not path.exists():
        anchor = Path(path.anchor)
        found = sorted(anchor.glob(str(path.relative_to(anchor))))
        # What the pattern itself names is asked for, in a hidden folder too; not ._1.png by *.png.
        files = [file for file in found if is_image(file.name)]
        if not files:
            raise InputError(f"source {uri.target}: no images match")
        return ImageSource(files, root=_common(files), source_id=name)
    return open_file(path, source_id=name)


def _common(files: list[Path]) -> Path:
    parents = set(files[0].parents)
    for file in files[1:]:
        parents &= set(file.parents)
    return max(parents, key=lambda parent: len(parent.parts))


def _network(uri: SourceUri, options: LiveOptions | None) -> NetworkDevice | HttpDevice:
    url = split_url(uri.target)
    over_http = uri.scheme in ("http", "https")
    need_known(uri, "threads", *(("every",) if over_http else ()))
    threads = int_option(uri, "threads") or 1
    port = url.port or PORTS[uri.scheme]
    stream = NetworkDevice(uri.target, url.host, port, threads)
    if not over_http:
        return stream
    every_s, longest_s = float_option(uri, "every") or EVERY_S, (options or LiveOptions()).read_s
    if "every" in uri.options and every_s >= longest_s:
        raise InputError(
            f"source {uri.scheme}: every is not below {longest_s:g} s, after which a "
            "camera counts as lost"
        )
    return HttpDevice(url, stream, min(every_s, longest_s / 2))


def need_known(uri: SourceUri, *names: str) -> None:
    """Refuse options that a source does not have.

    Raises:
        InputError: there is one. It is not repeated: a slip may make a password of it.
    """
    for unknown in sorted(set(uri.options) - set(names)):
        near = difflib.get_close_matches(unknown, names, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        there = f"there {'is' if len(names) == 1 else 'are'} {', '.join(names)}"
        raise InputError(f"source {uri.scheme}: an option that it does not have{meant}; {there}")


def _camera(uri: SourceUri) -> CameraDevice:
    need_known(uri, "width", "height", "fps")
    if not uri.target:
        raise InputError("source camera: names no camera; expected camera:0 or camera:/dev/video0")
    digits = uri.target.isascii() and uri.target.isdigit()
    if not digits and not uri.target.startswith("/"):
        raise InputError("source camera: expected a number or a device file, as camera:/dev/video0")
    return CameraDevice(
        int(uri.target) if digits else uri.target,
        width=int_option(uri, "width"),
        height=int_option(uri, "height"),
        fps=float_option(uri, "fps"),
    )


def int_option(uri: SourceUri, name: str) -> int | None:
    """Return an option as a whole number above 0, or None where it is not given.

    Raises:
        InputError: it is no such number.
    """
    value = float_option(uri, name)
    if value is not None and value != int(value):
        raise InputError(f"source {uri.scheme}: {name} is no whole number")
    return None if value is None else int(value)


def float_option(uri: SourceUri, name: str) -> float | None:
    """Return an option as a number above 0, or None where it is not given.

    Raises:
        InputError: it is no such number; that of an address is not repeated, since a slip may put a
            password there.
    """
    text = uri.options.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        given = f" {text!r}" if uri.scheme in ("camera", "demo") else ""
        raise InputError(f"source {uri.scheme}: {name}{given} is no number above 0")
    return value


def _registered(uri: SourceUri) -> Source:
    """Open a source that the demo or another package brings."""
    if uri.scheme in _BUILT_IN:
        module, _, attribute = _BUILT_IN[uri.scheme].partition(":")
        opener: Callable[[SourceUri], Source] = getattr(importlib.import_module(module), attribute)
        return opener(uri)
    if uri.scheme not in PLUG_INS.names():
        known = sorted({"camera", "file", "gst", *PORTS, *_BUILT_IN, *PLUG_INS.names()})
        near = difflib.get_close_matches(uri.scheme, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(
            f"source {uri.scheme}: no such kind of source; there are {', '.join(known)}{hint}"
        )
    source = PLUG_INS.make(uri.scheme, uri)
    if not isinstance(source, Source):
        raise SourceError(f"{PLUG_INS.told(uri.scheme)} made no tinysaver_edge.stream.Source")
    return source
