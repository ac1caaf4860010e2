"""An outage of an hour at 15 frames a second: the queue's bytes, the accounts, the live stream.

    python benchmarks/bench_forward.py [--hours 1] [--seconds 10]

The target (a web server) is away, and every frame of an hour goes into the queue: real files of
real bytes, one after the other as quickly as the disk takes them, so the hour passes in a minute or
two; only the clock that names them is turned on by 1/15 s a frame. Then the server is back, and the
queue drains while a camera of the demo is decided at 15 frames a second by the demo's models, in
turns with the sending held up, so that both are timed on the same machine in the same minutes; what
is left then is sent without a pause, to see that all of it arrives.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from bench_soak import demo_cascade
from cameras import PacedCamera
from imagenet import save, table

from tinysaver_edge.demo.camera import SimulatedCamera
from tinysaver_edge.stream.sinks.forward import Forwarder, Receiver, receiver_of
from tinysaver_edge.stream.sinks.pictures import encoded, moment
from tinysaver_edge.stream.sinks.queued import DiskQueue
from tinysaver_edge.stream.sources.live import LiveSource

FPS = 15.0
MOST_BYTES = 256 << 20
SHARE = 0.25
TURNS = 3
SLOWER = 1.1


class Target(BaseHTTPRequestHandler):
    """Takes what is put, and counts it."""

    protocol_version = "HTTP/1.1"
    names: set[str] = set()  # noqa: RUF012

    def do_PUT(self) -> None:
        """Take a file."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.names.add(self.path)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


class Gate:
    """A receiver that a test may hold up.

    Args:
        receiver: what takes items.
    """

    def __init__(self, receiver: Receiver) -> None:
        self.shown, self._receiver = receiver.shown, receiver
        self.open = threading.Event()
        self._held_s = 0.0

    def clock(self) -> float:
        """Return a time that stands still while it is held up: nothing is being sent then."""
        return time.monotonic() - self._held_s

    def take(self, name: str, content: bytes) -> None:
        """Wait until it is open, and pass a file on."""
        began_s = time.monotonic()
        self.open.wait()
        self._held_s += time.monotonic() - began_s
        self._receiver.take(name, content)


