"""Doors of servers: which requests and tokens get in, at what cost, and for how long."""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tinysaver_edge._support.limits import (
    ANSWER_S,
    HEADER_BYTES,
    KNOCKS_AT_ONCE,
    KNOCKS_PER_S,
    MOST_PIECES,
    REQUEST_S,
    WRONG_TOKENS_AT_ONCE,
    WRONG_TOKENS_OF_ALL,
)

TELL_EVERY_S = 60.0
"""How often wrong tokens are told of."""

_REMEMBERED = 1024
"""Addresses that knock, and connections that have shown the token: so many are remembered."""

_GRACE_S = 0.25
"""A connection that has just been made may be about to send its request."""

_FIRST_S = 0.05
"""A first request waits no longer, or it would be cut off among those that ask for nothing."""

_CROWD = 4
"""So many times the usual number of connections are borne for that long."""

_BURST_S = 0.05
"""Processor time that an event loop may take at once, after a time of rest."""

_TURN_S = 0.0005
"""So long a thread keeps the interpreter where another waits for it, while doors are open."""

_PIECE_S = 0.01
"""A head that has come in so many pieces, and is not whole, is read on after so much for each."""

_REST_S = 0.05
"""The longest that it waits before it looks again."""

TOO_LONG = b"HTTP/1.1 431 Too long\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
"""What is said to who sends no end of a head, or it in drops."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Request line and headers of one request.

    Attributes:
        method: in capitals, as it was sent.
        path: as it was sent, without a query.
        headers: names in small letters; of several of one name the last.
        client: address and port that it comes from.
        keeps: whether the connection stays for further requests.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    client: tuple[str, int]
    keeps: bool

    @classmethod
    def read(cls, text: bytes, client: tuple[str, int]) -> RequestHead | None:
        """Read it up to its empty line; None where it is no HTTP."""
        first, *lines = text.decode("latin-1").split("\n")
        words = first.split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return None
        headers = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if colon:
                headers[name.lower()] = value.strip()
        keeps = words[2] != "HTTP/1.0" and headers.get("connection", "").lower() != "close"
        return cls(words[0], words[1].partition("?")[0], headers, client, keeps)

    @property
    def has_body(self) -> bool:
        """Whether more than the head belongs to the request."""
        return self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers


@dataclass(frozen=True, slots=True)
class Said:
    """An answer that is ready.

    Attributes:
        status: of HTTP.
        kind: its content type.
        body: what it says.
        headers: further ones.
    """

    status: int
    kind: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def sent(self, *, keeps: bool, bare: bool = False) -> bytes:
        """Return what goes over the wire.

        Args:
            keeps: whether the connection stays.
            bare: whether the body is left out, as where HEAD asks.
        """
        lines = [
            f"HTTP/1.1 {self.status} {http.client.responses.get(self.status, '')}",
            f"content-type: {self.kind}",
            f"content-length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            f"connection: {'keep-alive' if keeps else 'close'}",
        ]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if bare else self.body)


@contextmanager
def short_turns() -> Iterator[None]:
    """Have threads take short turns: a frame needs one after each call of an engine."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(min(usual_s, _TURN_S))
    try:
        yield
    finally:
        if usual_s > _TURN_S:  # else others see to it, who may be done by now
            sys.setswitchinterval(usual_s)


