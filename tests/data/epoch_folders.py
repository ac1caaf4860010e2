"""Epochs on disk, for tests: colours that stand for classes, under a camera with some noise."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from tests.colours import NAMES, colour_picture


def epoch_folders(
    folder: Path, *, count: int, frames: int = 8, seed: int = 0, length_s: float = 4.0
) -> Path:
    """Write epochs of a resting camera, a third of them with a cut, and their table of spans.

    Returns:
        The table, ``NAME.csv`` beside the folder.
    """
    rng = np.random.default_rng(seed)
    rows = ["epoch,from_s,to_s,class"]
    for number in range(count):
        name, cut = f"e{number:03d}", int(rng.integers(2, frames)) if rng.random() < 0.3 else frames
        labels = rng.integers(len(NAMES), size=2).tolist()
        scenes = [colour_picture(label, int(rng.integers(1 << 30))) for label in labels]
        place = folder / name
        place.mkdir(parents=True)
        seconds = [round(place * length_s / frames + 0.05, 6) for place in range(frames)]
        for frame in range(frames):
            scene = scenes[frame >= cut].astype(np.float64)
            shown = scene + rng.normal(0, 3, scene.shape) + rng.normal(0, 2)
            image = np.clip(np.rint(shown), 0, 255).astype(np.uint8)
            assert cv2.imwrite(str(place / f"{frame:05d}.png"), image)
        about = {
            "source": "camera1",
            "start": None,
            "moment_s": number * 60.0,
            "length_s": length_s,
            "files": [f"{frame:05d}.png" for frame in range(frames)],
            "seconds": seconds,
        }
        (place / "epoch.json").write_text(json.dumps(about))
        ends = [0.0, length_s] if cut == frames else [0.0, seconds[cut], length_s]
        for label, begin, end in zip(labels, ends, ends[1:], strict=False):
            rows.append(f"{name},{begin},{end},{NAMES[label]}")
    table = folder.with_name(f"{folder.name}.csv")
    table.write_text("\n".join(rows) + "\n")
    return table
