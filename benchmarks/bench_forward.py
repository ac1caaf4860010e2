"""An outage of an hour at 15 frames a second: the queue's bytes, the accounts, the live stream.

    python benchmarks/bench_forward.py [--hours 1] [--pairs 32] [--seconds 4]

The target (a web server) is away, and every frame of an hour goes into the queue: real files of
real bytes, one after the other as quickly as the disk takes them, so the hour passes in a minute or
two; only the clock that names them is turned on by 1/15 s a frame. Then the server is back, and the
queue drains while a camera of the demo is decided at 15 frames a second by the demo's models, in
short turns with the sending held up, in pairs of either order, so that both are timed on the same
machine in the same seconds. Before each pair the queue is filled up again. The ratio of the two p95
has an interval from pairs drawn again, and keeps the limit where its upper end does. What is left
then is sent without a pause, to see that all of it arrives.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
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
SLOWER = 1.1
SETTLE_S = 0.3
"""What was on its way when a turn began belongs to neither."""


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


def items() -> Iterator[tuple[str, bytes]]:
    """Yield names and contents as the sink makes them: 24 pictures of the demo, without end."""
    shown = [encoded(picture, ".jpg") for picture, _ in SimulatedCamera(seed=1).frames(24)]
    start_s = 1_790_000_000.0
    for number in itertools.count():
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
    parser.add_argument("--pairs", type=int, default=32, help="of turns")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        frames = int(asked.hours * 3600 * FPS)
        figures = outage(Path(scratch), frames, asked.pairs, asked.seconds)
    counts, pairs = figures["counts"], figures.pop("pairs_ms")
    quiet, busy = (np.concatenate([pair[draining] for pair in pairs]) for draining in (0, 1))
    ratio, low, high = ratio_of(pairs)
    whole = counts["queued"] == counts["sent"] + counts["dropped"] + counts["aside"]
    arrived = figures["arrived"] == counts["sent"]
    rows = [
        ("frames in the outage", f"{frames:,}", ""),
        ("bytes of them", f"{figures['offered_bytes'] / 1e6:.0f} MB", ""),
        ("frames added between the turns", f"{counts['queued'] - frames:,}", ""),
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
    text = f"{len(quiet)} and {len(busy)} live frames in {len(pairs)} pairs of turns.\n\n"
    text += table(("what", "measured", "target"), rows)
    told = figures | {"ratio": ratio, "ratio_interval": [low, high]}
    told |= {"p95_quiet_ms": float(np.percentile(quiet, 95))}
    told |= {"p95_draining_ms": float(np.percentile(busy, 95))}
    save("bench_forward", title="Frames that wait through an outage", text=text, figures=told)
    good = whole and arrived and figures["most_bytes"] <= MOST_BYTES and high <= SLOWER
    return int(not good)


def ratio_of(pairs: list[list[np.ndarray]]) -> tuple[float, float, float]:
    """Return the ratio of two p95, and its 95 % interval: pairs of turns are drawn again."""
    rng = np.random.default_rng(0)
    everyone = np.arange(len(pairs))
    ratios = []
    for chosen in (everyone, *(rng.choice(everyone, len(pairs)) for _ in range(2000))):
        quiet, busy = (
            np.concatenate([pairs[one][draining] for one in chosen]) for draining in (0, 1)
        )
        ratios.append(float(np.percentile(busy, 95) / np.percentile(quiet, 95)))
    low, high = np.percentile(ratios[1:], (2.5, 97.5))
    return ratios[0], float(low), float(high)


def outage(folder: Path, frames: int, count: int, seconds: float) -> dict[str, Any]:
    """Fill the queue while the target is away, then drain it beside a live camera."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/field"
    gate = Gate(receiver_of(address))
    gate.open.set()
    queue = DiskQueue(folder / "queue", most_bytes=MOST_BYTES)
    ages: list[float] = []
    shown = [picture for picture, _ in SimulatedCamera(seed=0).frames(64)]
    camera = LiveSource(PacedCamera(shown, fps=FPS, frames=10**6), source_id="camera")
    with demo_cascade() as cascade, Forwarder(queue, gate, share=SHARE, clock=gate.clock):
        stream = cascade.stream(camera)

        def watch() -> None:
            for decision in stream:
                ages.append((time.monotonic() - decision.timestamp_s) * 1e3)

        watching = threading.Thread(target=watch, daemon=True)
        began_s, most, offered, more = time.monotonic(), 0, 0, items()
        for name, content in itertools.islice(more, frames):
            queue.add(name, content)
            most, offered = max(most, queue.bytes), offered + len(content)
        added_s = time.monotonic() - began_s
        print(f"{frames} frames queued in {added_s:.0f} s", file=sys.stderr)
        server = ThreadingHTTPServer(("127.0.0.1", port), Target)
        serving = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        watching.start()
        pairs: list[list[np.ndarray]] = []
        while not queue.counts.sent:  # it tries every half minute by now
            time.sleep(0.05)
        gate.open.clear()
        print(f"the target is back after {time.monotonic() - began_s:.0f} s", file=sys.stderr)
        first = sent = queue.counts.sent
        for number in range(count):
            for name, content in itertools.islice(more, queue.counts.sent - sent):
                queue.add(name, content)
                most = max(most, queue.bytes)
            sent = queue.counts.sent
            pair = [np.zeros(0)] * 2
            for draining in (0, 1) if number % 2 else (1, 0):
                if draining:
                    gate.open.set()
                time.sleep(SETTLE_S)
                begin = len(ages)
                time.sleep(seconds)
                pair[draining] = np.array(ages[begin:])
                gate.open.clear()
            pairs.append(pair)
        sent = queue.counts.sent - first
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
        "drained_fps": sent / (count * (seconds + SETTLE_S)),
        "arrived": len({name for name in Target.names if name.endswith(".jpg")}),
        "pairs_ms": pairs,
    }


if __name__ == "__main__":
    sys.exit(main())
