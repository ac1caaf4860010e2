"""Doors of servers: where they listen, which names and tokens get in, and for how long."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tinysaver_edge._support.limits import (
    ANSWER_S,
    HEADER_BYTES,
    QUEUED,
    REQUEST_S,
    WRONG_TOKENS_AT_ONCE,
    WRONG_TOKENS_OF_ALL,
)
from tinysaver_edge._support.urls import is_loopback, redacted
from tinysaver_edge.errors import InputError

TELL_EVERY_S = 60.0
"""How often wrong tokens are told of."""

_TRUSTED = 1024
"""Connections that have shown the token, as far as they are remembered."""

_PRIVATE = (".local", ".localdomain", ".internal", ".lan", ".home.arpa", ".svc")
"""Ends of names that nobody can own in the public DNS."""

_GRACE_S = 0.25
"""A connection that has just been made may be about to send its request."""

_CROWD = 4
"""So many times the usual number of connections are borne for that long."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A host and a port to listen on.

    Attributes:
        host: a name or an address of this machine.
        port: TCP port; 0 takes any that is free.
        option: the command's option that named it, for messages.
    """

    host: str
    port: int
    option: str

    @classmethod
    def parse(cls, text: str, *, option: str) -> ListenAddress:
        """Read ``HOST:PORT`` or ``[IPV6]:PORT``.

        Raises:
            InputError: it is of another form.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        fits = colon and host and (bracketed or ":" not in host) and port.isascii()
        if not fits or not port.isdigit() or int(port) > 65535:
            raise InputError(f"{option} {redacted(text)}: give HOST:PORT, such as 127.0.0.1:8080")
        return cls(host, int(port), option)

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach it."""
        return is_loopback(self.host)

    def bind(self) -> socket.socket:
        """Return a listening socket.

        Raises:
            InputError: the port is taken, not allowed, or the host is not this machine's.
        """
        try:
            family = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][0]
            listening = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise InputError(f"{self}: {self.host} cannot be found ({error.strerror})") from error
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self.host, self.port))
            listening.listen(QUEUED)
        except OSError as error:
            listening.close()
            raise InputError(f"{self}: {_reason(error)}") from error
        return listening

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.option} {host}:{self.port}"


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is taken by another program; name another"
    if error.errno == errno.EACCES:
        return "this user may not listen on that port; name one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return f"cannot listen there ({error.strerror})"


def url_of(listening: socket.socket) -> str:
    """Return the address that a socket listens on, as a browser takes it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Doorkeeper:
    """Keeps the connections of a uvicorn server few, and none waiting for ever. One event loop.

    Whoever takes longer than `limits.REQUEST_S` to send a request, or than `limits.ANSWER_S` to
    take an answer, is cut off. Where there are too many, those go that have asked for nothing for
    longest: who sends a request at once is answered, however many only sit there.

    Args:
        most: connections that may stay.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._since: dict[Any, tuple[Any, float]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def protocol(self, base: type) -> type:
        """Return uvicorn's class of protocols, watched over by this doorkeeper."""
        keeper = self

        class Kept(base):  # type: ignore[misc]
            _head_bytes = 0

            def connection_made(self, transport: Any) -> None:  # noqa: ANN401
                super().connection_made(transport)
                keeper.come(self)

            def connection_lost(self, exc: Exception | None) -> None:
                keeper.go(self)
                super().connection_lost(exc)

            def data_received(self, data: bytes) -> None:
                before = self.cycle
                if _asks(self) and self._head_bytes > 4 * HEADER_BYTES:
                    self.transport.abort()
                    return
                super().data_received(data)
                inside = self.cycle is not None and not self.cycle.response_complete
                fresh = self.cycle is not before or inside
                self._head_bytes = 0 if fresh else self._head_bytes + len(data)

        return Kept

    def come(self, one: Any) -> None:  # noqa: ANN401 - a protocol
        """A connection was made."""
        self._since[one] = (_state(one), time.monotonic())
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GRACE_S, self._look)
        if len(self._since) > _CROWD * self._most:
            self._cut(0.0, down_to=_CROWD * self._most)

    def go(self, one: Any) -> None:  # noqa: ANN401 - a protocol
        """A connection is no more."""
        self._since.pop(one, None)

    def _look(self) -> None:
        now = time.monotonic()
        for one, (state, since_s) in list(self._since.items()):
            found = _state(one)
            if found != state:
                self._since[one] = (found, now)
            elif now - since_s > (REQUEST_S if _asks(one) else ANSWER_S):
                self._abort(one)
        self._cut(_GRACE_S, down_to=self._most)
        self._timer = None
        if self._since:
            self._timer = asyncio.get_running_loop().call_later(_GRACE_S, self._look)

    def _cut(self, age_s: float, *, down_to: int) -> None:
        """Cut off the connections that have asked for nothing for longest."""
        too_many = len(self._since) - down_to
        if too_many <= 0:
            return
        now = time.monotonic()
        idle = [
            (since_s, number, one)
            for number, (one, (_, since_s)) in enumerate(self._since.items())
            if _asks(one) and now - since_s >= age_s
        ]
        for _, _, one in sorted(idle)[:too_many]:
            self._abort(one)

    def _abort(self, one: Any) -> None:  # noqa: ANN401 - a protocol
        self._since.pop(one, None)
        one.transport.abort()


