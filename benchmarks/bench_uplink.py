"""What sending JPEG in place of pixels saves of an uplink, and what it costs in accuracy.

    python benchmarks/bench_uplink.py [--images 3000]

CIFAR-10's test images through resnet56 at 32 x 32, and 300 ImageNet photos through MobileNetV2
(int8) at 224 x 224: each frame resized as a device would, sent as uint8 or through the very codec
of `RemoteEngine`, and decoded as hosts do. The drop is that of the large model alone, in points,
against pixels; the bound holds with 90 % confidence (Clopper-Pearson on answers that were right on
pixels and are wrong on JPEG: it counts no gains, so it is on the safe side).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from imagenet import DATA, save, table
from scipy.stats import beta

from tinysaver_edge.data import open_data
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.engines.registry import create_engine
from tinysaver_edge.engines.remote.payload import to_tensor
from tinysaver_edge.output_format import OutputFormat, OutputKind
from tinysaver_edge.preprocess import (
    ColorOrder,
    InputFormat,
    Layout,
    Preprocess,
    Preprocessor,
    Resize,
)

QUALITIES = (95, 85, 75)
HALVED = "4:2:0"
BLOCK = 250
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RISK = 0.1

CASES: dict[str, dict[str, Any]] = {
    "CIFAR-10, resnet56, 32 x 32": {
        "data": "cifar10/test.zip",
        "model": "cifar10/resnet56.onnx",
        "engine": "onnxruntime",
        "preprocess": Preprocess(
            Resize(32, 32),
            InputFormat(
                Layout.NCHW,
                "float32",
                ColorOrder.RGB,
                tuple(1 / 255 / std for std in STD),
                tuple(-mean / std for mean, std in zip(MEAN, STD, strict=True)),
            ),
        ),
        "output": OutputFormat(),
    },
    "ImageNet photos, MobileNetV2 int8, 224 x 224": {
        "data": "imagenet/photos",
        "labels": "imagenet/labels.csv",
        "model": "imagenet/mobilenet_v2_1.0_224_int8.tflite",
        "engine": "openvino",
        "preprocess": Preprocess(
            Resize(224, 224), InputFormat(Layout.NHWC, "uint8", ColorOrder.RGB)
        ),
        "output": OutputFormat(OutputKind.PROBABILITIES, class_offset=1),
    },
}


def through_jpeg(batch: np.ndarray, quality: int, *, halved: bool) -> tuple[np.ndarray, int]:
    """Encode and decode uint8 BGR frames; return them and the bytes that were sent."""
    if halved:  # what OpenCV writes unless it is told otherwise
        setting = [cv2.IMWRITE_JPEG_QUALITY, quality]
        files = [cv2.imencode(".jpg", picture, setting)[1].tobytes() for picture in batch]
    else:
        files = list(to_tensor(batch, quality))
    sent = sum(map(len, files))
    flag = cv2.IMREAD_COLOR
    return np.stack([cv2.imdecode(np.frombuffer(one, np.uint8), flag) for one in files]), sent


def class_numbers(labels: list[str]) -> np.ndarray:
    """Return classes as numbers: those that there are, or names in alphabetical order."""
    if all(label.isdigit() for label in labels):
        return np.array([int(label) for label in labels])
    names = sorted(set(labels))
    return np.array([names.index(label) for label in labels])


def measure(case: dict[str, Any], images: int) -> tuple[int, dict[str, dict[str, float]]]:
    """Return how many images, and for each payload its bytes a frame and how it answers."""
    preprocess: Preprocess = case["preprocess"]
    resize = Preprocessor(Preprocess(preprocess.resize))
    convert = Preprocessor(preprocess)
    ways = ("uint8", *(f"JPEG {quality}" for quality in QUALITIES), f"JPEG 95 {HALVED}")
    right: dict[str, list[np.ndarray]] = {way: [] for way in ways}
    sent = dict.fromkeys(ways, 0)
    source = DATA / case.get("labels", case["data"])
    with (
        open_data(source) as data,
        create_engine(
            case["engine"],
            DATA / case["model"],
            preprocess=preprocess,
            output=case["output"],
            options=EngineOptions(),
        ) as engine,
    ):
        chosen = np.random.default_rng(0).permutation(len(data))[:images]
        labels = class_numbers([sample.label for sample in data.samples])
        for start in range(0, len(chosen), BLOCK):
            part = chosen[start : start + BLOCK]
            pixels = resize.batch([data.frame(int(index)) for index in part])
            for way in ways:
                if way == "uint8":
                    frames, size = pixels, pixels.nbytes
                else:
                    frames, size = through_jpeg(
                        pixels, int(way.split()[1]), halved=way.endswith(HALVED)
                    )
                answers = engine.infer(convert.batch(list(frames))).argmax(axis=1)
                right[way].append(answers == labels[part])
                sent[way] += size
    found = {}
    count = len(chosen)
    reference = np.concatenate(right["uint8"])
    for way in ways:
        answers = np.concatenate(right[way])
        lost = int((reference & ~answers).sum())
        bound = float(beta.ppf(1 - RISK, lost + 1, count - lost)) if way != "uint8" else 0.0
        found[way] = {
            "bytes_a_frame": sent[way] / count,
            "accuracy": float(answers.mean()),
            "drop_points": 100 * float(reference.mean() - answers.mean()),
            "drop_bound_points": 100 * bound,
        }
    return count, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3000)
    options = parser.parse_args()
    if not Path(DATA / "cifar10/test.zip").is_file():
        print(f"no images in {DATA}: set TINYSAVER_DATA", file=sys.stderr)
        return 2
    figures: dict[str, Any] = {}
    rows = []
    for name, case in CASES.items():
        count, found = measure(case, options.images)
        figures[name] = {"images": count, **found}
        for way, one in found.items():
            rows.append(
                (
                    f"{name} ({count})",
                    way,
                    f"{one['bytes_a_frame']:,.0f}",
                    f"{100 * one['accuracy']:.2f} %",
                    f"{one['drop_points']:+.2f}",
                    f"{one['drop_bound_points']:.2f}" if way != "uint8" else "",
                )
            )
    head = ("images", "sent", "bytes a frame", "accuracy", "drop, points", "drop at most")
    save(
        "bench_uplink",
        title="What JPEG saves of an uplink, and what it costs",
        text=table(head, rows),
        figures=figures,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
