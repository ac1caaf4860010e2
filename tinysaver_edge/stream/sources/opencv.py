"""Cameras, network streams and GStreamer pipelines, as OpenCV opens them."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinysaver_edge._support.http_client import looked_up
from tinysaver_edge._support.limits import MOST_PIXELS
from tinysaver_edge._support.packages import opencv
from tinysaver_edge._support.urls import Url
from tinysaver_edge.errors import SourceError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.sources.live import Connection, DeviceError, LiveOptions

STEP_S = 0.05
"""How often a connection that is being made looks whether it is still wanted."""


@dataclass(frozen=True, slots=True)
class CameraDevice:
    """A camera of this machine.

    Attributes:
        camera: its number, or the path of its device file.
        width: pixels a row to ask for; None for what the camera likes. A camera that does not do
            as asked gives what it can.
        height: rows to ask for.
        fps: frames a second to ask for.
    """

    camera: int | str
    width: int | None = None
    height: int | None = None
    fps: float | None = None

    def connect(self, options: LiveOptions, stopping: threading.Event) -> Connection:
        """Open the camera."""
        cv2 = opencv("Reading a camera")
        linux = sys.platform == "linux"
        place = self.camera if isinstance(self.camera, str) else f"/dev/video{self.camera}"
        if linux and not Path(place).exists():  # OpenCV would try all its backends, loudly
            raise DeviceError(f"there is no {place}: is the camera plugged in?")
        if linux:
            _check_allowed(Path(place))
        backend = cv2.CAP_V4L2 if linux else cv2.CAP_ANY
        # Not all backends know a time-out; those that do not know it would refuse to open.
        capture = cv2.VideoCapture(self.camera, backend)
        if not capture.isOpened():
            capture.release()
            raise DeviceError(f"another program holds {place}, or it is no camera")
        for name, value in (
            ("CAP_PROP_FRAME_WIDTH", self.width),
            ("CAP_PROP_FRAME_HEIGHT", self.height),
            ("CAP_PROP_FPS", self.fps),
            ("CAP_PROP_BUFFERSIZE", 1),  # the driver's queue would only make frames older
        ):
            if value is not None:
                capture.set(getattr(cv2, name), value)
        return CaptureConnection(capture)


def _check_allowed(device: Path) -> None:
    """Refuse a device file that this user may not open; OpenCV does not say why it cannot.

    Raises:
        DeviceError: what is missing.
    """
    try:
        os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK))
    except PermissionError as error:
        raise DeviceError(f"no permission to open {device}: {_who_may(device)}") from error
    except OSError:  # whatever else it is, opening it for real tells
        pass


def _who_may(device: Path) -> str:
    """Say what to do about a device file that this user may not open."""
    try:
        group, mode = device.group(), device.stat().st_mode
    except (OSError, KeyError, NotImplementedError):  # a group without a name, as in a container
        return "give this user or container access to it"
    if mode & 0o060 != 0o060:
        return f"its group, {group}, may not either: chmod g+rw, or a rule of udev's"
    return f"sudo usermod -aG {group} USER, and log in anew"


@dataclass(frozen=True, slots=True)
class NetworkDevice:
    """An RTSP or HTTP stream, read with OpenCV's FFmpeg.

    Attributes:
        url: with credentials where the camera wants them; no message repeats it.
        host: where it is.
        port: where it listens.
        threads: of the decoder. FFmpeg has each work on a frame of its own, so that every one
            beyond the first makes all frames a frame older; OpenCV's own choice is one a core.
    """

    url: str = field(repr=False)
    host: str
    port: int
    threads: int = 1

    def connect(self, options: LiveOptions, stopping: threading.Event) -> Connection:
        """Open the stream.

        A host that does not answer is found out here: this can be interrupted, OpenCV cannot.
        """
        cv2 = opencv("Reading a network stream")
        knock(self.host, self.port, timeout_s=options.open_s, stopping=stopping)
        if stopping.is_set():
            raise DeviceError("closed")
        settings = [*_time_outs(options), cv2.CAP_PROP_N_THREADS, self.threads]
        capture = cv2.VideoCapture(self.url, cv2.CAP_FFMPEG, settings)
        if not capture.isOpened():
            capture.release()
            raise DeviceError(f"{self.host}:{self.port} {self._why(options, stopping)}")
        check_pixels(capture, f"{self.host}:{self.port}")
        return CaptureConnection(capture, live_wait_s=0.5 / _frame_rate(capture))

    def _why(self, options: LiveOptions, stopping: threading.Event) -> str:
        """Say why a host that answers gives no video."""
        if self.url.lower().startswith("rtsp://"):
            asked_s = min(ASKED_S, options.open_s)
            return why_no_video(self.url, self.port, timeout_s=asked_s, stopping=stopping)
        return (
            f"answers, but gives no video within {options.open_s:g} s: check path, user and "
            f"password"
        )


def _time_outs(options: LiveOptions) -> list[int]:
    """Return OpenCV's settings for them; left alone, it would wait for half a minute."""
    import cv2

    return [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        round(1e3 * options.open_s),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        round(1e3 * options.read_s),
    ]