class Doorkeeper:
    """Keeps connections few, none waiting for ever, and what strangers send cheap. One event loop.

    A request gets past it once its head is there, whole and of bearable length; what can be
    answered or refused at once is, before anything else is done for it. Whoever takes longer than
    `limits.REQUEST_S` to send a request, or than `limits.ANSWER_S` to take an answer, is cut off.
    Where there are too many, those go that have asked for nothing for longest: who sends a request
    at once is answered, however many only sit there.

    Args:
        most: connections that may stay.
        at_once: answers what needs no thought; None leaves a request to the server.
        share: of one processor core that the event loop may take, where it is the doorkeeper's
            alone; what comes beyond waits, and whatever else this process does goes on.
        trusts: where the loop has other work, whether a connection, by address and port, is one
            of ours. Of another address `limits.KNOCKS_PER_S` are read; what comes beyond waits.
    """

    def __init__(
        self,
        most: int,
        *,
        at_once: Callable[[RequestHead], Said | None] = lambda head: None,
        share: float | None = None,
        trusts: Callable[[tuple[str, int]], bool] | None = None,
    ) -> None:
        self._most, self._at_once, self._share = most, at_once, share
        self._trusts = trusts
        self._knocks: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._since: dict[Any, tuple[Any, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._left_s, self._used_s, self._seen_s = 0.0, 0.0, 0.0

    def protocol(self, base: type) -> type:
        """Return a class of protocols, watched over by this doorkeeper.

        Args:
            base: uvicorn's, or one that has its `cycle` and is sent whole heads.
        """
        keeper = self

        class Kept(base):  # type: ignore[misc]
            _sent = b""
            _pieces = 0
            _bare = False
            _waits: asyncio.TimerHandle | None = None
            said = 0

            def connection_made(self, transport: Any) -> None:  # noqa: ANN401
                super().connection_made(transport)
                self._client = tuple(transport.get_extra_info("peername") or ("", 0))[:2]
                keeper.come(self)
                self._wait(at_most_s=_FIRST_S)  # it may be one of ours, from the same address

            def connection_lost(self, exc: Exception | None) -> None:
                keeper.go(self)
                self._sent = b""
                self._stay()
                super().connection_lost(exc)

            def data_received(self, data: bytes) -> None:
                keeper.rest()
                inside = _is_inside(self)
                if inside and not self._bare:  # its body
                    super().data_received(data)
                    return
                self._sent = self._sent + data if self._sent else data.lstrip(b"\r\n")
                self._pieces += 1
                if not inside:
                    self._take()
                    self._wait(at_least_s=_PIECE_S * max(0, self._pieces - 1))
                if len(self._sent) > HEADER_BYTES or self._pieces > MOST_PIECES:
                    self.transport.write(TOO_LONG)
                    self.transport.abort()

            def on_response_complete(self) -> None:
                super().on_response_complete()
                if self._sent and self._bare:  # it was sent before it was its turn
                    asyncio.get_running_loop().call_soon(self._go_on)

            def _go_on(self) -> None:
                keeper.rest()
                if not self.transport.is_closing():
                    self._take()

            def _take(self) -> None:
                """Take the requests whose heads are there, until one is the server's."""
                while (length := _head_length(self._sent)) is not None:
                    text, self._pieces = self._sent[:length], 0
                    head = RequestHead.read(text, self._client)
                    self._bare = head is not None and not head.has_body
                    said = keeper.judge(head) if head is not None and self._bare else None
                    if head is not None and said is not None:
                        self._sent = self._sent[length:].lstrip(b"\r\n")
                        self._say(said, head)
                        if head.keeps and len(self._sent) <= HEADER_BYTES:
                            continue
                        return
                    given = text if self._bare else self._sent
                    self._sent = self._sent[len(given) :].lstrip(b"\r\n")
                    super().data_received(given)
                    return

            def _wait(self, at_most_s: float = REQUEST_S / 10, at_least_s: float = 0.0) -> None:
                """Read on when strangers may knock again, or more of a head will have come."""
                wait_s = min(max(keeper.knock(self._client), at_least_s), at_most_s)
                if wait_s > 0 and not self.transport.is_closing() and not _is_inside(self):
                    self.transport.pause_reading()
                    self._stay()
                    self._waits = asyncio.get_running_loop().call_later(wait_s, self._read_on)

            def _stay(self) -> None:
                if self._waits is not None:  # it keeps the connection, and what came over it
                    self._waits.cancel()

            def _read_on(self) -> None:
                if not self.transport.is_closing():
                    self.transport.resume_reading()

            def _say(self, said: Said, head: RequestHead) -> None:
                # It does not read what it asked for; a little may be TLS's own, of the handshake.
                if self.transport.get_write_buffer_size() > HEADER_BYTES:
                    self.transport.abort()
                    return
                self.said += 1
                self.transport.write(said.sent(keeps=head.keeps, bare=head.method == "HEAD"))
                if not head.keeps:
                    self.transport.close()

        return Kept

    def judge(self, head: RequestHead) -> Said | None:
        """Answer what needs no thought."""
        return self._at_once(head)

    def rest(self) -> None:
        """Where the loop has had its share of the processor, have it wait until it is due again."""
        if self._share is None:
            return
        now_s, used_s = time.monotonic(), time.thread_time()
        self._left_s += self._share * (now_s - self._seen_s) - (used_s - self._used_s)
        self._left_s = min(self._left_s, _BURST_S)
        self._seen_s, self._used_s = now_s, used_s
        if self._left_s < 0:
            time.sleep(min(-self._left_s / self._share, _REST_S))

    def knock(self, client: tuple[str, int]) -> float:
        """Count what a stranger sends; returns how long what comes next may wait, in seconds."""
        if self._trusts is None or self._trusts(client):
            return 0.0
        place, now_s = place_of(client[0]), time.monotonic()
        knocks, knocked_s = self._knocks.pop(place, (0.0, now_s))
        knocks = max(0.0, knocks - KNOCKS_PER_S * (now_s - knocked_s)) + 1
        self._knocks[place] = knocks, now_s
        if len(self._knocks) > _REMEMBERED:
            self._knocks.popitem(last=False)
        return max(0.0, knocks - KNOCKS_AT_ONCE) / KNOCKS_PER_S

    def come(self, one: Any) -> None:  # noqa: ANN401 - a protocol
        """A connection was made."""
        self.rest()
        self._since[one] = (_state(one), time.monotonic())
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GRACE_S, self._look)
        if len(self._since) > _CROWD * self._most:
            self._cut(0.0, down_to=_CROWD * self._most)

    def go(self, one: Any) -> None:  # noqa: ANN401 - a protocol
        """A connection is no more."""
        self._since.pop(one, None)

    def close(self) -> None:
        """Cut off all."""
        for one in list(self._since):
            self._abort(one)

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


def _head_length(sent: bytes) -> int | None:
    """Return how long a head is that begins here; None where its end is not there, or too far."""
    ends = (sent.find(b"\n\r\n", 0, HEADER_BYTES), 3), (sent.find(b"\n\n", 0, HEADER_BYTES), 2)
    return min((place + length for place, length in ends if place >= 0), default=None)


def _is_inside(one: Any) -> bool:  # noqa: ANN401 - a protocol
    """Whether a request has begun that is not over: its body is to come, or its answer to go."""
    cycle = one.cycle
    return cycle is not None and (cycle.more_body or not cycle.response_complete)


def _asks(one: Any) -> bool:  # noqa: ANN401 - a protocol of uvicorn
    """Whether it is the client's turn: to ask, or to send the rest of its request."""
    cycle = one.cycle
    return cycle is None or cycle.response_complete or cycle.more_body


def _state(one: Any) -> tuple[int, int, bool, bool]:  # noqa: ANN401 - a protocol of uvicorn
    """What changes whenever something is done over a connection."""
    cycle = one.cycle
    done = cycle is not None and bool(cycle.response_complete)
    return id(cycle), one.said, done, _asks(one)


def place_of(address: str) -> str:
    """Return what an address counts as: of IPv6 its network, in which one sender has them all."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))


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
        place = place_of(address)
        with self._lock:
            if self._is_crowded(place, connection):
                shown = TokenSeen.UNSEEN
            elif is_right():
                self._trusted[connection] = None
                self._trusted.move_to_end(connection)
                if len(self._trusted) > _REMEMBERED:
                    self._trusted.popitem(last=False)
                return TokenSeen.RIGHT
            else:
                shown = TokenSeen.WRONG
                self._trusted.pop(connection, None)
                self._waiting[place] += 1
            told = self._due()
        if told:
            self._tell(told, address)
        return shown

    def trusts(self, connection: Hashable) -> bool:
        """Whether the right token has come over a connection, and no wrong one since."""
        return connection in self._trusted

    def passed_over(self, address: str, connection: Hashable) -> bool:
        """Whether a token that has come is `TokenSeen.UNSEEN`, and counted so; else show it."""
        with self._lock:
            crowded = self._is_crowded(place_of(address), connection)
            told = self._due() if crowded else 0
        if told:
            self._tell(told, address)
        return crowded

    def _is_crowded(self, place: str, connection: Hashable) -> bool:
        too_many = (
            self._waiting.get(place, 0) >= WRONG_TOKENS_AT_ONCE
            or self._waiting.total() >= WRONG_TOKENS_OF_ALL
        )
        return too_many and connection not in self._trusted

    def waited(self, address: str) -> None:
        """A wrong token has waited, or its sender has gone."""
        place = place_of(address)
        with self._lock:
            self._waiting[place] -= 1
            if self._waiting[place] <= 0:
                del self._waiting[place]

    def _due(self) -> int:
        """Count one, and return how many there are to tell of."""
        self.count += 1
        self._untold += 1
        now = self._clock()
        if now - self._told_s < TELL_EVERY_S:
            return 0
        untold, self._untold, self._told_s = self._untold, 0, now
        return untold
