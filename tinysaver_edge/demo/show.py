"""The demo's main job: calibrate on the simulated camera, then race cascade and large model."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.artefact import bundled_artefacts
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate import Calibration, ImageInput, calibrate
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.data.source import DataSource, Sample
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.demo.camera import CLASS_NAMES, LabelledFrame, SimulatedCamera
from tinysaver_edge.errors import DataError
from tinysaver_edge.preprocess import Frame


class CameraData(DataSource):
    """Independent frames of the simulated camera.

    They are drawn anew at every reading, which takes little more than decoding a file would, so
    that no memory or disk holds them.
    """

    independent = True

    def __init__(self, count: int, *, seed: int) -> None:
        self._camera = SimulatedCamera(seed=seed)
        self._seed = seed
        labels = [self._camera.scene(index)[0].label for index in range(count)]
        samples = [
            Sample(file=f"frame {index}", label=CLASS_NAMES[label])
            for index, label in enumerate(labels)
        ]
        super().__init__(Path("simulated camera"), samples)

    def frame(self, index: int) -> Frame:
        """Draw one frame."""
        return next(iter(self._camera.frames(1, start=index)))[0]

    def read(self, index: int) -> bytes:
        """Refuse: frames are drawn, not read.

        Raises:
            DataError: always.
        """
        raise DataError(f"frame {index} of the simulated camera is drawn, there is no file")

    def _state(self, index: int) -> str:
        return str(self._seed)


#: Names of the models, cheapest first; the last is the large one.
MODEL_NAMES: Final = ("parts_nano", "parts_small", "parts_large")


def demo_model_paths() -> tuple[Path, ...]:
    """Return the files of the demo's models, cheapest first; the last is the large one."""
    folder = Path(__file__).parent / "weights"
    return tuple(folder / f"{name}.onnx" for name in MODEL_NAMES)


FRAMES = 3000
"""Frames that are drawn for calibration and hold-out together."""

STREAM_FPS = 30.0
"""Rate that the simulated camera stands for."""

BLOCK = 30
"""Frames that cascade and large model take in turns, so that both meet the same machine."""


@dataclass(frozen=True, slots=True)
class Race:
    """How cascade and large model did on the same frames.

    Attributes:
        cascade_fps: frames a second that the cascade decided.
        large_fps: frames a second that the large model alone decided.
        cascade_accuracy: share that the cascade got right.
        large_accuracy: share that the large model got right.
        escalation_rate: share of frames that reached the large model.
    """

    frames: int
    cascade_fps: float
    large_fps: float
    cascade_accuracy: float
    large_accuracy: float
    escalation_rate: float

    def to_dict(self) -> dict[str, Any]:
        """Return the race as plain values for JSON."""
        return asdict(self)


def calibrate_demo(
    out: Path, *, seed: int, max_drop_points: float | None = None, progress: Progress = SILENT
) -> Calibration:
    """Calibrate the demo's models on freshly drawn frames and write the bundle.

    Everything else is as the recipe ``demo`` has it.

    Args:
        out: folder or .zip for the bundle.
        seed: which camera; any but those the models were trained on.
        max_drop_points: points that may be lost; None takes the recipe's.
        progress: hears of the work.
    """
    recipe = load_recipe("demo", root=demo_model_paths()[0].parent)
    asked = {"data": CameraData(FRAMES, seed=seed), "seed": seed, "max_drop": max_drop_points}
    plan = plan_of(recipe.overridden(asked))
    given = plan.input
    if isinstance(given, ImageInput):
        # The models are known to be sound: processes of their own would only take time.
        given = replace(given, isolate=False)
    return calibrate(replace(plan, input=given), out=out, progress=progress)


def race(bundle_path: Path, *, seconds: float, seed: int) -> Race:
    """Stream some seconds of the camera through the cascade and through the large model alone.

    Frames are drawn beforehand, so that the rates are those of deciding.

    Args:
        bundle_path: the demo's bundle.
        seconds: how much of the stream, at 30 frames a second.
        seed: which camera.
    """
    camera = SimulatedCamera(seed=seed, fps=STREAM_FPS)
    frames = list(itertools.islice(camera, max(1, round(seconds * STREAM_FPS))))
    with Bundle.load(bundle_path) as bundle, Cascade.from_bundle(bundle) as cascade:
        large = bundled_artefacts(bundle)[-1]
        alone = StagePolicy(large.name, large.macs)
        with Cascade([Stage.opened(large, alone)]) as single:
            return _race(cascade, single, frames)


def _race(cascade: Cascade, large: Cascade, frames: Sequence[LabelledFrame]) -> Race:
    spent = {cascade: 0.0, large: 0.0}
    right = {cascade: 0, large: 0}
    escalated = 0
    for start in range(0, len(frames), BLOCK):
        for runner in (cascade, large):
            begun = time.monotonic()
            decisions = [runner.decide(frame) for frame, _ in frames[start : start + BLOCK]]
            spent[runner] += time.monotonic() - begun
            for decision, (_, label) in zip(decisions, frames[start : start + BLOCK], strict=True):
                right[runner] += decision.index == label
                escalated += runner is cascade and decision.escalated
    count = len(frames)
    return Race(
        frames=count,
        cascade_fps=count / spent[cascade],
        large_fps=count / spent[large],
        cascade_accuracy=right[cascade] / count,
        large_accuracy=right[large] / count,
        escalation_rate=escalated / count,
    )