def knock(host: str, port: int, *, timeout_s: float, stopping: threading.Event) -> None:
    """Connect to a host and hang up again.

    Raises:
        DeviceError: nobody listens there.
    """
    deadline_s = time.monotonic() + timeout_s
    try:
        places = looked_up(host, port, deadline_s)
    except TimeoutError:
        why = f"nobody says within {timeout_s:g} s where host {host} is: does DNS work here?"
        raise DeviceError(why) from None
    except OSError as error:
        raise DeviceError(f"host {host} is not known here ({error.strerror or error})") from error
    reason = f"no answer within {timeout_s:g} s"
    for family, address in places:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as knocking:
            knocking.setblocking(False)
            with suppress(BlockingIOError):
                knocking.connect_ex(address)
            while time.monotonic() < deadline_s and not stopping.is_set():
                if not select.select([], [knocking], [], STEP_S)[1]:
                    continue
                code = knocking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    return
                reason = os.strerror(code).lower()
                break
    if not stopping.is_set():
        raise DeviceError(f"{host}:{port}: {reason}")


ASKED_S = 2.0
"""How long a camera that gave no video is asked why, at most."""

MOST_ANSWER = 1 << 16
"""Bytes of its answer that are read."""

_STATES = {
    400: "does not understand what is asked: check path and port",
    403: "forbids it to this user, or to this machine",
    404: "has no such path: look into the camera's manual, or its web page, for its address",
    406: "cannot give this stream",
    451: "does not understand what is asked: check the path",
    453: "has no bandwidth left: too many watch it",
    461: "cannot send over TCP, and UDP is not asked for",
    503: "is busy or starting: too many may watch it",
}
"""What states of RTSP mean (RFC 2326, 7826), after "the camera"."""

_LOG_IN = {
    True: "refuses this user or password",
    False: "wants a user and password: rtsp://USER:PASSWORD@HOST/…, percent-encoded",
}


