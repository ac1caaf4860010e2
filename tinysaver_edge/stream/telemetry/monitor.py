"""A small HTTP server for machines: /metrics, /healthz and /readyz."""

from __future__ import annotations

import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import TYPE_CHECKING, Any

from tinysaver_edge.stream.telemetry.address import Address, url_of
from tinysaver_edge.stream.telemetry.health import Health, Verdict
from tinysaver_edge.stream.telemetry.prometheus import PrometheusMetrics

if TYPE_CHECKING:
    from typing_extensions import Self

MOST_CONNECTIONS = 16
"""Further ones are closed at once."""

TIMEOUT_S = 5.0
"""How long a client may take for its request."""


class Monitor:
    """Serves metrics and health; a context manager.

    `/metrics` wants the token as ``Authorization: Bearer TOKEN`` where there is one; whether the
    process is alive and ready everybody may know.

    Args:
        address: where to listen.
        health: what is told of it.
        metrics: what is published.
        token: what `/metrics` must be asked with, or None.

    Attributes:
        url: where it listens, once it has been entered.
    """

    def __init__(
        self, address: Address, health: Health, metrics: PrometheusMetrics, *, token: str | None
    ) -> None:
        self._address = address
        self._health = health
        self._metrics = metrics
        self._token = token
        self._server: _Server | None = None
        self.url = ""

    def respond(self, path: str, authorization: str) -> tuple[int, str, bytes]:
        """Return status, content type and body of one request."""
        if path == "/healthz":
            return _verdict(self._health.alive)
        if path == "/readyz":
            return _verdict(self._health.ready)
        if path != "/metrics":
            return 404, "text/plain", b"there are /metrics, /healthz and /readyz\n"
        if self._token is not None and not _same(authorization, f"Bearer {self._token}"):
            return 401, "text/plain", b"give the token as Authorization: Bearer TOKEN\n"
        return 200, self._metrics.content_type, self._metrics.exposition()

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
        self._room = threading.Semaphore(MOST_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = TIMEOUT_S
    server_version = "tinysaver-edge"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        authorization = self.headers.get("Authorization", "")
        status, kind, body = self.server.monitor.respond(path, authorization)
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
