"""Doors of servers: which Host names are answered, and how long connections may stand in them."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from typing import Any

from tinysaver_edge._support.limits import ANSWER_S, HEADER_BYTES, REQUEST_S

_PRIVATE = (".local", ".localdomain", ".internal", ".lan", ".home.arpa", ".svc")
"""Ends of names that nobody can own in the public DNS."""

_GRACE_S = 0.25
"""A connection that has just been made may be about to send its request."""

_CROWD = 4
"""So many times the usual number of connections are borne for that long."""


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


def _asks(one: Any) -> bool:  # noqa: ANN401 - a protocol of uvicorn
    """Whether it is the client's turn: to ask, or to send the rest of its request."""
    cycle = one.cycle
    return cycle is None or cycle.response_complete or cycle.more_body


def _state(one: Any) -> tuple[int, bool, bool]:  # noqa: ANN401 - a protocol of uvicorn
    """What changes whenever something is done over a connection."""
    cycle = one.cycle
    return id(cycle), cycle is not None and bool(cycle.response_complete), _asks(one)