def why_no_video(url: str, port: int, *, timeout_s: float, stopping: threading.Event) -> str:
    """Ask an RTSP camera what it has at an address, and say why OpenCV gets no video from it.

    Args:
        url: of the stream, with credentials where the camera wants them.
        port: where it listens.
        timeout_s: for its answers.
        stopping: set where nobody wants to know any longer.

    Returns:
        What follows the camera's name; nothing that the camera wrote but the name of a codec.
    """
    address = Url.parse(url, what="source", form="rtsp://HOST/…")
    place = f"rtsp://{address.host}:{port}{address.path}"
    place += f"?{address.query}" * bool(address.query)
    deadline_s = time.monotonic() + timeout_s
    try:
        with socket.create_connection((address.host, port), timeout_s) as camera:
            camera.settimeout(STEP_S)
            line = ""
            for number in (1, 2):
                camera.sendall(
                    f"DESCRIBE {place} RTSP/1.0\r\nCSeq: {number}\r\n"
                    f"Accept: application/sdp\r\n{line}\r\n".encode("utf-8", "replace")
                )
                state, head, body = _answer(camera, deadline_s, stopping)
                if state != 401 or address.user is None or line:
                    break
                line = _authorization(head, place, address.user, address.password or "")
    except OSError:
        return "answers, and then hangs up: is it a camera, and this its RTSP port?"
    if state == 401:
        return _LOG_IN[address.user is not None]
    if state == 200:
        return _described(body)
    if state is None and head:
        return "answers, but not in RTSP: check the port (554 is usual)"
    if state is None:
        return "takes the connection and then says nothing: check the port (554 is usual)"
    return _STATES.get(state, f"refuses with RTSP state {state}")


def _answer(
    camera: socket.socket, deadline_s: float, stopping: threading.Event
) -> tuple[int | None, str, str]:
    """Return an RTSP answer's state, None where it is none, its head and its body."""
    got = b""
    while time.monotonic() < deadline_s and not stopping.is_set() and len(got) < MOST_ANSWER:
        with suppress(TimeoutError):
            more = camera.recv(4096)
            if not more:
                break
            got += more
        head, end, body = got.decode("utf-8", "replace").partition("\r\n\r\n")
        length = re.search(r"(?im)^content-length: *(\d{1,6})\s*$", head)
        if end and len(body.encode()) >= (int(length[1]) if length else 0):
            break
    head, _, body = got.decode("utf-8", "replace").partition("\r\n\r\n")
    state = re.match(r"RTSP/\d\.\d (\d{3})\b", head)
    return (int(state[1]) if state else None), head, body


