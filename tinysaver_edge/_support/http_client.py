"""An HTTP/1.1 client that keeps its deadline and its bounds, whatever the other end sends.

Time-outs of the usual clients are for single steps: who sends a byte now and then, or without end,
holds them for ever. Here one deadline covers a request from the look-up of the name to the last
byte, and a bound on bytes covers headers and body. Nothing is unpacked and no redirect followed.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from tinysaver_edge._support.limits import HEADER_BYTES
from tinysaver_edge._support.text import brief
from tinysaver_edge._support.urls import hidden

_PIECE = 1 << 16
_NOTHING: Mapping[str, str] = MappingProxyType({})


class TooMuchError(Exception):
    """An answer is longer than may be, or packed; the message says which."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP.
        headers: names in small letters; of several of one name the first.
        body: as it was sent.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def refusal(answer: Answer, *, login: str, given: bool) -> str:
    """Return in words why an answer other than 200 is none; causes that differ read differently.

    Args:
        answer: what came back.
        login: what the other end may want: ``"user and password"``.
        given: whether it had them.
    """
    status = answer.status
    phrase = http.client.responses.get(status, "")
    if status in (301, 302, 303, 307, 308):
        return f"redirects to {_place_of(answer.headers.get('location', ''))} ({status}): name that"
    if status == 401:
        return f"{'does not accept the' if given else 'wants a'} {login} (401)"
    if status == 403:
        return f"forbids this (403){': has this ' + login + ' the right?' if given else ''}"
    if status == 404:
        return "has nothing at this path (404)"
    if status == 407:
        return "is behind a proxy that wants a login (407)"
    if status >= 500:
        return f"fails itself ({status}{' ' + phrase if phrase else ''})"
    return f"answers {status}{' ' + phrase if phrase else ''}"


def _place_of(location: str) -> str:
    """Return where a redirect leads, without login and query."""
    try:
        parts = urlsplit(location)
        host = f"{parts.scheme}://{parts.hostname}" if parts.hostname else ""
        port = f":{parts.port}" if parts.hostname and parts.port else ""
    except ValueError:
        return "another place"
    return brief(hidden(f"{host}{port}{parts.path}"), 120) or "another place"


class HttpConnection:
    """A connection to one host, kept between requests. For one thread at a time.

    Args:
        host: name or address.
        port: TCP port.
        tls: makes the context of an encrypted connection; None for plain text.
        server_name: the name its certificate must bear; None takes the host's.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        server_name: str | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._tls, self._server_name = tls, server_name or host
        self._socket: socket.socket | None = None

    def request(
        self,
        method: str,
        target: str,
        *,
        timeout_s: float,
        most_bytes: int,
        headers: Mapping[str, str] = _NOTHING,
        body: bytes = b"",
        wanted: Callable[[int, Mapping[str, str]], bool] = lambda status, headers: True,
    ) -> Answer:
        """Send a request and read its answer.

        Args:
            method: of HTTP.
            target: path and query, escaped.
            timeout_s: for all of it.
            most_bytes: of the body.
            headers: further ones.
            body: of the request.
            wanted: looks at status and headers; where it says no, the body is not read.

        Raises:
            TimeoutError: it took longer.
            TooMuchError: the answer is longer or packed.
            OSError: the host cannot be reached or hangs up.
            http.client.HTTPException: what it sends is no HTTP.
        """
        due_s = time.monotonic() + timeout_s
        sent = self._head(method, target, headers, len(body)) + body
        try:
            if self._socket is not None and not _is_quiet(self._socket):
                self.close()  # it has hung up meanwhile, or said what nobody asked for
            if self._socket is not None:
                try:
                    return self._exchange(method, sent, due_s, most_bytes, wanted)
                except (http.client.RemoteDisconnected, ConnectionError):
                    self.close()  # a connection that was kept is a guess; a new one tells
            self._socket = self._connected(due_s)
            return self._exchange(method, sent, due_s, most_bytes, wanted)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up. Legal in every state."""
        held, self._socket = self._socket, None
        if held is not None:
            held.close()

    def _head(self, method: str, target: str, headers: Mapping[str, str], length: int) -> bytes:
        place = f"[{self._host}]" if ":" in self._host else self._host
        lines = {"Host": f"{place}:{self._port}", "Accept-Encoding": "identity", **headers}
        if length or method == "POST":
            lines["Content-Length"] = str(length)
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode("latin-1")

    def _connected(self, due_s: float) -> socket.socket:
        places = _looked_up(self._host, self._port, due_s)
        failure: OSError = OSError("it has no address")
        for number, (family, place) in enumerate(places):
            made = socket.socket(family, socket.SOCK_STREAM)
            try:
                made.settimeout(_left(due_s) / (len(places) - number))
                made.connect(place)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    made.settimeout(_left(due_s))
                    made = self._tls().wrap_socket(made, server_hostname=self._server_name)
                return made
            except OSError as error:
                made.close()
                failure = error
        raise failure

    def _exchange(
        self,
        method: str,
        sent: bytes,
        due_s: float,
        most_bytes: int,
        wanted: Callable[[int, Mapping[str, str]], bool],
    ) -> Answer:
        assert self._socket is not None
        self._socket.settimeout(_left(due_s))
        self._socket.sendall(sent)
        reader = BoundedReader(self._socket, due_s, 4 * HEADER_BYTES + _PIECE)
        response = http.client.HTTPResponse(reader, method=method)  # type: ignore[arg-type]
        response.begin()
        reader.allow(most_bytes + HEADER_BYTES)  # chunks have lines of their own
        headers = {name.lower(): value for name, value in reversed(response.getheaders())}
        body = b""
        if wanted(response.status, headers):
            body = _read(response, headers, most_bytes)
        if response.will_close or not response.isclosed():
            self.close()
        return Answer(response.status, headers, body)


