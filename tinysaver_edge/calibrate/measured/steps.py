"""Steps of measuring models: prepare one, measure one; each here or in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tinysaver_edge._support.progress import Progress
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.calibrate.measured.prepare import find_prepared, prepare
from tinysaver_edge.calibrate.measured.worker import Task, run_isolated
from tinysaver_edge.calibrate.plan import ModelFile
from tinysaver_edge.data import DataSource
from tinysaver_edge.records.measure import measure, record_key, record_name
from tinysaver_edge.records.records import is_finished

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class PrepareStep:
    """Bring one model into the form it will ship in."""

    model: ModelFile
    folder: Path
    embed: bool

    def known(self) -> Artefact | None:
        """Return what was prepared before, so that no process is needed."""
        return find_prepared(self.model, self.folder, embed=self.embed)

    def __call__(self, progress: Progress) -> Artefact:
        """Do it."""
        return prepare(self.model, self.folder, embed=self.embed)


@dataclass(frozen=True, slots=True)
class MeasureStep:
    """Run one model over all images; its record is kept on disk."""

    artefact: Artefact
    data: DataSource
    folder: Path
    fingerprint: str
    skip_limit: float

    def is_done(self) -> bool:
        """Whether there is a record already, so that no process is needed."""
        key = record_key(self.artefact, self.fingerprint)
        name = record_name(self.artefact.name, self.artefact.codec)
        return is_finished(self.folder, name, key)

    def __call__(self, progress: Progress) -> None:
        """Do it."""
        measure(
            self.artefact,
            self.data,
            self.folder,
            fingerprint=self.fingerprint,
            skip_limit=self.skip_limit,
            progress=progress,
        )


def run_step(
    step: Task[Result],
    *,
    progress: Progress,
    what: str,
    isolate: bool,
    seconds: float | None = None,
) -> Result:
    """Do a step, in a process of its own where that is asked for."""
    if isolate:
        return run_isolated(step, progress=progress, what=what, seconds=seconds)
    return step(progress)
