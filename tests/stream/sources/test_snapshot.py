"""Cameras that give one picture a request."""

from __future__ import annotations

import base64
import re
import socket
import struct
import threading
import time
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from tinysaver_edge.errors import InputError, SourceError
from tinysaver_edge.stream.sources.live import LiveOptions
from tinysaver_edge.stream.sources.opening import open_source
from tinysaver_edge.stream.sources.source import Context

GREY = np.full((24, 32, 3), 90, np.uint8)
JPEG = cv2.imencode(".jpg", GREY)[1].tobytes()
PNG = cv2.imencode(".png", GREY)[1].tobytes()


@contextmanager
def camera(answer):
    """`answer(handler)` gives status, headers and body; yields host:port and the requests."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((time.monotonic(), self.path, self.headers.get("Authorization")))
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *told):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, args=(0.02,))
    serving.start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def giving(body, kind="image/jpeg"):
    return lambda handler: (200, {"Content-Type": kind}, body)


def frames(address, number, **limits):
    source = open_source(address, options=LiveOptions(**{"open_s": 2, "read_s": 2, **limits}))
    found = []
    try:
        for frame in source.frames():
            found.append(frame)
            if len(found) == number:
                break
    finally:
        source.close()
    return found


@pytest.mark.parametrize(
    ("body", "kind"), [(JPEG, "image/jpeg"), (PNG, "image/png"), (JPEG, "Image/JPEG; q=1")]
)
def test_it_is_asked_at_a_bearable_pace(body, kind) -> None:
    with camera(giving(body, kind)) as (host, asked):
        began_s = time.monotonic()
        found = frames(f"http://{host}/snapshot.jpg?size=1#every=0.2", 4)
        came_s = [when for when, *_ in asked]
    assert [one.sequence for one in found] == [0, 1, 2, 3]
    np.testing.assert_allclose(found[0].image, GREY, atol=2)
    assert len(asked) <= 5
    assert all(when - began_s > 0.2 * number - 1e-3 for number, when in enumerate(came_s))
    assert {path for _, path, _ in asked} == {"/snapshot.jpg?size=1"}


def test_the_pause_is_below_what_counts_as_lost() -> None:
    with pytest.raises(InputError, match=r"every is not below 5 s"):
        open_source("http://127.0.0.1:9/a.jpg#every=9")
    with pytest.raises(InputError, match="an option that it does not have; there is threads"):
        open_source("rtsp://127.0.0.1:9/a#every=1")


def test_the_login_is_sent_as_the_camera_wants_it() -> None:
    basic = "Basic " + base64.b64encode(b"us er:p/w?").decode()

    def answer(handler):
        if handler.headers.get("Authorization") != basic:
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
        return giving(JPEG)(handler)

    with camera(answer) as (host, asked):
        assert len(frames(f"http://us%20er:p%2Fw%3F@{host}/s.jpg#every=0.1", 2)) == 2
    assert {said for *_, said in asked} == {basic}


def test_digest_is_understood() -> None:
    challenge = 'Digest realm="cam", nonce="abc", qop="auth", algorithm=MD5'

    def answer(handler):
        said = handler.headers.get("Authorization") or ""
        if not (said.startswith("Digest ") and 'username="ann"' in said and "secret" not in said):
            return 401, {"WWW-Authenticate": challenge}, b""
        return giving(JPEG)(handler)

    with camera(answer) as (host, asked):
        assert len(frames(f"http://ann:secret@{host}/s.jpg#every=0.1", 2)) == 2
    assert 'uri="/s.jpg"' in asked[1][2]


def bomb(side=33_000):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("later", "why"),
    [
        ((200, {"Content-Type": "text/html"}, b"<html>"), "answers 200 with text/html in place"),
        ((503, {"Content-Type": "image/jpeg"}, JPEG), r"fails itself \(503"),
        ((302, {"Location": "http://192.0.2.1/"}, b""), r"redirects to http://192.0.2.1/ \(302"),
        ((200, {"Content-Type": "image/jpeg"}, JPEG[:60]), "is damaged|neither"),
        ((200, {"Content-Type": "image/jpeg"}, b"GIF89a"), "neither JPEG nor PNG"),
        ((200, {"Content-Type": "image/png"}, bomb()), "33000 x 33000 pixels: at most"),
        ((200, {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}, JPEG), "packed"),
    ],
)
def test_what_is_no_picture_any_more_is_a_loss_and_comes_back(later, why) -> None:
    events = []

    def answer(handler):
        return later if len(asked) == 2 else giving(JPEG)(handler)

    with camera(answer) as (host, asked):
        source = open_source(
            f"http://{host}/s.jpg#every=0.1",
            options=LiveOptions(open_s=2, read_s=2, shortest_s=0.1, longest_s=0.2, attempts=5),
        )
        source.attach(Context(listener=events.append))
        found = []
        for frame in source.frames():
            found.append(frame)
            if len(found) == 3:
                break
        source.close()
    assert len(found) == 3
    assert any(re.search(why, one.text) for one in events), [one.text for one in events]


def test_an_address_that_opens_and_gives_nothing_is_one_clear_error() -> None:
    """It speaks of a stream, and the stream ends before a frame: again and again."""
    begun = b"--x\r\nContent-Type: image/jpeg\r\n\r\n"
    answer = giving(begun, "multipart/x-mixed-replace; boundary=x")
    with camera(answer) as (host, asked):
        with pytest.raises(SourceError, match="gives no"):
            frames(f"http://{host}/video", 1)
        assert len(asked) < 8


@pytest.mark.parametrize(
    ("login", "status", "headers", "why"),
    [
        ("", 401, {}, r"wants a user and password \(401\)"),
        ("ann:secret-word@", 401, {}, r"does not accept the user and password \(401\)"),
        ("ann:secret-word@", 403, {}, r"forbids this \(403\): has this user"),
        ("", 404, {}, r"has nothing at this path \(404\)"),
        ("", 500, {}, r"fails itself \(500 Internal Server Error\)"),
        ("", 418, {}, r"answers 418"),
        ("", 200, {"Content-Type": "text/html; charset=utf-8"}, "answers with text/html, which is"),
        ("", 200, {"Content-Type": "image/png", "Content-Encoding": "gzip"}, "its answer packed"),
        (
            "", 302, {"Location": "https://bob:secret-word@10.0.0.9:81/v/pwd=secret-word?key=secret-word"},
            r"redirects to https://10\.0\.0\.9:81/v/pwd=\*\*\* \(302\)",
        ),
    ],
)  # fmt: skip
def test_each_cause_for_which_there_is_no_video_reads_differently(
    login, status, headers, why
) -> None:
    def answer(handler):
        return status, headers, b"nothing to see"

    with camera(answer) as (host, _), pytest.raises(SourceError, match=why) as caught:
        frames(f"http://{login}{host}/video", 1, open_s=0.5)
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "says", "why"),
    [
        ("http", b"SSH-2.0-OpenSSH_9.2\r\n", "speaks no HTTP on this port"),
        (
            "http",
            b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n-5\r\n",
            "speaks no HTTP on this port",
        ),
        ("http", b"", "hangs up without an answer"),
        ("http", None, "takes the connection, but says nothing within 0.5 s"),
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks no TLS on this port"),
    ],
)
def test_what_is_no_web_server_is_called_what_it_is(scheme, says, why) -> None:
    over = threading.Event()

    def serve(connection):
        with connection:
            if says is None:
                over.wait(5)
            else:
                connection.recv(1)
                connection.sendall(says)

    def accept():
        while not over.is_set():
            try:
                connection, _ = door.accept()
            except TimeoutError:
                continue
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(0.1)
        accepting = threading.Thread(target=accept)
        accepting.start()
        address = f"{scheme}://127.0.0.1:{door.getsockname()[1]}/video"
        try:
            with pytest.raises(SourceError, match=why):
                frames(address, 1, open_s=0.5)
        finally:
            over.set()
            accepting.join()
