"""Cameras over HTTP: a stream, or one picture a request, which is asked for at a bearable pace."""

from __future__ import annotations

import base64
import http.client
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from tinysaver_edge._support.http_client import (
    Answer,
    HttpConnection,
    TooMuchError,
    challenge_of,
    refusal,
)
from tinysaver_edge._support.limits import MOST_PIXELS, MOST_SNAPSHOT_BYTES
from tinysaver_edge._support.text import brief
from tinysaver_edge._support.urls import Url
from tinysaver_edge.data.images import decode_image, told_size
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.sources.live import Connection, DeviceError, LiveOptions
from tinysaver_edge.stream.sources.opencv import NetworkDevice, knock

EVERY_S = 1.0
"""Pause between two pictures, where an address does not say another: ``#every=0.5``."""


@dataclass(frozen=True, slots=True)
class HttpDevice:
    """A camera's address on the web: what it answers with tells what it is.

    A single picture (``image/jpeg``, ``image/png``) is asked for again every `every_s` seconds; all
    else is a stream, which OpenCV reads.

    Attributes:
        url: taken apart; no message repeats its login.
        stream: reads the address as a stream.
        every_s: between two pictures.
    """

    url: Url
    stream: NetworkDevice
    every_s: float = EVERY_S

    def connect(self, options: LiveOptions, stopping: threading.Event) -> Connection:
        """Ask once; go on as the answer says."""
        host, port = self.stream.host, self.stream.port
        knock(host, port, timeout_s=options.open_s, stopping=stopping)
        if stopping.is_set():
            raise DeviceError("closed")
        tls = ssl.create_default_context if self.url.scheme == "https" else None
        asking = _Asking(self.url, HttpConnection(host, port, tls=tls))
        answer, why = None, ""
        try:
            answer = asking.ask(options.open_s)
        except TooMuchError as error:  # no stream either: of one nothing is read here
            asking.close()
            raise DeviceError(f"{host}:{port} {brief(str(error))}") from None
        except (OSError, http.client.HTTPException) as error:
            why = _unanswered(error, options.open_s)
        if answer is None or not _is_picture(answer.status, answer.headers):
            asking.close()
            if answer is not None:
                why = self._no_picture(answer)
            try:  # OpenCV may know what it is: it follows redirects, and accepts any certificate
                return self.stream.connect(options, stopping)
            except DeviceError as error:
                raise DeviceError(f"{host}:{port} {why}" if why else str(error)) from None
        return SnapshotConnection(asking, answer, self.every_s, options.read_s, stopping)

    def _no_picture(self, answer: Answer) -> str:
        """Say what came in place of a picture; nothing where it may be a stream."""
        if answer.status != 200:
            given = self.url.user is not None
            return refusal(answer, login="user and password", given=given)
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.startswith(("text/", "application/json", "application/xhtml")):
            return f"answers with {brief(kind, 60)}, which is no video: check the path"
        return ""


def _unanswered(error: Exception, timeout_s: float) -> str:
    """Say why there was no answer at all, to follow the host's name."""
    if isinstance(error, TimeoutError):
        return f"takes the connection, but says nothing within {timeout_s:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"shows a certificate that is not accepted ({brief(error.verify_message)})"
    if isinstance(error, ssl.SSLError):
        return "speaks no TLS on this port: is it http:// in place of https://?"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionError):
        return "hangs up without an answer: does it want https://, or rtsp://?"
    return "speaks no HTTP on this port: does it want https://, or rtsp://?"


