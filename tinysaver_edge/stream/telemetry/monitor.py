"""A small HTTP server for machines: /metrics, /healthz and /readyz."""

from __future__ import annotations

import hmac
import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.doors import ListenAddress, TokenSeen, WrongTokens, is_own_name, url_of
from tinysaver_edge._support.http_client import BoundedReader
from tinysaver_edge._support.limits import (
    HEADER_BYTES,
    MOST_CONNECTIONS,
    REQUEST_S,
    WRONG_TOKEN_S,
)
from tinysaver_edge.stream.telemetry.health import Health, Verdict
from tinysaver_edge.stream.telemetry.prometheus import PrometheusMetrics

if TYPE_CHECKING:
    from typing_extensions import Self


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
        self._server: _Server | None = None
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

    def respond(
        self, path: str, authorization: str, *, host: str = "", client: tuple[str, int] = ("", 0)
    ) -> tuple[int, str, bytes]:
        """Return status, content type and body of one request.

        Args:
            path: what is asked for, without a query.
            authorization: the header of that name.
            host: the header of that name.
            client: address and port that it comes from.
        """
        if path == "/healthz":
            return _verdict(self._health.alive)
        if path == "/readyz":
            return _verdict(self._health.ready)
        if path != "/metrics":
            return 404, "text/plain", b"there are /metrics, /healthz and /readyz\n"
        if self._token is None and not is_own_name(host, self._address.host):
            return 421, "text/plain", b"this name is not this machine's; set TINYSAVER_TOKEN\n"
        if self._token is not None and (refused := self._refusal(authorization, client)):
            return refused
        return 200, self._metrics.content_type, self._metrics.exposition()

    def _refusal(
        self, authorization: str, client: tuple[str, int]
    ) -> tuple[int, str, bytes] | None:
        """Return the answer to who does not know the token, after a while; None for who does."""
        denied = 401, "text/plain", b"give the token as Authorization: Bearer TOKEN\n"
        if not authorization:
            return denied
        shown = self._tries.show(
            client[0], client, is_right=lambda: _same(authorization, f"Bearer {self._token}")
        )
        if shown is TokenSeen.RIGHT:
            return None
        if shown is TokenSeen.UNSEEN:
            return 429, "text/plain", b"too many wrong tokens: try again later\n"
        try:
            time.sleep(WRONG_TOKEN_S)
        finally:
            self._tries.waited(client[0])
        return denied

    def __enter__(self) -> Self:
        """Listen.

        Raises:
            InputError: the port cannot be had.
        """
        listening = self._address.bind()
        self.url = url_of(listening)
        self._server = _Server(listening, self)
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics and health", daemon=True
        ).start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop listening. Legal in every state."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


def _verdict(verdict: Verdict) -> tuple[int, str, bytes]:
    body = json.dumps({"good": verdict.good, "why": verdict.why}) + "\n"
    return 200 if verdict.good else 503, "application/json", body.encode()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket, monitor: Monitor) -> None:
        super().__init__(listening.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.monitor = monitor
        self._lock = threading.Lock()
        self._open: dict[socket, None] = {}

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer in a thread; where there are too many, the oldest connection gives way.

        Who asks at once is answered within milliseconds: the oldest is one that only sits there.
        """
        with self._lock:
            oldest = next(iter(self._open)) if len(self._open) >= MOST_CONNECTIONS else None
            if oldest is not None:
                del self._open[oldest]
            self._open[request] = None
        if oldest is not None:
            with suppress(OSError):  # it has ended meanwhile
                oldest.shutdown(SHUT_RDWR)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_S
    server_version = "tinysaver-edge"
    sys_version = ""

    def setup(self) -> None:
        """Have the whole request come in time, and be of bearable length."""
        super().setup()
        due_s = time.monotonic() + REQUEST_S
        self.rfile = BoundedReader(self.connection, due_s, HEADER_BYTES).makefile()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        authorization = self.headers.get("Authorization", "")
        status, kind, body = self.server.monitor.respond(
            path,
            authorization,
            host=self.headers.get("Host", ""),
            client=self.client_address[:2],
        )
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """A request every few seconds is no news."""
