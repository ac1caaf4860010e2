"""The ImageNet pair: two published MobileNets as a cascade of any escalation rate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from imagenet import DATA

from tinysaver_edge import Cascade
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.calibrate.measured.prepare import prepare
from tinysaver_edge.calibrate.plan import ModelFile
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.models.description.description import description_from
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.score import Margin

VIDEO = DATA / "video" / "objects-1080p.mp4"
SAVER, LARGE = "mobilenet_v1_0.25_224", "mobilenet_v2_1.0_224_int8"
INPUTS = {
    SAVER: {"dtype": "float32", "scale": "half"},
    LARGE: {"dtype": "uint8", "scale": "raw"},
}


def need_data() -> None:
    """End the benchmark with what to set where the models or the video are not there."""
    for path in (VIDEO, DATA / "imagenet" / f"{SAVER}.tflite"):
        if not path.is_file():
            print(f"no {path}: set TINYSAVER_DATA", file=sys.stderr)
            raise SystemExit(2)


def artefacts(folder: Path) -> dict[str, Artefact]:
    """Prepare both models as a calibration does, their preprocessing folded in."""
    made = {}
    for name, input_ in INPUTS.items():
        model = DATA / "imagenet" / f"{name}.tflite"
        described = description_from(
            {
                "input": {"layout": "NHWC", "color": "RGB", "size": [224, 224], **input_},
                "output": {"kind": "probabilities", "class_offset": 1},
            },
            model,
            folder=folder,
            source="benchmark",
        )
        made[name] = prepare(ModelFile(model, described, engine="openvino"), folder / name)
    return made


def cascade_of(
    made: dict[str, Artefact], *, threshold: float, threads: int | None = None
) -> Cascade:
    """Load both models as a cascade that accepts margins from the threshold on."""
    policies = {
        SAVER: StagePolicy(SAVER, 41e6, Margin(), threshold),
        LARGE: StagePolicy(LARGE, 300e6),
    }
    return Cascade([stage_of(made[name], policy, threads) for name, policy in policies.items()])


def stage_of(artefact: Artefact, policy: StagePolicy, threads: int | None) -> Stage:
    """Load one model, and run it once."""
    if threads is not None:
        artefact = artefact.with_threads(threads)
    stage = Stage(artefact.open(), preprocess=artefact.preprocess, policy=policy)
    stage.warm_up()
    return stage


def threshold_for(made: dict[str, Artefact], frames: Iterable[Frame], *, escalated: float) -> float:
    """Return the margin below which that share of the frames is escalated."""
    with cascade_of(made, threshold=-1.0) as cascade:
        return float(np.quantile([cascade.decide(frame).score for frame in frames], escalated))


def naive_models(*, threads: int | None = None) -> dict[str, Callable[[Any], Any]]:
    """Return both models as published: functions from their input to 1,001 outputs."""
    import openvino as ov

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    core = ov.Core()

    def runner(name: str) -> Callable[[Any], Any]:
        model = core.read_model(DATA / "imagenet" / f"{name}.tflite")
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        return lambda batch: request.infer({0: batch})[0][0]

    return {name: runner(name) for name in INPUTS}


def naive_decide(models: dict[str, Callable[[Any], Any]], frame: Frame, threshold: float) -> int:
    """Decide a frame as one would without this package: INTER_AREA, numpy, one after the other."""
    picture = cv2.cvtColor(
        cv2.resize(frame, (224, 224), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB
    )
    outputs = models[SAVER]((picture.astype(np.float32) / 127.5 - 1)[None])[1:]
    first, second = np.sort(outputs)[-1:-3:-1]
    if first - second < threshold:
        outputs = models[LARGE](picture[None])[1:]
    return int(np.argmax(outputs))
