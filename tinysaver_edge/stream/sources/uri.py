"""One grammar for all sources.

    [NAME=]SOURCE

    0, 1, …                          a camera by its number
    /dev/video0                      a camera by its device file
    camera:0?width=1280&height=720&fps=30
    rtsp://, rtsps://                a network camera
    http://, https://                an MJPEG stream, or a picture that is asked for every second
    http://camera/snapshot.jpg#every=0.5   … or as often as this says, in seconds
    rtsp://camera/path#threads=4     its decoder's threads: each beyond one adds a frame of delay
    gst:PIPELINE                     a GStreamer pipeline that ends in appsink
    demo://?fps=30&seed=1&frames=300 the simulated camera
    photo.jpg, folder/, *.png        an image, every image below a folder, or those that match
    video.mp4, file:///path          a video file

NAME is what decisions, events and metrics call the source. Without one it is the address without
user, password and query: none of them ever gets into a message. In user and password / ? # @ are
written %2F %3F %23 %40: where it is not clear which part is the host, the address is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from tinysaver_edge._support.urls import Url, looks_like_address
from tinysaver_edge.errors import InputError

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
"""Network schemes, and where they listen unless told otherwise."""

_NAME = re.compile(r"([A-Za-z][\w-]*)=(.+)", re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+-]+):(?!\\)")
FORM = "expected [NAME=]rtsp://[USER:PASSWORD@]HOST/…, a NAME of letters, digits, - and _"


@dataclass(frozen=True, slots=True)
class SourceUri:
    """A source's address, taken apart.

    Attributes:
        scheme: ``camera``, ``file``, ``gst``, a network scheme, or another that is registered.
        target: what comes after the scheme, for network sources the whole address; credentials
            and all.
        source_id: the name given, or the address without credentials.
        named: whether a name was given.
        options: the options behind ``?``; for network sources those behind ``#``, since what is
            behind ``?`` is the camera's.
    """

    scheme: str
    target: str = field(repr=False)
    source_id: str
    named: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


def parse_uri(text: str) -> SourceUri:
    """Take a source's address apart.

    Raises:
        InputError: it is empty, or a part of it is malformed; the message names no credentials.
    """
    named = _NAME.fullmatch(text)
    if named is not None:
        name, rest = named.groups()
        found = _parse(rest)
        return SourceUri(found.scheme, found.target, name, named=True, options=found.options)
    return _parse(text)


def _parse(text: str) -> SourceUri:
    if not text.strip():
        raise InputError("source: is empty; expected a camera, an address or a file")
    if text.isascii() and text.isdigit():
        return SourceUri("camera", str(int(text)), f"camera{int(text)}")
    if text.startswith("/dev/"):
        return SourceUri("camera", text, text.removeprefix("/dev/"))
    match = _SCHEME.match(text)
    scheme = "" if match is None else match[1].lower()
    if scheme in PORTS and text[len(scheme) :].startswith("://"):
        found = split_url(text)
        options = _options(scheme, found.fragment, "#")
        return SourceUri(scheme, text.partition("#")[0], shown(found), options=options)
    if match is not None and scheme in ("gst", "gstreamer"):
        return _gstreamer(text[match.end() :])
    if (scheme in PORTS or looks_like_address(text)) and not is_there(text):
        _refuse_doubtful(text, scheme)
    if match is None:
        return SourceUri("file", text, text)
    if scheme == "file":
        try:
            path = unquote(urlsplit(text).path) or text[match.end() :]
        except ValueError as error:
            raise InputError("source file: the address is malformed") from error
        return SourceUri("file", path, path)
    return _with_options(scheme, text[match.end() :])


def _gstreamer(pipeline: str) -> SourceUri:
    if not pipeline.strip():
        raise InputError("source gst: the pipeline is empty; expected gst:ELEMENT ! … ! appsink")
    return SourceUri("gst", pipeline, "gst")


def _with_options(scheme: str, rest: str) -> SourceUri:
    target, _, query = rest.removeprefix("//").partition("?")
    options = _options(scheme, query, "?")
    name = f"{scheme}{target}" if scheme == "camera" else target or scheme
    name = name.rpartition("@")[2] or scheme  # a plug-in's address may hold a login
    return SourceUri(scheme, target, name.removeprefix("camera/dev/"), options=options)


def _options(scheme: str, text: str, sign: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, strict_parsing=True) if text else [])
    except ValueError as error:
        what = f"{sign}name=value&name=value"
        raise InputError(f"source {scheme}: options look like {what}") from error


def is_there(text: str) -> bool:
    """Whether there is a file of that name; what cannot be a name is none."""
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long, or with a NUL; the error would repeat all of it
        return False


def _refuse_doubtful(text: str, scheme: str) -> None:
    """Refuse what is meant for an address and is none, before it is taken for a file or a host.

    Raises:
        InputError: it may hold a password; nothing of it is repeated.
    """
    if scheme and text[len(scheme) :].startswith("://") and scheme not in PORTS:
        Url.parse(text, what="source", form=FORM)  # of a scheme that a plug-in may know
        return
    quoted = text[:1] in "'\"`"
    why = "stands in quotes, which are part of it: take them away" if quoted else "is none"
    raise InputError(f"source: what looks like an address {why}; {FORM}")


def shown(url: Url) -> str:
    """Return a network address without user, password and query, fit for a log."""
    return url.shown(port=PORTS.get(url.scheme))


def split_url(text: str) -> Url:
    """Take a network address apart.

    Raises:
        InputError: it is malformed, or has no host; the message does not repeat it.
    """
    return Url.parse(text, what="source", form=FORM)
