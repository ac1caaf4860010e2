"""Real servers that serve an image layout: whole, without ranges, or hanging up in the middle."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest


class Server(ThreadingHTTPServer):
    """Serves a folder, with PUT, ranges and ETag, unless it is told not to."""

    daemon_threads = True

    def __init__(self, root: Path, *, ranges: bool = True, puts: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.ranges, self.puts = root, ranges, puts
        self.hang_up_after: int | None = None
        """Bytes of a blob after which the connection is cut, each time; None for never."""
        self.cut = "/blobs/"
        self.dead = False
        self.page: bytes | None = None
        """What all are answered with, as by a network that wants a log-in first."""
        self.login: str | None = None
        self.asked: list[tuple[str, str, str | None]] = []
        self.authorizations: list[str | None] = []
        self.sent_bytes = 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refused(self) -> bool:
        ranged = self.headers.get("Range")
        self.server.authorizations.append(self.headers.get("Authorization"))
        self.server.asked.append((self.command, self.path, ranged))
        if self.server.dead:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return True
        if self.server.login and self.headers.get("Authorization") != self.server.login:
            self._answer(401, WWW_Authenticate="Basic")
            return True
        return False

    def do_HEAD(self) -> None:
        if not self._refused():
            place = self.server.root / self.path.lstrip("/")
            there = place.is_file()
            self.send_response(200 if there else 404)
            self.send_header("Content-Length", str(place.stat().st_size) if there else "0")
            self.end_headers()

    def do_PUT(self) -> None:
        if self._refused():
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.page is not None:
            self._answer(200, self.server.page, Content_Type="text/html; charset=utf-8")
            return
        if not self.server.puts:
            self._answer(405)
            return
        place = self.server.root / self.path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)
        self._answer(201)

    def do_GET(self) -> None:
        if self._refused():
            return
        place = self.server.root / self.path.lstrip("/")
        if not place.is_file():
            self._answer(404)
            return
        etag = f'"{place.stat().st_mtime_ns}"'
        if self.headers.get("If-None-Match") == etag:
            self._answer(304)
            return
        body, start, status = place.read_bytes(), 0, 200
        whole = len(body)
        if self.server.ranges and (asked := self.headers.get("Range")):
            first, last = asked.removeprefix("bytes=").split("-")
            start, end, status = int(first), min(int(last), whole - 1), 206
            if start >= whole:
                self._answer(416)
                return
            body = body[start : end + 1]
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{whole}")
        self.end_headers()
        most = self.server.hang_up_after
        if self.server.cut in self.path and most is not None and len(body) > most:
            self.wfile.write(body[:most])
            self.wfile.flush()
            self.server.sent_bytes += most
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(body)
        self.server.sent_bytes += len(body)


@contextmanager
def serving(root: Path, **settings: bool) -> Iterator[Server]:
    server = Server(root, **settings)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Run a real registry; the address of its host and port."""
    program = os.environ.get("TINYSAVER_DOCKER_REGISTRY") or shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed (Debian: apt-get install docker-registry)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / "registry.yml"
    settings.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'registry'}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    process = subprocess.Popen(
        [program, "serve", str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            try:
                urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


class TokenRegistry(Server):
    """A registry that wants a token for each request, and keeps its blobs on another server.

    Args:
        layout: what it serves, as an image layout.
        blobs: the address of the other server.
    """

    def __init__(self, layout: Path, blobs: str) -> None:
        super().__init__(layout)
        self.blobs = blobs
        self.RequestHandlerClass = _TokenHandler
        self.login = "Basic " + base64.b64encode(b"robot:secret").decode()


class _TokenHandler(_Handler):
    def do_GET(self) -> None:
        said, place = self.headers.get("Authorization"), self.path.partition("?")[0]
        if place == "/token":
            good = said == self.server.login and "scope=repository%3Abelt%3Apull" in self.path
            self._answer(200 if good else 401, b'{"token": "t0ken"}' if good else b"")
        elif said != "Bearer t0ken":
            wanted = (
                f'Bearer realm="{self.server.url}/token",service="x",scope="repository:belt:pull"'
            )
            self._answer(401, WWW_Authenticate=wanted)
        elif place.startswith("/v2/belt/manifests/"):
            index = json.loads((self.server.root / "index.json").read_text())
            tag = place.rpartition("/")[2]
            digest = next(
                one["digest"] for one in index["manifests"] if tag in one["annotations"].values()
            )
            self._answer(200, (self.server.root / "blobs" / digest.replace(":", "/")).read_bytes())
        else:
            digest = place.rpartition("/")[2].replace(":", "/")
            self._answer(307, Location=f"{self.server.blobs}/blobs/{digest}")
