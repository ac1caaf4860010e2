"""The antialiased resize: its time on a 1080p frame, and how far answers move from INTER_AREA's.

    python benchmarks/bench_resize.py

Times are on one thread, taken in turns. The answers are those of mobilenet_v1_0.25 (OpenVINO) on
`video/objects-1080p.mp4` of the data folder (`../shared/data`, or $TINYSAVER_DATA).
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from imagenet import called_with

from tinysaver_edge.preprocess import Frame, Preprocess, Preprocessor, Resize

DATA = Path(os.environ.get("TINYSAVER_DATA", Path(__file__).parents[2] / "shared" / "data"))
SIDE = 224
ROUNDS = 300
BLOCK = 30
EVERY = 4


def main() -> int:
    """Print both tables; exit 1 when a target is missed."""
    called_with(__doc__)
    cv2.setNumThreads(1)
    video = DATA / "video" / "objects-1080p.mp4"
    if not video.is_file():
        print(f"no video at {video}: set TINYSAVER_DATA", file=sys.stderr)
        return 2
    ways: dict[str, Callable[[Frame], Frame]] = {
        "INTER_AREA": lambda frame: cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA),
        "halvings": halvings(antialias=True),
        "bilinear": halvings(antialias=False),
    }
    spent = times(next(frames(video)), ways)
    moved = changes(video, ways)
    print(f"1080p to {SIDE}, one thread, median of {ROUNDS}; every {EVERY}th frame of {video.name}")
    print("way         ms      mean change of top-1 probability against INTER_AREA")
    for name in ways:
        print(f"{name:10} {spent[name]:5.2f}   {moved[name]:.4f}")
    ratio = moved["halvings"] / moved["bilinear"]
    print(f"halvings move answers {ratio:.2f} × as far as bilinear (target ≤ 0.6)")
    quicker = spent["halvings"] / spent["INTER_AREA"]
    print(f"halvings take {quicker:.2f} × as long as INTER_AREA (target ≤ 0.8 ms / 4.4 ms = 0.18)")
    return int(ratio > 0.6 or quicker > 0.18)


def frames(video: Path) -> Iterator[Frame]:
    """Yield every few frames of the video."""
    capture = cv2.VideoCapture(str(video))
    number = 0
    while True:
        good, frame = capture.read()
        if not good:
            break
        if number % EVERY == 0:
            yield frame
        number += 1
    capture.release()


def times(frame: Frame, ways: dict[str, Callable[[Frame], Frame]]) -> dict[str, float]:
    """Return each way's median time in milliseconds, in blocks taken in turns."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS // BLOCK):
        for name, way in ways.items():
            for _ in range(BLOCK):
                start = time.perf_counter()
                way(frame)
                spent[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in spent.items()}


def halvings(*, antialias: bool) -> Callable[[Frame], Frame]:
    """Return the package's own resize, into a picture that is there already, as a stage does it."""
    preprocessor = Preprocessor(Preprocess(Resize(SIDE, SIDE, antialias=antialias)))
    picture = np.empty((SIDE, SIDE, 3), np.uint8)

    def resize(frame: Frame) -> Frame:
        preprocessor.into(frame, picture)
        return picture

    return resize


def changes(video: Path, ways: dict[str, Callable[[Frame], Frame]]) -> dict[str, float]:
    """Return how far each way moves the probability of INTER_AREA's top class, on average."""
    answer = mobilenet()
    moved: dict[str, list[float]] = {name: [] for name in ways}
    for frame in frames(video):
        probabilities = {name: answer(way(frame)) for name, way in ways.items()}
        reference = float(probabilities["INTER_AREA"].max())
        for name, values in probabilities.items():
            moved[name].append(abs(float(values.max()) - reference))
    return {name: statistics.fmean(values) for name, values in moved.items()}


def mobilenet() -> Callable[[Frame], Any]:
    """Return a function from a 224×224 BGR picture to probabilities."""
    import openvino as ov

    model = DATA / "imagenet" / "mobilenet_v1_0.25_224.tflite"
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()

    def answer(picture: Frame) -> Any:  # noqa: ANN401
        rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.float32)
        return request.infer({0: rgb[None] / 127.5 - 1})[0][0].copy()

    return answer


if __name__ == "__main__":
    sys.exit(main())
