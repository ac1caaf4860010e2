"""A small HTTP server for machines: /metrics, /healthz and /readyz."""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from socket import socket
from typing import TYPE_CHECKING

from tinysaver_edge._support.doors import Doorkeeper, RequestHead, Said, TokenSeen, WrongTokens
from tinysaver_edge._support.limits import (
    ACCEPTED_AT_ONCE,
    DOOR_SHARE,
    MOST_CONNECTIONS,
    QUEUED,
    WRONG_TOKEN_S,
)
from tinysaver_edge._support.urls import ListenAddress, is_own_name, url_of
from tinysaver_edge.stream.telemetry.health import Health
from tinysaver_edge.stream.telemetry.prometheus import PrometheusMetrics

if TYPE_CHECKING:
    from typing_extensions import Self

START_S = 10.0
STOP_S = 3.0


class Monitor:
    """Serves metrics and health; a context manager.

    `/metrics` wants the token as ``Authorization: Bearer TOKEN`` where there is one; whether the
    process is alive and ready everybody may know.

    Args:
        address: where to listen.
        health: what is told of it.
        metrics: what is published.
        token: what `/metrics` must be asked with, or None.
        tries: judges tokens; one for all doors of a stream.

    Attributes:
        url: where it listens, once it has been entered.
    """

    def __init__(
        self,
        address: ListenAddress,
        health: Health,
        metrics: PrometheusMetrics,
        *,
        token: str | None,
        tries: WrongTokens | None = None,
    ) -> None:
        self._address = address
        self._health = health
        self._metrics = metrics
        self._token = token
        self._tries = tries or WrongTokens()
        self._thread = threading.Thread()
        self._stop: Callable[[], object] | None = None
        self.url = ""

    @property
    def warnings(self) -> list[str]:
        """What the user should know: who else can read the figures."""
        if self._token is not None or self._address.is_loopback:
            return []
        return [
            f"{self._address}: whoever reaches this address can read the figures, and names of "
            "cameras and hosts with them; set TINYSAVER_TOKEN"
        ]

    def respond(self, head: RequestHead) -> Said | None:
        """Return the answer to a request; None where a wrong token has to wait for it."""
        if head.method not in ("GET", "HEAD"):
            return _text(405, "this server is only read\n")
        if (said := self._health.said(head.path)) is not None:
            return said
        if head.path != "/metrics":
            return _text(404, "there are /metrics, /healthz and /readyz\n")
        if self._token is not None:
            authorization = head.headers.get("authorization", "")
            if not authorization:
                return DENIED
            shown = self._tries.show(
                head.client[0],
                head.client,
                is_right=lambda: _same(authorization, f"Bearer {self._token}"),
            )
            if shown is TokenSeen.WRONG:
                return None
            if shown is TokenSeen.UNSEEN:
                return _text(429, "too many wrong tokens: try again later\n")
        elif not is_own_name(head.headers.get("host", ""), self._address.host):
            return _text(421, "this name is not this machine's; set TINYSAVER_TOKEN\n")
        return Said(200, self._metrics.content_type, self._metrics.exposition())

    async def deny(self, client: tuple[str, int]) -> Said:
        """Have a wrong token wait; return the answer to it."""
        try:
            await asyncio.sleep(WRONG_TOKEN_S)
        finally:
            self._tries.waited(client[0])
        return DENIED

    def __enter__(self) -> Self:
        """Listen.

        Raises:
            InputError: the port cannot be had.
        """
        listening = self._address.bind()
        self.url = url_of(listening)
        listens = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listening, listens)),
            name="metrics and health",
            daemon=True,
        )
        self._thread.start()
        listens.wait(START_S)
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop listening. Legal in every state."""
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()
            self._thread.join(STOP_S)

    async def _serve(self, listening: socket, listens: threading.Event) -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        self._stop = partial(loop.call_soon_threadsafe, over.set)
        keeper = Doorkeeper(MOST_CONNECTIONS, at_once=self.respond, share=DOOR_SHARE)
        server = await loop.create_server(
            partial(keeper.protocol(_Connection), self), sock=listening, backlog=ACCEPTED_AT_ONCE
        )
        listening.listen(QUEUED)  # more than are taken in one go
        listens.set()
        try:
            await over.wait()
        finally:
            server.close()
            keeper.close()
            await asyncio.sleep(0)  # connections are told


def _text(status: int, text: str) -> Said:
    return Said(status, "text/plain", text.encode())


DENIED = Said(
    401, "text/plain", b"give the token as Authorization: Bearer TOKEN\n",
    {"www-authenticate": "Bearer"},
)  # fmt: skip


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


@dataclass(slots=True)
class _Turn:
    """A request under way, as `Doorkeeper` asks about it."""

    response_complete: bool = False
    more_body: bool = False


class _Connection(asyncio.Protocol):
    """What is not answered at once: wrong tokens, after a while, and what is no request for us."""

    transport: asyncio.Transport
    _client: tuple[str, int]

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.cycle: _Turn | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def on_response_complete(self) -> None:
        """Nothing: the connection ends with the answer."""

    def data_received(self, data: bytes) -> None:
        head = RequestHead.read(data, self._client)
        if head is None or head.has_body:
            self._end(_text(400, "that is no request for this server\n"))
        else:
            self.cycle = _Turn()
            self._task = asyncio.get_running_loop().create_task(self._deny(head.client))

    async def _deny(self, client: tuple[str, int]) -> None:
        self._end(await self._monitor.deny(client))

    def _end(self, said: Said) -> None:
        self.cycle = _Turn(response_complete=True)
        self.transport.write(said.sent(keeps=False))
        self.transport.close()