def _read(response: http.client.HTTPResponse, headers: Mapping[str, str], most_bytes: int) -> bytes:
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise TooMuchError("sends its answer packed, which was not asked for")
    if response.length is not None and response.length > most_bytes:
        raise TooMuchError(f"answers with {response.length} bytes; at most {most_bytes} are taken")
    pieces, size = [], 0
    while piece := response.read(_PIECE):  # never more at once: the length is the host's word
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise TooMuchError(f"answers with more than {most_bytes} bytes")
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(pieces)


class BoundedReader(io.RawIOBase):
    """Reads a socket until a moment, and so many bytes; what `http.client` takes for a socket.

    Args:
        held: the socket.
        due_s: the moment, on `time.monotonic`.
        most_bytes: in all.
    """

    def __init__(self, held: socket.socket, due_s: float, most_bytes: int) -> None:
        self._held, self._due_s, self._left_bytes = held, due_s, most_bytes

    def makefile(self, mode: str = "rb", /) -> io.BufferedReader:
        """Return what reads it, as a file."""
        return io.BufferedReader(self, _PIECE)

    def allow(self, more_bytes: int) -> None:
        """Let so many more come."""
        self._left_bytes += more_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever has a buffer
        self._held.settimeout(_left(self._due_s))
        count = self._held.recv_into(buffer)
        self._left_bytes -= count
        if self._left_bytes < 0:
            raise TooMuchError("answers without end")
        return count


def _left(due_s: float) -> float:
    left_s = due_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    return left_s


def _is_quiet(held: socket.socket) -> bool:
    """Whether a connection that nothing was asked on says nothing, as it should."""
    try:
        return not select.select([held], [], [], 0)[0]
    except (OSError, ValueError):  # closed; or a descriptor too high for `select`
        return False


def _looked_up(host: str, port: int, due_s: float) -> list[tuple[int, Any]]:
    """Return the places of a name. Nothing ends a look-up: it is left behind when time is over."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        return [(family, (host, port))]
    found: list[Any] = []
    failure: list[OSError] = []

    def look() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            failure.append(error if isinstance(error, OSError) else OSError(str(error)))

    looking = threading.Thread(target=look, name=f"look-up of {host}", daemon=True)
    looking.start()
    looking.join(_left(due_s))
    if failure:
        raise failure[0]
    if not found:
        raise TimeoutError("timed out")
    return list(dict.fromkeys((family, place) for family, *_, place in found))
