"""A small task that two real models solve, one better than the other: tell a picture's colour.

Every class has a colour, every picture is its class's colour moved at random, some a little, some
far. A model compares a picture's mean with the colours it knows; the large one knows them exactly
and works more, the others roughly. No training, and real answers with easy and hard pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from onnx import helper

from tests.model_zoo import save
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import ColorOrder, InputFormat, Layout, Preprocess, Resize

NAMES = ("amber", "blue", "coral", "denim", "green", "lilac")
COLOURS = np.array(
    [[1.0, 0.7, 0.0], [0.1, 0.2, 0.9], [1.0, 0.45, 0.3], [0.1, 0.4, 0.7], [0.1, 0.6, 0.2],
     [0.7, 0.5, 0.8]]
)  # fmt: skip
SIZE = 16

PREPROCESS = Preprocess(
    Resize(SIZE, SIZE), InputFormat(Layout.NCHW, "float32", ColorOrder.RGB, (1 / 255,), (0.0,))
)
OUTPUT = OutputFormat()

DESCRIPTION = f"""
input = {{ layout = "NCHW", dtype = "float32", color = "RGB", size = {SIZE}, scale = "unit" }}
output = {{ kind = "logits" }}
"""


@dataclass(frozen=True)
class Kind:
    """One of the models.

    Attributes:
        blur: how far the colours it knows are from the real ones.
        layers: 1x1 convolutions that change nothing but its MACs.
        classes: how many colours it knows.
        size: side of the picture it takes.
        order: in which order it answers with the colours.
        nan_below: answers NaN to pictures darker than this, 0..1.
        nan_above: answers NaN to pictures brighter than this, 0..1.
        any_size: whether its file leaves height and width open.
    """

    blur: float = 0.0
    layers: int = 0
    classes: int = len(NAMES)
    size: int = SIZE
    order: tuple[int, ...] = tuple(range(len(NAMES)))
    nan_below: float | None = None
    nan_above: float | None = None
    any_size: bool = False


LARGE = Kind(layers=10)
SAVER = Kind(blur=0.18)
MIDDLE = Kind(blur=0.16, layers=2)


def macs(kind: Kind) -> int:
    """Multiply-accumulates of one picture: 3 x 3 a pixel and layer, and the last matrix."""
    return 9 * kind.layers * kind.size**2 + 3 * kind.classes


def colour_model(path: Path, kind: Kind, *, seed: int = 0) -> Path:
    """Write a model as .onnx of dynamic batch size."""
    rng = np.random.default_rng(seed)
    known = COLOURS[: kind.classes] + rng.normal(0, kind.blur, (kind.classes, 3))
    known = known[list(kind.order[: kind.classes])]
    weights = {
        "same": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
        "w": (60 * known.T).astype(np.float32),
        "b": (-30 * (known**2).sum(axis=1)).astype(np.float32),
    }
    nodes, tensor = [], "image"
    for layer in range(kind.layers):
        nodes.append(helper.make_node("Conv", [tensor, "same"], [f"layer{layer}"]))
        tensor = f"layer{layer}"
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("Gemm", ["features", "w", "b"], ["scores"]),
    ]
    answer = "scores"
    if kind.nan_below is not None or kind.nan_above is not None:
        above = kind.nan_above is not None
        bar = kind.nan_above if above else kind.nan_below
        weights["third"] = np.full((3, 1), 1 / 3, np.float32)
        weights["bar"] = np.array([bar], np.float32)
        nodes += [
            helper.make_node("MatMul", ["features", "third"], ["light"]),
            helper.make_node("Sub", ["bar", "light"] if above else ["light", "bar"], ["over"]),
            helper.make_node("Sqrt", ["over"], ["root"]),
            helper.make_node("Mul", ["root", "scores"], ["scaled"]),
        ]
        answer = "scaled"
    nodes.append(helper.make_node("Identity", [answer], ["answer"]))
    save(
        path,
        nodes,
        ("image", "float32", ["n", 3, *(["h", "w"] if kind.any_size else [kind.size] * 2)]),
        [("answer", "float32", ["n", kind.classes])],
        weights,
    )
    return path


def colour_picture(label: int, seed: int, *, size: int = SIZE) -> np.ndarray:
    """A BGR picture of a class's colour, moved by a random amount, with grain."""
    rng = np.random.default_rng(seed)
    moved = COLOURS[label] + rng.normal(0, 0.11 * rng.random(), 3)
    picture = moved + rng.normal(0, 0.05, (size, size, 3))
    rgb: np.ndarray = np.clip(255 * picture, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(rgb[:, :, ::-1])


def colour_folders(folder: Path, *, each: int, seed: int = 0, size: int = SIZE) -> Path:
    """Write a folder a class with `each` pictures in it."""
    for label, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            number = (seed * len(NAMES) + label) * 10_000 + index
            good, data = cv2.imencode(".png", colour_picture(label, number, size=size))
            assert good
            (folder / name / f"{index:04d}.png").write_bytes(data.tobytes())
    return folder
