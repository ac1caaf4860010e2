"""Timing: how long one model takes for a frame on this machine, and what memory it adds."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.data import DataSource
from tinysaver_edge.errors import DataError, InputError
from tinysaver_edge.files import write_text
from tinysaver_edge.hardware.benchmark import Effort, measure_stage
from tinysaver_edge.latency import LatencySamples
from tinysaver_edge.policy import StagePolicy
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.progress import Progress
from tinysaver_edge.score import Margin
from tinysaver_edge.stage import Stage

EFFORT = Effort(warm_up=10, min_runs=200, min_seconds=1.0, max_seconds=20.0)


@dataclass(frozen=True, slots=True)
class Timing:
    """What one model takes on this machine.

    Attributes:
        latency: resize, model and score of one frame.
        memory_mb: growth of the process by loading and running it; None where the system does not
            tell, or other models share the process.
    """

    latency: LatencySamples
    memory_mb: float | None


@dataclass(frozen=True, slots=True)
class TimingStep:
    """Time one model on the first image that can be read; the figures are kept on disk.

    Attributes:
        artefact: the model.
        data: the images.
        folder: where records lie.
        alone: whether nothing else runs in the process, so that its memory can be told.
    """

    artefact: Artefact
    data: DataSource
    folder: Path
    alone: bool

    def known(self) -> Timing | None:
        """Return what was timed before on this machine, None where it has to be timed."""
        try:
            content = json.loads(self._path.read_text())
            if content["key"] != self._key:
                return None
            return Timing(LatencySamples.from_dict(content["latency"]), content["memory_mb"])
        except (OSError, ValueError, KeyError, TypeError, InputError):
            return None

    def __call__(self, progress: Progress) -> Timing:
        """Time it.

        Raises:
            EngineError: the model fails.
            DataError: no image can be read.
        """
        frame = _first_frame(self.data)
        before = _resident_mb()
        engine = self.artefact.open()
        policy = StagePolicy(self.artefact.name, score=Margin())
        stage = Stage(engine, preprocess=self.artefact.preprocess, policy=policy)
        try:
            latency = measure_stage(stage, frame, effort=EFFORT)
            after = _resident_mb()
        finally:
            stage.close()
        grown = None if before is None or after is None or not self.alone else after - before
        content = {"key": self._key, "memory_mb": grown, "latency": latency.to_dict()}
        write_text(self._path, json.dumps(content) + "\n")
        return Timing(latency, grown)

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.artefact.name}.timing.json"

    @property
    def _key(self) -> str:
        """Return a hash of model, engine, frame size and machine."""
        machine = (platform.node(), platform.machine(), os.cpu_count())
        said = repr((self.artefact.sha256, self.artefact.engine, self.artefact.options, machine))
        return hashlib.sha256(said.encode()).hexdigest()


def _first_frame(data: DataSource) -> Frame:
    for index in range(len(data)):
        frame = data.frame(index)
        if frame is not None:
            return frame
    raise DataError(f"data {data.path}: no image can be read")


def _resident_mb() -> float | None:
    """Return the memory that this process holds, None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
