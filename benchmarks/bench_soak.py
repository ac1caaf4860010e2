"""A long run: memory, threads and descriptors stay as they are.

    python benchmarks/bench_soak.py [--frames 216000]

216,000 frames are two hours of a camera. They come at full speed through the demo's models, from an
iterable and from a live camera that is lost every 100 frames, in turns of "wait" and "revise", a
stream made anew every 20,000 frames. The slope of the memory in use is fitted to the last four
fifths.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from cameras import PacedCamera, descriptors, rss_bytes
from imagenet import save, table

from tinysaver_edge import Cascade
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.demo.camera import SimulatedCamera
from tinysaver_edge.demo.show import demo_model_paths
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.engines.registry import create_engine
from tinysaver_edge.models.description.description import find_description
from tinysaver_edge.score import Margin
from tinysaver_edge.stream.sources.live import LiveOptions, LiveSource
from tinysaver_edge.stream.telemetry.metrics import Counter, Tally

SLOPE_MB = 1.0
STREAM = 20_000
LIVE_FPS = 200.0
LOST_EVERY = 100


@dataclass(frozen=True)
class Soak:
    """What a long run left behind.

    Attributes:
        frames: decided.
        seconds: it took.
        reconnected: times the camera came back.
        slope_mb: growth of the memory in use, in MB a 100,000 frames.
        threads: at the beginning and at the end.
        descriptors: at the beginning and at the end.
    """

    frames: int
    seconds: float
    reconnected: int
    slope_mb: float
    threads: tuple[int, int]
    descriptors: tuple[int, int]


def main() -> int:
    """Print the table; exit 1 when anything has grown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=216_000)
    asked = parser.parse_args()
    done = soak(demo_cascade(), frames=asked.frames)
    rows = [
        ("memory, MB a 100,000 frames", f"{done.slope_mb:+.2f}", f"≤ {SLOPE_MB:g}"),
        ("threads, before and after", "{} {}".format(*done.threads), "the same"),
        ("descriptors, before and after", "{} {}".format(*done.descriptors), "the same"),
        ("camera lost and back, times", str(done.reconnected), ""),
    ]
    text = f"{done.frames} frames in {done.seconds:.0f} s.\n\n" + table(
        ("what", "measured", "target"), rows
    )
    save("bench_soak", title="A long run", text=text, figures=asdict(done))
    return int(not kept(done))


def kept(done: Soak) -> bool:
    """Whether nothing has grown."""
    return (
        done.slope_mb <= SLOPE_MB
        and done.threads[0] == done.threads[1]
        and done.descriptors[0] == done.descriptors[1]
    )


def demo_cascade() -> Cascade:
    """Load the demo's smallest and largest model."""
    paths = sorted(demo_model_paths(), key=lambda path: path.stat().st_size)

    def stage(path: Path, policy: StagePolicy) -> Stage:
        described = find_description(path)
        engine = create_engine(
            "onnxruntime",
            path,
            preprocess=described.preprocess,
            output=described.output,
            options=EngineOptions(threads=1),
        )
        return Stage(engine, preprocess=described.preprocess, policy=policy)

    return Cascade(
        [
            stage(paths[0], StagePolicy("saver", score=Margin(), threshold=0.5)),
            stage(paths[-1], StagePolicy("large")),
        ]
    )


def soak(cascade: Cascade, *, frames: int, stream: int = STREAM) -> Soak:
    """Decide that many frames, and watch what the process holds."""
    pictures = [picture for picture, _ in SimulatedCamera(seed=0).frames(64)]
    tally = Tally()
    decided, memory = 0, []
    started = time.monotonic()
    threads = files = 0
    with cascade:
        for turn in itertools.count():
            part = min(stream, frames - decided)
            if turn == 1:  # what is loaded once is loaded
                threads, files = threading.active_count(), descriptors()
            if not part:
                break
            given = itertools.islice(itertools.cycle(pictures), part)
            camera = LiveSource(
                PacedCamera(pictures, fps=LIVE_FPS, frames=part, lost_every=LOST_EVERY),
                source_id="camera",
                options=LiveOptions(shortest_s=0.001),
            )
            running = cascade.stream(
                given, camera, escalation=("wait", "revise")[turn % 2], metrics=tally
            )
            for decision in running:
                if decision.revision:
                    continue
                decided += 1
                if decided % 500 == 0:
                    memory.append((decided, rss_bytes()))
                if decided % stream == 0 or decided == frames:
                    break
        after = threading.active_count(), descriptors()
    counted = np.array(memory[len(memory) // 5 :], float)
    slope = float(np.polyfit(counted[:, 0], counted[:, 1], 1)[0])
    return Soak(
        frames=decided,
        seconds=time.monotonic() - started,
        reconnected=tally.total(Counter.RECONNECTED),
        slope_mb=slope * 1e5 / 1e6,
        threads=(threads, after[0]),
        descriptors=(files, after[1]),
    )


if __name__ == "__main__":
    sys.exit(main())
