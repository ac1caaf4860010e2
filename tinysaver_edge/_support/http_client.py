"""An HTTP/1.1 client that keeps its deadline and its bounds, whatever the other end sends.

Time-outs of the usual clients are for single steps: who sends a byte now and then, or without end,
holds them for ever. Here one deadline covers a request from the look-up of the name to the last
byte, and a bound on bytes covers headers and body. Nothing is unpacked and no redirect followed.
"""

from __future__ import annotations

import base64
import http.client
import io
import ipaddress
import math
import select
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from tinysaver_edge._support.limits import HEADER_BYTES, MOST_TOLD_BYTES, SLOWEST_BYTES_S
from tinysaver_edge._support.text import brief, hidden
from tinysaver_edge._support.urls import Url, is_loopback
from tinysaver_edge.errors import InputError, TransferError

_PIECE = 1 << 16
_NOTHING: Mapping[str, str] = MappingProxyType({})


class TooMuchError(Exception):
    """An answer is longer than may be, or packed; the message says which."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        headers: names in small letters; of several of one name the first.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def tells_of(self, size: int) -> bool:
        """Whether it says that a file of so many bytes is there: one that came by halves is not."""
        return self.status == 200 and self.headers.get("content-length", str(size)) == str(size)


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


def challenge_of(text: str) -> dict[str, str]:
    """Return what a ``WWW-Authenticate`` asks for behind its kind; nothing where it is none."""
    try:
        return urllib.request.parse_keqv_list(urllib.request.parse_http_list(text))
    except (ValueError, IndexError):  # a value that is missing
        return {}


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
        body: bytes | BinaryIO = b"",
        wanted: Callable[[int, Mapping[str, str]], bool] = lambda status, headers: True,
        into: Callable[[int, Mapping[str, str]], BinaryIO | None] = lambda status, headers: None,
        pause_s: float = math.inf,
    ) -> Answer:
        """Send a request and read its answer.

        Args:
            method: of HTTP.
            target: path and query, escaped.
            timeout_s: for all of it.
            most_bytes: of the body.
            headers: further ones.
            body: of the request; a file is read from its beginning, piece by piece.
            wanted: looks at status and headers; where it says no, the body is not read.
            into: looks at them too; where it returns a file, the body goes there as it comes.
            pause_s: the longest silence, within the time for all of it.

        Raises:
            TimeoutError: it took longer.
            TooMuchError: the answer is longer or packed.
            OSError: the host cannot be reached or hangs up.
            http.client.HTTPException: what it sends is no HTTP.
        """
        due = _Due(time.monotonic() + timeout_s, pause_s)
        length = len(body) if isinstance(body, bytes) else body.seek(0, io.SEEK_END)
        head = self._head(method, target, headers, length)

        taken = False

        def into_once(status: int, headers: Mapping[str, str]) -> BinaryIO | None:
            nonlocal taken
            taken = True
            return into(status, headers)

        def exchange() -> Answer:
            assert self._socket is not None
            self._send(self._socket, head, body, due)
            try:
                return self._answer(self._socket, method, due, most_bytes, wanted, into_once)
            except ValueError as error:  # a chunk of less than no bytes
                raise http.client.HTTPException(f"no length: {brief(str(error), 80)}") from error

        try:
            if self._socket is not None and not _is_quiet(self._socket):
                self.close()  # it has hung up meanwhile, or said what nobody asked for
            if self._socket is not None:
                try:
                    return exchange()
                except (http.client.RemoteDisconnected, ConnectionError):
                    self.close()  # a connection that was kept is a guess; a new one tells
                    if taken:  # not where a part of the answer has been given on
                        raise
            self._socket = self._connected(due.end_s)
            return exchange()
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
        if not place.isascii():
            with suppress(UnicodeError):  # what is no name is found out by who looks it up
                place = place.encode("idna").decode()
        lines = {"Host": f"{place}:{self._port}", "Accept-Encoding": "identity", **headers}
        if length or method in ("POST", "PUT"):
            lines["Content-Length"] = str(length)
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode()

    def _connected(self, due_s: float) -> socket.socket:
        places = looked_up(self._host, self._port, due_s)
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

    @staticmethod
    def _send(held: socket.socket, head: bytes, body: bytes | BinaryIO, due: _Due) -> None:
        if isinstance(body, bytes):
            held.settimeout(due.left_s())
            held.sendall(head + body)
            return
        body.seek(0)
        piece = head
        while piece:
            held.settimeout(due.left_s())
            held.sendall(piece)
            piece = body.read(_PIECE)

    def _answer(
        self,
        held: socket.socket,
        method: str,
        due: _Due,
        most_bytes: int,
        wanted: Callable[[int, Mapping[str, str]], bool],
        into: Callable[[int, Mapping[str, str]], BinaryIO | None],
    ) -> Answer:
        reader = BoundedReader(held, due.end_s, 4 * HEADER_BYTES + _PIECE, pause_s=due.pause_s)
        response = http.client.HTTPResponse(reader, method=method)  # type: ignore[arg-type]
        response.begin()
        reader.allow(most_bytes + HEADER_BYTES)  # chunks have lines of their own
        headers = {name.lower(): value for name, value in reversed(response.getheaders())}
        body = b""
        if wanted(response.status, headers):
            file = into(response.status, headers)
            kept = io.BytesIO() if file is None else file
            _read(response, headers, most_bytes, kept)
            body = kept.getvalue() if isinstance(kept, io.BytesIO) else b""
        if response.will_close or not response.isclosed():
            self.close()
        return Answer(response.status, headers, body)


@dataclass(frozen=True, slots=True)
class _Due:
    """When a request must be over, and how long the other end may be silent until then."""

    end_s: float
    pause_s: float

    def left_s(self) -> float:
        return min(_left(self.end_s), self.pause_s)


def _read(
    response: http.client.HTTPResponse, headers: Mapping[str, str], most_bytes: int, file: BinaryIO
) -> None:
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise TooMuchError("sends its answer packed, which was not asked for")
    if response.length is not None and response.length > most_bytes:
        raise TooMuchError(f"answers with {response.length} bytes; at most {most_bytes} are taken")
    size = 0
    while piece := response.read(_PIECE):  # never more at once: the length is the host's word
        size += len(piece)
        if size > most_bytes:
            raise TooMuchError(f"answers with more than {most_bytes} bytes")
        file.write(piece)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)


class WebHost:
    """A host by its address, asked with a login; what goes wrong is a `TransferError`, in words.

    Args:
        url: its address, whose path is what `shown` adds.
        what: what it is, as a message begins: ``"target"``.
        tls: whether the connection is encrypted.
        login: ``USER:PASSWORD`` where the address has none.
        pause_s: how long it may be silent.

    Raises:
        InputError: a login would cross the network in plain text.
    """

    def __init__(
        self, url: Url, *, what: str, tls: bool, login: str | None = None, pause_s: float = 20.0
    ) -> None:
        self.url, self._what, self._pause_s = url, what, pause_s
        said = login if url.user is None else f"{url.user}:{url.password or ''}"
        if said and not tls and not is_loopback(url.host):
            raise InputError(
                f"{what} {url.shown()}: user and password would cross the network in plain text: "
                "use https://"
            )
        told = base64.b64encode((said or "").encode()).decode()
        self.login: dict[str, str] = {"Authorization": f"Basic {told}"} if said else {}
        self.shown = url.shown()
        port = url.port or (443 if tls else 80)
        context = ssl.create_default_context if tls else None
        self._connection = HttpConnection(url.host, port, tls=context)

    def ask(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = _NOTHING,
        most_bytes: int = MOST_TOLD_BYTES,
        body: bytes | BinaryIO = b"",
        into: Callable[[int, Mapping[str, str]], BinaryIO | None] = lambda status, headers: None,
    ) -> Answer:
        """Send a request as `HttpConnection.request` does, with as much time as its bytes take.

        Raises:
            TransferError: there is no answer.
        """
        length = len(body) if isinstance(body, bytes) else body.seek(0, io.SEEK_END)
        try:
            return self._connection.request(
                method,
                target,
                timeout_s=self._pause_s + max(length, most_bytes) / SLOWEST_BYTES_S,
                most_bytes=most_bytes,
                headers=headers,
                body=body,
                into=into,
                pause_s=self._pause_s,
            )
        except TimeoutError as error:
            raise self.failed(f"says nothing for {self._pause_s:g} s") from error
        except ssl.SSLCertVerificationError as error:
            why = f"its certificate is not accepted ({brief(error.verify_message)})"
            raise self.failed(why) from error
        except http.client.IncompleteRead as error:
            raise self.failed("hangs up in the middle") from error
        except http.client.RemoteDisconnected as error:
            raise self.failed("hangs up without an answer") from error
        except ConnectionRefusedError as error:
            why = "nothing listens there (connection refused): start its server, or mend the port"
            raise self.failed(why) from error
        except http.client.HTTPException as error:
            said = f"{type(error).__name__}: {brief(str(error), 80)}"
            raise self.failed(
                f"speaks no HTTP on this port: is it the right one? ({said})"
            ) from error
        except (OSError, TooMuchError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise self.failed(brief(why)) from error

    def failed(self, why: str) -> TransferError:
        """Return what is to be raised: the host, and why."""
        return TransferError(f"{self._what} {self.shown}: {why}")

    def check(self, answer: Answer, *good: int) -> None:
        """Take an answer of one of these statuses.

        Raises:
            TransferError: it is of another; saying what that means.
        """
        if answer.status not in good:
            given = bool(self.login)
            raise self.failed(refusal(answer, login="user and password", given=given))

    def close(self) -> None:
        """Hang up. Legal in every state."""
        self._connection.close()


class BoundedReader(io.RawIOBase):
    """Reads a socket until a moment, and so many bytes; what `http.client` takes for a socket.

    Args:
        held: the socket.
        due_s: the moment, on `time.monotonic`.
        most_bytes: in all.
        pause_s: how long at most for the next byte.
    """

    def __init__(
        self, held: socket.socket, due_s: float, most_bytes: int, *, pause_s: float = math.inf
    ) -> None:
        self._held, self._due_s, self._left_bytes = held, due_s, most_bytes
        self._pause_s = pause_s

    def makefile(self, mode: str = "rb", /) -> io.BufferedReader:
        """Return what reads it, as a file."""
        return io.BufferedReader(self, _PIECE)

    def allow(self, more_bytes: int) -> None:
        """Let so many more come."""
        self._left_bytes += more_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever has a buffer
        self._held.settimeout(min(_left(self._due_s), self._pause_s))
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


def looked_up(host: str, port: int, due_s: float) -> list[tuple[int, Any]]:
    """Return the places of a name. Nothing ends a look-up: it is left behind when time is over.

    Args:
        host: name or address.
        port: TCP port.
        due_s: when, on `time.monotonic`.

    Returns:
        Family and address of each, as sockets take them.

    Raises:
        TimeoutError: time is over.
        OSError: nobody knows the name, or it can be none.
    """
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
