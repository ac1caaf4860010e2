"""Models for the benchmarks on a GPU: large ones of real size, random weights; a small saver."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from networks import mobilenet_v3_small_050

from tinysaver_edge import Cascade
from tinysaver_edge._support.files import sha256_of
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bundle.bundle import file_entry, write_bundle
from tinysaver_edge.bundle.manifest import FiguresEntry, Manifest, ModelEntry, Named, StageEntry
from tinysaver_edge.calibrate.measured.prepare import prepare
from tinysaver_edge.calibrate.plan import ModelFile
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.engines.base import EngineOptions, Precision
from tinysaver_edge.engines.timm_file import Architecture, read_architecture, write_timm_file
from tinysaver_edge.hardware.energy import Energy, EnergyMeter, Metering
from tinysaver_edge.models.compare.compare import draw_pictures
from tinysaver_edge.models.description.description import description_from
from tinysaver_edge.models.export.timm_model import TimmSource, load_timm
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import DEVICE_FORMAT, Frame, Preprocess, Resize
from tinysaver_edge.score import Margin

SAVER = "mobilenetv3_small_050"
SAVER_THREADS = 2
CLASSES = 1000
FRAMES = 160
"""A tenth of it is a whole number of frames, and it is five whole batches."""

DESCRIPTION = {
    "input": {
        "layout": "NCHW",
        "dtype": "float32",
        "color": "RGB",
        "size": [224, 224],
        "scale": "imagenet",
    },
    "output": {"kind": "logits"},
}


def frames_of(count: int = FRAMES, *, seed: int = 0) -> list[Frame]:
    """Draw frames of 720p, each its own."""
    rng = np.random.default_rng(seed)
    drawn = draw_pictures(count=8, seed=seed).frames
    large = [cv2.resize(one, (1280, 1280)) for one in drawn]
    frames = []
    for number in range(count):
        top = int(rng.integers(0, 1280 - 720))
        moved = np.roll(large[number % len(large)], int(rng.integers(0, 1280)), axis=1)
        light = float(rng.uniform(0.6, 1.2))
        frames.append(cv2.convertScaleAbs(moved[top : top + 720], alpha=light))
    return frames


def large_model(folder: Path, name: str, *, device: str, size: int | None = None) -> Artefact:
    """Write one of timm's models with random weights, or take the one that is there already.

    Its last layer is scaled so that logits spread by about 1, as trained ones do at the least.
    """
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        import torch

        model = load_timm(TimmSource(name, random_seed=0, image_size=size))
        resize, form = model.preprocess.resize, model.preprocess.format
        module = model.module.to(device)
        picture = torch.rand((4, 3, resize.height, resize.width), device=device) * 4 - 2
        with torch.inference_mode():
            spread = float(module(picture).std(dim=0).mean())
        with torch.no_grad():
            module.get_classifier().weight.mul_(1 / spread)
        architecture = Architecture(
            name, model.num_classes, resize.height, resize.width,
            tuple(form.multiply), tuple(form.add),
        )  # fmt: skip
        write_timm_file(path, module.cpu(), architecture, {})
    return artefact_of(path, name)


def artefact_of(path: Path, name: str) -> Artefact:
    """Return a file of weights as an artefact, its hash left out: 2.6 GB take seconds."""
    found = read_architecture(path)
    return Artefact(
        name=name,
        files=(path,),
        sha256="",
        source_sha256="",
        preprocess=Preprocess(Resize(found.height, found.width), DEVICE_FORMAT),
        output=OutputFormat(),
        engine="torch",
        options=EngineOptions(),
        macs=None,
        parameters=None,
        classes=found.num_classes,
        labels=None,
    )


def on(artefact: Artefact, device: str, precision: Precision, *, graphs: bool = True) -> Artefact:
    """Return a model as it is to be run there."""
    options = replace(artefact.options, device=device, precision=precision, graphs=graphs)
    return replace(artefact, options=options)


def saver_model(folder: Path) -> Artefact:
    """Build the saver and prepare it as a calibration does, for ONNX Runtime on the processor."""
    path = folder / f"{SAVER}.onnx"
    if not path.is_file():
        mobilenet_v3_small_050(path)
    described = description_from(DESCRIPTION, path, folder=folder, source="benchmark")
    made = prepare(ModelFile(path, described, engine="onnxruntime"), folder / "saver")
    return made.with_threads(SAVER_THREADS)


def large_stage(artefact: Artefact) -> Stage:
    """Open the large model, and run it once."""
    stage = Stage.opened(artefact, StagePolicy(artefact.name))
    stage.warm_up()
    return stage


def saver_stage(artefact: Artefact, threshold: float = np.inf) -> Stage:
    """Open the saver, and run it once."""
    stage = Stage.opened(artefact, StagePolicy(SAVER, None, Margin(), threshold))
    stage.warm_up()
    return stage


def thresholds(saver: Stage, frames: Sequence[Frame], rates: Sequence[float]) -> dict[float, float]:
    """Return the margins below which exactly those shares of the frames lie."""
    with_all = saver.with_policy(StagePolicy(SAVER, None, Margin(), -1.0))
    cascade = Cascade([with_all, with_all])
    scores = sorted(float(cascade.decide(frame).score) for frame in frames)
    return {rate: scores[round(rate * len(scores))] for rate in rates}


def bundle_of(target: Path, saver: Artefact, large: Artefact, *, threshold: float) -> Path:
    """Write both models as a bundle without golden samples or certificate."""
    entries, files = [], {}
    for one in (saver, large):
        place = f"models/{one.files[0].name}"
        files[place] = one.files[0]
        entries.append(
            ModelEntry(
                name=one.name,
                files=[file_entry(one.files[0], place)],
                source_sha256=sha256_of(one.files[0]),
                engine=one.engine,
                device=one.options.device,
                precision=one.options.precision.value,
                preprocess=one.preprocess,
                output=one.output,
            )
        )
    manifest = Manifest(
        created_by="benchmark",
        labels=[str(number) for number in range(large.classes or CLASSES)],
        stages=[
            StageEntry(model=entries[0], score=Named(name="margin"), threshold=threshold),
            StageEntry(model=entries[1]),
        ],
        method="empirical",
        seed=0,
        calibration=FiguresEntry(
            samples=1,
            accuracy_saver=0,
            accuracy_large=0,
            accuracy_cascade=0,
            drop_points=0,
            accept_rate=0.5,
            cost_macs_ratio=None,
        ),
    )
    write_bundle(target, manifest, files)
    return target


@dataclass(frozen=True)
class Timed:
    """What some calls took.

    Attributes:
        frames: how many were answered.
        seconds: in all.
        energy: what each counter counted meanwhile.
    """

    frames: int
    seconds: float
    energy: tuple[Energy, ...]

    @property
    def frames_per_s(self) -> float:
        """How many were answered a second."""
        return self.frames / self.seconds

    def joules_per_frame(self, source: str = "NVML") -> float | None:
        """Energy of one frame by the counters of a kind; None where there are none."""
        found = [one.joules for one in self.energy if one.source.startswith(source)]
        return sum(found) / self.frames if found else None


def keep_busy(answer: Callable[[], int], seconds: float, meters: Sequence[EnergyMeter]) -> Timed:
    """Call for a while; `answer` returns how many frames it has answered."""
    frames = 0
    with Metering(meters) as metering:
        started_s = time.perf_counter()
        while (spent_s := time.perf_counter() - started_s) < seconds or not frames:
            frames += answer()
        spent_s = time.perf_counter() - started_s
    return Timed(frames, spent_s, metering.used)


def middle(values: Sequence[float | None]) -> float | None:
    """Return the median of what was measured; None where nothing was."""
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def spread(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Return the least and the greatest of what was measured."""
    found = [value for value in values if value is not None]
    return (min(found), max(found)) if found else None


def show(value: float | None, digits: int = 3) -> str:
    """Write a figure with so many significant digits."""
    return "–" if value is None else f"{value:.{digits}g}" if value < 1000 else f"{value:.0f}"


def used_gib(torch: Any) -> float:  # noqa: ANN401 - the module
    """Return the GPU's memory that torch has taken at most, in GiB."""
    return float(torch.cuda.max_memory_reserved()) / 2**30