class SnapshotConnection:
    """Asks for one picture after the other."""

    live_wait_s: float | None = None

    def __init__(
        self,
        asking: _Asking,
        first: Answer | None,
        every_s: float,
        timeout_s: float,
        stopping: threading.Event,
    ) -> None:
        self._asking, self._first = asking, first
        self._every_s, self._timeout_s = every_s, timeout_s
        self._stopping = stopping
        self._due_s = time.monotonic() + every_s

    def read(self, into: Picture | None, /) -> Picture | None:
        """Wait until it is time, and ask."""
        first, self._first = self._first, None
        if first is not None:
            return picture_of(first)
        if self._stopping.wait(max(0.0, self._due_s - time.monotonic())):
            raise DeviceError("closed")
        self._due_s = time.monotonic() + self._every_s
        try:
            answer = self._asking.ask(self._timeout_s)
        except TimeoutError:
            raise DeviceError(f"no picture within {self._timeout_s:g} s") from None
        except (OSError, http.client.HTTPException, TooMuchError) as error:
            raise DeviceError(f"no picture: {brief(str(error))}") from None
        return picture_of(answer)

    def close(self) -> None:
        """Hang up."""
        self._asking.close()


def picture_of(answer: Answer) -> Picture:
    """Return the picture of an answer.

    Raises:
        DeviceError: it holds none, or one of too many pixels.
    """
    if answer.status != 200:
        raise DeviceError(refusal(answer, login="user and password", given=True))
    if not _is_picture(answer.status, answer.headers):
        kind = brief(answer.headers.get("content-type", "nothing"), 60)
        raise DeviceError(f"answers {answer.status} with {kind} in place of a picture")
    size = told_size(answer.body) if answer.body[:2] in (b"\xff\xd8", b"\x89P") else None
    if size is None:
        raise DeviceError("the picture is neither JPEG nor PNG")
    if size[0] * size[1] > MOST_PIXELS:
        raise DeviceError(f"a picture of {size[0]} x {size[1]} pixels: at most {MOST_PIXELS}")
    picture = decode_image(answer.body)
    if picture is None:
        raise DeviceError("the picture is damaged")
    return picture


class _Asking:
    """Asks for a picture, with the login as the camera wants it."""

    def __init__(self, url: Url, connection: HttpConnection) -> None:
        self._url, self._connection = url, connection
        self._target = quote(url.path or "/", safe="/%:=&+~!$,;'@()*")
        if url.query:
            self._target += "?" + quote(url.query, safe="/%:=&?+~!$,;'@()*[]")
        self._login = _Login(url.user, url.password or "") if url.user is not None else None

    def ask(self, timeout_s: float) -> Answer:
        """Ask once; a second time where the camera says how it wants the login."""
        due_s = time.monotonic() + timeout_s
        answer = self._get(timeout_s, "" if self._login is None else self._login.basic)
        wanted = answer.headers.get("www-authenticate", "")
        if answer.status == 401 and self._login is not None and wanted[:7].lower() == "digest ":
            header = self._login.digest(wanted[7:], self._target)
            if header:
                return self._get(max(0.001, due_s - time.monotonic()), header)
        return answer

    def _get(self, timeout_s: float, authorization: str) -> Answer:
        return self._connection.request(
            "GET",
            self._target,
            timeout_s=timeout_s,
            most_bytes=MOST_SNAPSHOT_BYTES,
            headers={"Authorization": authorization} if authorization else {},
            wanted=_is_picture,
        )

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True, slots=True)
class _Login:
    """User and password, and how they are said."""

    user: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        said = base64.b64encode(f"{self.user}:{self.password}".encode())
        return f"Basic {said.decode()}"

    def digest(self, challenge: str, target: str) -> str | None:
        """Answer a challenge as the standard library does; None where it cannot."""
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, "http://camera/", self.user, self.password)
        handler = urllib.request.HTTPDigestAuthHandler(passwords)
        asked = urllib.request.Request(f"http://camera{target}")
        try:
            said = handler.get_authorization(asked, challenge_of(challenge))
        except (ValueError, KeyError, IndexError):
            return None
        return f"Digest {said}" if said else None


def _is_picture(status: int, headers: Mapping[str, str]) -> bool:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return status == 200 and kind in ("image/jpeg", "image/jpg", "image/pjpeg", "image/png")
