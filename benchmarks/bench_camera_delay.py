"""How old a network camera's frames are when they come, by the threads of their decoder.

    python benchmarks/bench_camera_delay.py [--frames 100] [--rounds 3]

A real RTSP server on this machine (see CONTRIBUTING.md) writes the time into each of its 25 frames
a second; the stream's source reads them, with one decoder thread as by default, with more, and as
OpenCV does by itself. Milliseconds, medians of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cv2
from imagenet import save, table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from tests.stream.sources.test_rtsp import Server, missing, shown_ms  # noqa: E402
from tinysaver_edge.stream.sources.opening import open_source  # noqa: E402

WARM_UP = 20
"""Frames in which a decoder fills."""


def source(address: str, frames: int) -> list[float]:
    """Return the age of each frame of a source."""
    ages = []
    with open_source(address) as opened:
        for frame in islice(opened.frames(), WARM_UP + frames):
            ages.append(time.time() * 1e3 - float(shown_ms(frame.image) or 0))
    return ages[WARM_UP:]


def bare(address: str, frames: int) -> list[float]:
    """Return the age of each frame as a plain OpenCV loop reads them."""
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG)
    ages = []
    for _ in range(WARM_UP + frames):
        image = capture.read()[1]
        ages.append(time.time() * 1e3 - float(shown_ms(image) or 0))
    capture.release()
    return ages[WARM_UP:]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if (reason := missing()) is not None:
        print(reason, file=sys.stderr)
        return 2
    ways: dict[str, Callable[[str, int], list[float]]] = {
        "1 thread (the default)": source,
        "2 threads": lambda address, frames: source(f"{address}#threads=2", frames),
        "4 threads": lambda address, frames: source(f"{address}#threads=4", frames),
        "8 threads": lambda address, frames: source(f"{address}#threads=8", frames),
        f"OpenCV's own choice, {os.cpu_count()} cores": bare,
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    server = Server()
    server.start()
    try:
        for _ in range(asked.rounds):
            for way, ages_of in ways.items():
                found[way].append(statistics.median(ages_of(server.address, asked.frames)))
    finally:
        server.stop()
    rows = [
        (way, f"{statistics.median(ages):.0f}", f"{min(ages):.0f} to {max(ages):.0f}")
        for way, ages in found.items()
    ]
    text = "At 25 frames a second.\n\n" + table(("decoder", "age, ms", "of the rounds"), rows)
    save("bench_camera_delay", title="The age of a camera's frames", text=text, figures=found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