def is_own_name(host: str, bound: str) -> bool:
    """Whether a Host header can be this machine's.

    A page of another site can have its own name point here and read what is answered without a
    token. Addresses, names without a dot and names of private networks cannot be such a site's.

    Args:
        host: the header; who sends none is no browser.
        bound: what the server was told to listen on.
    """
    name = (host if host.endswith("]") else host.rpartition(":")[0] or host).strip("[]").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        own = {bound.lower(), socket.gethostname().lower()}
        return "." not in name or name in own or name.endswith(_PRIVATE)
    return True


def _asks(one: Any) -> bool:  # noqa: ANN401 - a protocol of uvicorn
    """Whether it is the client's turn: to ask, or to send the rest of its request."""
    cycle = one.cycle
    return cycle is None or cycle.response_complete or cycle.more_body


def _state(one: Any) -> tuple[int, bool, bool]:  # noqa: ANN401 - a protocol of uvicorn
    """What changes whenever something is done over a connection."""
    cycle = one.cycle
    return id(cycle), cycle is not None and bool(cycle.response_complete), _asks(one)


class TokenSeen(Enum):
    """What became of a token.

    Attributes:
        RIGHT: it is the one.
        WRONG: it is not; whoever sent it waits `limits.WRONG_TOKEN_S`, and `WrongTokens.waited` is
            called then.
        UNSEEN: it was not looked at, as too many wrong ones wait.
    """

    RIGHT = "right"
    WRONG = "wrong"
    UNSEEN = "unseen"


class WrongTokens:
    """Judges tokens, and has wrong ones wait. Thread-safe.

    From one address, and from all together, only so many wrong tokens wait at once; until then no
    further one is looked at, right or wrong, or else the difference would tell. Connections that
    have shown the right one are not held up by their neighbours.

    Args:
        tell: takes how many wrong ones came since it was called last, and from where the last.
        clock: seconds.

    Attributes:
        count: wrong and unseen tokens so far.
    """

    def __init__(
        self,
        tell: Callable[[int, str], object] = lambda count, address: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.count = 0
        self._tell, self._clock = tell, clock
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()
        self._trusted: OrderedDict[Hashable, None] = OrderedDict()
        self._untold = 0
        self._told_s = float("-inf")

    def show(
        self, address: str, connection: Hashable, *, is_right: Callable[[], bool]
    ) -> TokenSeen:
        """Judge a token.

        Args:
            address: where it comes from.
            connection: over what, which outlives the request.
            is_right: compares it; called only where it may be.
        """
        with self._lock:
            crowded = (
                self._waiting[address] >= WRONG_TOKENS_AT_ONCE
                or self._waiting.total() >= WRONG_TOKENS_OF_ALL
            )
            if crowded and connection not in self._trusted:
                shown = TokenSeen.UNSEEN
            elif is_right():
                self._trusted[connection] = None
                self._trusted.move_to_end(connection)
                if len(self._trusted) > _TRUSTED:
                    self._trusted.popitem(last=False)
                return TokenSeen.RIGHT
            else:
                shown = TokenSeen.WRONG
                self._trusted.pop(connection, None)
                self._waiting[address] += 1
            self.count += 1
            self._untold += 1
            told = self._due()
        if told:
            self._tell(told, address)
        return shown

    def waited(self, address: str) -> None:
        """A wrong token has waited, or its sender has gone."""
        with self._lock:
            self._waiting[address] -= 1
            if self._waiting[address] <= 0:
                del self._waiting[address]

    def _due(self) -> int:
        now = self._clock()
        if now - self._told_s < TELL_EVERY_S:
            return 0
        untold, self._untold, self._told_s = self._untold, 0, now
        return untold
