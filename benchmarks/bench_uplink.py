"""What sending JPEG in place of pixels saves of an uplink, and the certified drop it costs.

    python benchmarks/bench_uplink.py [WORK_DIR]

The CIFAR-10 recipe, calibrated through each payload as `calibrate --large-jpeg` does it, half of
the 10,000 images held out. On those: the bytes of each escalation, and the drop of the cascade,
once from the large model on the same payload, which is what its certificate bounds, and once from
the large model on pixels, which is what a user gives up. The bounds hold with 90 % confidence, by
the certificate's own test. Then 300 ImageNet photos at 224 x 224 through MobileNetV2 (int8) alone.

The first run measures resnet56 once a payload (minutes); pass WORK_DIR to keep prepared models and
the savers' records.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from imagenet import DATA, called_with, save, table

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.calibrate import ModelFile, calibrate
from tinysaver_edge.calibrate.measured.prepare import prepare
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.problem import split_holdout
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.certificate.certificate import WalkStep, least_certifiable_points
from tinysaver_edge.certificate.p_values import EvidenceKind
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.source import DataSource, class_indices
from tinysaver_edge.deciding.policy import replay
from tinysaver_edge.models.description.description import description_from
from tinysaver_edge.preprocess import Batch, Preprocess, Preprocessor
from tinysaver_edge.records.measure import measure, record_name
from tinysaver_edge.records.records import load_record

RISK, HOLDOUT, SEED = 0.1, 0.5, 0
PIXELS = "uint8"
LARGE = "resnet56"


@dataclass(frozen=True, slots=True)
class Halved(Jpeg):
    """What OpenCV writes unless it is told otherwise: colours of half the width and height."""

    subsampling: str = "4:2:0"

    def encode(self, batch: Batch) -> np.ndarray:
        """Return a file a frame."""
        files = np.empty(len(batch), object)
        for index, picture in enumerate(batch):
            setting = [cv2.IMWRITE_JPEG_QUALITY, self.quality]
            files[index] = cv2.imencode(".jpg", picture, setting)[1].tobytes()
        return files


PAYLOADS: MappingProxyType[str, Jpeg | None] = MappingProxyType(
    {PIXELS: None, "JPEG 95": Jpeg(95), "JPEG 85": Jpeg(85), "JPEG 75": Jpeg(75),
     "JPEG 95, 4:2:0": Halved(95)}
)  # fmt: skip


def sent_bytes(
    codec: Jpeg | None, preprocess: Preprocess, data: DataSource, index: Iterable[int]
) -> np.ndarray:
    """Return the size of what is sent of each of some images."""
    preprocessor = Preprocessor(preprocess)
    sizes = []
    for one in index:
        batch = preprocessor(data.frame(int(one)))
        sizes.append(batch.nbytes if codec is None else len(codec.encode(batch)[0]))
    return np.array(sizes)


def drop_points(reference: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Return the drop from a reference, and what it is at most; images that served no choice."""
    step = WalkStep(0.0, 0, int((reference & ~right).sum()), int((~reference & right).sum()))
    bound = least_certifiable_points(
        step, evidence=EvidenceKind.LABELS, samples=len(right), risk=RISK
    )
    return {"drop_points": 100 * float(reference.mean() - right.mean()), "at_most_points": bound}


def cascades(work: Path) -> tuple[list[tuple[object, ...]], dict[str, Any]]:
    """Calibrate the recipe through each payload; return rows and figures of the held-out half."""
    settings = load_recipe("cifar10", root=DATA / "cifar10")
    asked = replace(settings, holdout=HOLDOUT, seed=SEED, work_dir=work, no_timing=True)
    plan = plan_of(asked)
    rows: list[tuple[object, ...]] = []
    figures: dict[str, Any] = {}
    on_pixels = np.empty(0, bool)
    with open_data(plan.input.data) as data:
        labels = class_indices(data.samples, labels=None, classes=10, path=data.path)
        _, held = split_holdout(len(data), fraction=HOLDOUT, seed=SEED)
        for name, codec in PAYLOADS.items():
            given = replace(plan.input, large_codec=codec, isolate=False)
            policy = calibrate(replace(plan, input=given)).policy
            names = (policy.stages[0].model, record_name(LARGE, codec))
            outputs = [load_record(work, one).outputs.subset(held) for one in names]
            alone = outputs[-1].predictions == labels[held]
            on_pixels = alone if codec is None else on_pixels
            replayed = replay(policy, outputs)
            right, escalated = replayed.predictions == labels[held], replayed.stage == 1
            prepared = plan.input.large.description.preprocess.in_graph()
            sizes = sent_bytes(codec, prepared, data, held)
            found = {
                "saver": policy.stages[0].model,
                "large_accuracy": float(alone.mean()),
                # Of every image where none escalates, so that payloads can still be compared.
                "bytes_an_escalation": float(sizes[escalated if escalated.any() else ...].mean()),
                "escalation_rate": float(escalated.mean()),
                "bytes_a_frame": float((sizes * escalated).mean()),
                "from_the_same_payload": drop_points(alone, right),
                "from_pixels": drop_points(on_pixels, right),
            }
            figures[name] = found
            rows.append(_row(name, found))
    return rows, {"held_out": len(held), **figures}