def items(frames: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents as the sink makes them: 24 pictures of the demo, in turn."""
    shown = [encoded(picture, ".jpg") for picture, _ in SimulatedCamera(seed=1).frames(24)]
    start_s = 1_790_000_000.0
    for number in range(frames):
        picture = shown[number % len(shown)]
        name = f"{moment(start_s + number / FPS)}-{number:06d}-camera-{number}"
        row: dict[str, object] = {
            "file": f"{name}.jpg",
            "sha256": hashlib.sha256(picture).hexdigest(),
        }
        row |= {"kind": "hard", "answer": "screw", "answered_by": "large", "sequence": number}
        yield name, json.dumps(row).encode() + b"\n" + picture


def main() -> int:
    """Print the table; exit 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each turn")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = outage(Path(scratch), int(asked.hours * 3600 * FPS), asked.seconds)
    counts, quiet, busy = figures["counts"], figures["quiet_ms"], figures["draining_ms"]
    low, high = ratio_interval(quiet, busy)
    ratio = float(np.percentile(busy, 95) / np.percentile(quiet, 95))
    whole = counts["queued"] == counts["sent"] + counts["dropped"] + counts["aside"]
    arrived = figures["arrived"] == counts["sent"]
    rows = [
        ("frames in the outage", f"{counts['queued']:,}", ""),
        ("bytes of them", f"{figures['offered_bytes'] / 1e6:.0f} MB", ""),
        ("queue, most bytes", f"{figures['most_bytes'] / 2**20:.1f} MiB", f"≤ {MOST_BYTES >> 20}"),
        ("taken in, frames a second", f"{figures['added_fps']:.0f}", f"≥ {FPS:g}"),
        ("dropped, the oldest", f"{counts['dropped']:,}", ""),
        ("sent; at the target", f"{counts['sent']:,}; {figures['arrived']:,}", "the same"),
        ("set aside", str(counts["aside"]), "0"),
        ("live p95, sending held up", f"{np.percentile(quiet, 95):.2f} ms", ""),
        ("live p95, draining", f"{np.percentile(busy, 95):.2f} ms", ""),
        ("ratio, with its 95 % interval", f"{ratio:.3f} ({low:.3f} to {high:.3f})", f"≤ {SLOWER}"),
        ("drained while draining, frames a second", f"{figures['drained_fps']:.0f}", f"> {FPS:g}"),
    ]
    text = f"{len(quiet)} and {len(busy)} live frames.\n\n" + table(
        ("what", "measured", "target"), rows
    )
    told = {key: value for key, value in figures.items() if not key.endswith("_ms")}
    told |= {"ratio": ratio, "ratio_interval": [low, high]}
    told |= {"p95_quiet_ms": float(np.percentile(quiet, 95))}
    told |= {"p95_draining_ms": float(np.percentile(busy, 95))}
    save("bench_forward", title="Frames that wait through an outage", text=text, figures=told)
    good = whole and arrived and figures["most_bytes"] <= MOST_BYTES and ratio <= SLOWER
    return int(not good)


def ratio_interval(quiet: list[float], busy: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the ratio of two p95, by the bootstrap."""
    rng = np.random.default_rng(0)
    ratios = [
        np.percentile(rng.choice(busy, len(busy)), 95)
        / np.percentile(rng.choice(quiet, len(quiet)), 95)
        for _ in range(2000)
    ]
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(low), float(high)


def outage(folder: Path, frames: int, seconds: float) -> dict[str, Any]:
    """Fill the queue while the target is away, then drain it beside a live camera."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/field"
    gate = Gate(receiver_of(address))
    gate.open.set()
    queue = DiskQueue(folder / "queue", most_bytes=MOST_BYTES)
    ages: list[tuple[float, float]] = []
    shown = [picture for picture, _ in SimulatedCamera(seed=0).frames(64)]
    camera = LiveSource(PacedCamera(shown, fps=FPS, frames=10**6), source_id="camera")
    with demo_cascade() as cascade, Forwarder(queue, gate, share=SHARE, clock=gate.clock):
        stream = cascade.stream(camera)

        def watch() -> None:
            for decision in stream:
                now_s = time.monotonic()
                ages.append((now_s, (now_s - decision.timestamp_s) * 1e3))

        watching = threading.Thread(target=watch, daemon=True)
        began_s, most, offered = time.monotonic(), 0, 0
        for name, content in items(frames):
            queue.add(name, content)
            most, offered = max(most, queue.bytes), offered + len(content)
        added_s = time.monotonic() - began_s
        print(f"{frames} frames queued in {added_s:.0f} s", file=sys.stderr)
        server = ThreadingHTTPServer(("127.0.0.1", port), Target)
        serving = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        watching.start()
        quiet: list[float] = []
        busy: list[float] = []
        sent = 0
        while not queue.counts.sent:  # it tries every half minute by now
            time.sleep(0.05)
        gate.open.clear()
        print(f"the target is back after {time.monotonic() - began_s:.0f} s", file=sys.stderr)
        for turn in range(2 * TURNS):
            draining = turn % 2 == 1
            before = queue.counts.sent
            if draining:
                gate.open.set()
            from_s = time.monotonic() + 0.5  # what was on its way belongs to neither
            time.sleep(seconds)
            taken = [age for at, age in ages if at >= from_s]
            (busy if draining else quiet).extend(taken)
            gate.open.clear()
            sent += queue.counts.sent - before
        gate.open.set()
        stream.close()
        watching.join(10)
    print(f"turns over after {time.monotonic() - began_s:.0f} s", file=sys.stderr)
    # What is left, as after a restart.
    left = DiskQueue(folder / "queue", most_bytes=MOST_BYTES)
    rest = Forwarder(left, receiver_of(address), share=1.0, clock=time.monotonic)
    with rest:
        while left.waiting:
            time.sleep(0.05)
    server.shutdown()
    server.server_close()
    counts = asdict(queue.counts)
    for name in ("sent", "dropped", "aside"):
        counts[name] += getattr(left.counts, name)
    return {
        "counts": counts,
        "offered_bytes": offered,
        "most_bytes": most,
        "added_fps": frames / added_s,
        "drained_fps": sent / (TURNS * seconds),
        "arrived": len({name for name in Target.names if name.endswith(".jpg")}),
        "quiet_ms": quiet,
        "draining_ms": busy,
    }


if __name__ == "__main__":
    sys.exit(main())
