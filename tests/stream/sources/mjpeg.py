"""A camera over HTTP for tests: MJPEG, and one picture where a .jpg is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


def picture(number: int) -> bytes:
    """A JPEG of one grey, another one each time."""
    image = np.full((48, 64, 3), number % 250, np.uint8)
    data: bytes = cv2.imencode(".jpg", image)[1].tobytes()
    return data


@contextmanager
def mjpeg_camera(*, open_to_all: bool = True) -> Iterator[int]:
    """Serve some fifty pictures a second on a port of this machine, which is yielded."""

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not open_to_all and "Basic" not in self.headers.get("Authorization", ""):
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
                return
            self.send_response(200)
            if self.path.endswith(".jpg"):
                data = picture(int(time.monotonic() * 50))
                self.send_header("Content-Type", "image/jpeg")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                return
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                for number in range(10_000):
                    data = picture(number)
                    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    self.wfile.write(b"--frame\r\n" + head.encode() + data + b"\r\n")
                    time.sleep(0.02)
            except OSError:
                return

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