def _row(name: str, found: dict[str, Any]) -> tuple[object, ...]:
    return (
        name,
        f"{100 * found['large_accuracy']:.2f} %",
        f"{found['bytes_an_escalation']:,.0f}",
        f"{100 * found['escalation_rate']:.1f} %, after {found['saver']}",
        f"{found['bytes_a_frame']:,.0f}",
        *(
            f"{found[key]['drop_points']:+.2f}, at most {found[key]['at_most_points']:.2f}"
            for key in ("from_the_same_payload", "from_pixels")
        ),
    )


def photos(work: Path) -> tuple[list[tuple[object, ...]], dict[str, Any]]:
    """Show the photos to MobileNetV2 through each payload; return rows and figures."""
    large = _mobilenet(work)
    rows: list[tuple[object, ...]] = []
    figures: dict[str, Any] = {}
    on_pixels = np.empty(0, bool)
    with open_data(DATA / "imagenet/labels.csv") as data:
        labels = class_indices(data.samples, labels=None, classes=1000, path=data.path)
        for name, codec in PAYLOADS.items():
            record = measure(replace(large, codec=codec), data, work, fingerprint="photos")
            right = record.outputs.predictions == labels
            on_pixels = right if codec is None else on_pixels
            found = {
                "accuracy": float(right.mean()),
                "bytes_a_frame": float(
                    sent_bytes(codec, large.preprocess, data, range(len(data))).mean()
                ),
                **drop_points(on_pixels, right),
            }
            figures[name] = found
            drop = f"{found['drop_points']:+.2f}, at most {found['at_most_points']:.2f}"
            accuracy = f"{100 * found['accuracy']:.2f} %"
            rows.append((name, accuracy, f"{found['bytes_a_frame']:,.0f}", drop))
    return rows, {"images": len(labels), **figures}


def _mobilenet(work: Path) -> Artefact:
    path = DATA / "imagenet/mobilenet_v2_1.0_224_int8.tflite"
    said = {
        "name": "mobilenet_v2",
        "input": {"layout": "NHWC", "dtype": "uint8", "color": "RGB", "size": 224, "scale": "raw"},
        "output": {"kind": "probabilities", "class_offset": 1},
    }
    described = description_from(said, path, folder=path.parent, source=path.name)
    return prepare(ModelFile(path, described), work / "models")


def main() -> int:
    words = called_with(__doc__, most=1)
    if not Path(DATA / "cifar10/test.zip").is_file():
        print(f"no images in {DATA}: set TINYSAVER_DATA", file=sys.stderr)
        return 2
    work = Path(*words or [tempfile.mkdtemp(prefix="uplink-")])
    found, cifar = cascades(work)
    shown, imagenet = photos(work)
    drops = ("drop from the large model on the same", "drop from the large model on pixels")
    head = ("sent", "large alone", "bytes an escalation", "escalated", "bytes a frame", *drops)
    text = (
        f"The CIFAR-10 recipe (at most 0.5 points, 90 %), calibrated through each payload; "
        f"{cifar['held_out']:,} images held out, drops in points:\n\n{table(head, found)}\n\n"
        f"MobileNetV2 int8 alone on {imagenet['images']} ImageNet photos at 224 x 224:\n\n"
        f"{table(('sent', 'accuracy', 'bytes a frame', 'drop, points'), shown)}"
    )
    save(
        "bench_uplink",
        title="What JPEG saves of an uplink, and what it costs",
        text=text,
        figures={"cifar10": cifar, "imagenet_photos": imagenet},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