def _authorization(head: str, place: str, user: str, password: str) -> str:
    """Return the line that logs in, by digest (RFC 2617, MD5) where that is asked for."""
    digest = re.search(r"(?im)^www-authenticate: *digest (.*)$", head)
    if digest is None:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        return f"Authorization: Basic {token}\r\n"
    told = dict(re.findall(r'(\w+)="?([^",\r]*)"?', digest[1]))
    realm, nonce = told.get("realm", ""), told.get("nonce", "")

    def hashed(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    known = f"{hashed(f'{user}:{realm}:{password}')}:{nonce}:{hashed(f'DESCRIBE:{place}')}"
    return (
        f'Authorization: Digest username="{user}", realm="{realm}", nonce="{nonce}", '
        f'uri="{place}", response="{hashed(known)}"\r\n'
    )


def _described(body: str) -> str:
    """Say why a stream that a camera describes gives no picture, as far as its SDP tells."""
    if not re.search(r"(?m)^m=video ", body):
        return "sends no video at this path, only sound or other data"
    video = body[body.index("m=video ") :]
    codec = re.search(r"(?m)^a=rtpmap:\d+ ([\w.+-]{1,20})/", video)
    name = "video" if codec is None else f"{codec[1].upper()} video"
    return (
        f"offers {name}, but no picture of it comes: can this OpenCV decode it? Set the camera to "
        f"H.264; where OPENCV_FFMPEG_CAPTURE_OPTIONS asks for UDP, a firewall may hold it back"
    )


@dataclass(frozen=True, slots=True)
class GStreamerDevice:
    """A GStreamer pipeline that ends in ``appsink``.

    Attributes:
        pipeline: as for ``gst-launch-1.0``; it may hold credentials: no message repeats it.
    """

    pipeline: str = field(repr=False)

    def connect(self, options: LiveOptions, stopping: threading.Event) -> Connection:
        """Start the pipeline."""
        cv2 = opencv("Reading a GStreamer pipeline")
        if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            raise SourceError(
                f"source gst: this OpenCV ({cv2.__version__}) is built without GStreamer, as the "
                f"wheels of PyPI are: use the system's (Debian: apt install python3-opencv, and an "
                f"environment made with --system-site-packages; JetPack brings one)"
            )
        capture = cv2.VideoCapture(self.pipeline, cv2.CAP_GSTREAMER, _time_outs(options))
        if not capture.isOpened():  # OpenCV 4.6 refuses time-outs here; the source has its own
            capture.release()
            capture = cv2.VideoCapture(self.pipeline, cv2.CAP_GSTREAMER)
        if not capture.isOpened():
            capture.release()
            raise DeviceError("the pipeline does not start: try it with gst-launch-1.0")
        return CaptureConnection(capture)


def _frame_rate(capture: Any) -> float:  # noqa: ANN401 - OpenCV has no types
    """Return a stream's frames a second, as far as it tells, within reason."""
    import cv2

    told = float(capture.get(cv2.CAP_PROP_FPS))
    return told if 1 <= told <= 120 else 25.0


def check_pixels(capture: Any, source: str) -> None:  # noqa: ANN401 - OpenCV has no types
    """Refuse a video whose frames are too large, before one is decoded.

    Args:
        capture: an open ``cv2.VideoCapture``.
        source: what it is called.

    Raises:
        SourceError: naming the size.
    """
    import cv2

    width, height = (
        int(capture.get(one)) for one in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    if width * height > MOST_PIXELS:
        raise SourceError(
            f"source {source}: frames of {width} x {height} pixels; at most "
            f"{MOST_PIXELS // 1_000_000} million are decoded: make them smaller"
        )


class CaptureConnection:
    """An open ``cv2.VideoCapture``."""

    def __init__(
        self,
        capture: Any,  # noqa: ANN401 - OpenCV has no types
        *,
        live_wait_s: float | None = None,
    ) -> None:
        self._capture = capture
        self.live_wait_s = live_wait_s

    def read(self, into: Picture | None) -> Picture | None:
        """Wait for the next picture."""
        good, image = self._capture.read() if into is None else self._capture.read(into)
        if not good:
            raise DeviceError("the device gives no more frames")
        return image  # type: ignore[no-any-return]

    def close(self) -> None:
        """Let go of the device."""
        self._capture.release()


def read_video(
    capture: Any,  # noqa: ANN401 - OpenCV has no types
    *,
    reuse: bool,
    size_bytes: int,
    shown: int | None = None,
) -> Iterator[Picture | None]:
    """Yield the pictures of an open video file; None for each that cannot be decoded.

    OpenCV says of the end what it says of a damaged frame. The container knows how many frames
    there should be: as long as some are missing, there may be more, but no more than its bytes are
    enough for.

    Args:
        capture: an open ``cv2.VideoCapture``.
        reuse: write them all into the same memory.
        size_bytes: of the file.
        shown: how many frames the container's edit list leaves; None where it has none.
    """
    import cv2

    expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if shown is None else shown
    expected = min(expected, size_bytes // LEAST_FRAME_BYTES)
    image: Picture | None = None
    seen, failures = 0, 0
    while True:
        good, image = capture.read(image) if reuse and image is not None else capture.read()
        if good:
            yield from (None for _ in range(failures))
            seen, failures = seen + failures + 1, 0
            yield image
            continue
        image = None
        failures += 1
        if failures >= min(max(END_TRIES, expected - seen), MOST_TRIES):
            break
    missing = expected - seen
    if missing > MISCOUNTED and seen:
        yield from (None for _ in range(missing))


END_TRIES = 3
"""Reads that must fail in a row before a video is taken to be at its end."""

MOST_TRIES = 1000
"""The same where frames are missing: each reads past thousands of packets that are no frames."""

LEAST_FRAME_BYTES = 4
"""Of a frame, and of its place in the container's table."""

MISCOUNTED = 2
"""Frames by which a container may be wrong about their number without having lost any."""
