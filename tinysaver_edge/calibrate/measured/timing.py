"""Timing: how long savers and the large model take on this machine, and what memory they need."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from tinysaver_edge._support.files import parse_json, read_file, write_text
from tinysaver_edge._support.progress import Progress
from tinysaver_edge._version import __version__
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.bundle import measure_alone, measure_pair
from tinysaver_edge.bench.timing import Effort, resident_mb
from tinysaver_edge.calibrate.problem import PairTiming
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.errors import DataError, EngineError, InputError
from tinysaver_edge.latency import CascadeLatency, LatencySamples, joined_samples
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.score import Margin

if TYPE_CHECKING:
    from tinysaver_edge.fusion import Fusion

EFFORT = Effort(warm_up=20, min_runs=200, min_seconds=1.0, max_seconds=10.0)
"""Of one round."""

LOOKS = Effort(warm_up=50, min_runs=500, min_seconds=0.2, max_seconds=2.0)
"""At frames that are found still, which takes a fraction of a millisecond."""

LEAST_ROUNDS = 2
MOST_ROUNDS = 4

SETTLED = 0.1
"""Rounds whose medians lie no further apart than this share of the least agree."""

FRAMES = 8
"""Images that take turns, spread over the data."""

Found = TypeVar("Found")


class TimingStep(Protocol):
    """One thing to time, a round at a time."""

    def __call__(self, progress: Progress) -> Any:  # noqa: ANN401
        """Time it for one round."""

    def known(self) -> Any:  # noqa: ANN401
        """Return what was timed before on this machine, None where it has to be timed."""

    def settled(self, rounds: Sequence[Any]) -> bool:
        """Whether another round would tell nothing new."""

    def keep(self, rounds: Sequence[Any]) -> Any:  # noqa: ANN401
        """Put rounds together and on disk."""


@dataclass(frozen=True, slots=True)
class TimingPlace:
    """Where timings are taken and kept.

    Attributes:
        folder: where records lie.
        alone: whether nothing else runs in the process, so that its memory can be told.
        effort: how long a round takes.
    """

    data: DataSource
    fingerprint: str
    folder: Path
    alone: bool
    effort: Effort = EFFORT

    def frames(self) -> list[Frame]:
        """Return some images of the data.

        Raises:
            DataError: no image can be read.
        """
        spread = np.linspace(0, len(self.data) - 1, min(FRAMES, len(self.data))).astype(int)
        found = [self.data.frame(int(index)) for index in spread]
        frames = [frame for frame in found if frame is not None]
        if frames:
            return frames
        for index in range(len(self.data)):
            frame = self.data.frame(index)
            if frame is not None:
                return [frame]
        raise DataError(f"data {self.data.path}: no image can be read")

    def memory_since(self, before: float | None) -> float | None:
        """Return by how much the process has grown, in MiB; None where that cannot be told."""
        after = resident_mb()
        return None if before is None or after is None or not self.alone else after - before


@dataclass(frozen=True, slots=True)
class LargeTiming:
    """Time the large model alone; the figures are kept on disk."""

    large: Artefact
    place: TimingPlace

    def known(self) -> LatencySamples | None:
        """Return what was timed before on this machine, None where it has to be timed."""
        return _read(self._path, self._key, lambda kept: LatencySamples.from_dict(kept["latency"]))

    def keep(self, rounds: Sequence[LatencySamples]) -> LatencySamples:
        """Put rounds together and on disk."""
        latency = joined_samples(rounds)
        _write(self._path, self._key, {"latency": latency.to_dict()})
        return latency

    @staticmethod
    def settled(rounds: Sequence[LatencySamples]) -> bool:
        """Whether another round would tell nothing new."""
        return _agree(rounds)

    def __call__(self, progress: Progress) -> LatencySamples:
        """Time it for one round.

        Raises:
            EngineError: the model fails.
            DataError: no image can be read.
        """
        frames = self.place.frames()
        with ExitStack() as stack:
            return measure_alone(_stage(self.large, stack), frames, effort=self.place.effort)

    @property
    def _path(self) -> Path:
        return self.place.folder / f"{self.large.name}.timing.json"

    @property
    def _key(self) -> str:
        return _key(self.place, self.large)


@dataclass(frozen=True, slots=True)
class PairTimingStep:
    """Time a saver with the large model in one process; the figures are kept on disk.

    Attributes:
        fusion: what combines their answers, or None.
        place: where it is done.
    """

    saver: Artefact
    large: Artefact
    fusion: Fusion | None
    place: TimingPlace

    def known(self) -> PairTiming | None:
        """Return what was timed before on this machine, None where it has to be timed."""
        return _read(
            self._path,
            self._key,
            lambda kept: _joined(
                [CascadeLatency.from_dict(one) for one in kept["rounds"]], kept["memory_mb"]
            ),
        )

    def keep(self, rounds: Sequence[PairTiming]) -> PairTiming:
        """Put rounds together and on disk."""
        found = _joined([one.latency for one in rounds], rounds[0].memory_mb)
        told = [one.to_dict() for one in found.rounds]
        _write(self._path, self._key, {"memory_mb": found.memory_mb, "rounds": told})
        return found

    @staticmethod
    def settled(rounds: Sequence[PairTiming]) -> bool:
        """Whether another round would tell nothing new."""
        found = [one.latency for one in rounds]
        return _agree([one.saver for one in found]) and _agree([one.escalated for one in found])

    def __call__(self, progress: Progress) -> PairTiming:
        """Time them for one round.

        Raises:
            EngineError: a model fails.
            DataError: no image can be read.
        """
        frames = self.place.frames()
        before = resident_mb()
        with ExitStack() as stack:
            saver, large = _stage(self.saver, stack), _stage(self.large, stack)
            latency = measure_pair(
                saver, large, frames, fusion=self.fusion, effort=self.place.effort
            )
            memory_mb = self.place.memory_since(before)
        return PairTiming(latency, memory_mb)

    @property
    def _path(self) -> Path:
        return self.place.folder / f"{self.saver.name}+{self.large.name}.timing.json"

    @property
    def _key(self) -> str:
        fusion = None if self.fusion is None else (self.fusion.name, self.fusion.parameters)
        return _key(self.place, self.saver, self.large, fusion)


def _joined(rounds: Sequence[CascadeLatency], memory_mb: float | None) -> PairTiming:
    return PairTiming(CascadeLatency.joined(rounds), memory_mb, tuple(rounds))


def _agree(rounds: Sequence[LatencySamples]) -> bool:
    """Whether the rounds' medians lie close together."""
    medians = [one.median_ms for one in rounds]
    return max(medians) <= (1 + SETTLED) * min(medians)


def time_in_turns(
    steps: Mapping[str, TimingStep], run: Callable[[TimingStep, str], Any]
) -> Iterator[tuple[str, Any]]:
    """Time several things in rounds, one after the other in each, until each has settled.

    What disturbs a machine for a while then disturbs all of them, not one.

    Args:
        steps: by name; what is kept from earlier is not passed in.
        run: times one for one round, by its name; raises `EngineError` where it cannot be.

    Yields:
        Each name with what came of it, or with the error.
    """
    found: dict[str, list[Any]] = {name: [] for name in steps}
    for number in range(MOST_ROUNDS):
        for name in list(found):
            if number >= LEAST_ROUNDS and steps[name].settled(found[name]):
                continue
            try:
                found[name].append(run(steps[name], name))
            except EngineError as error:
                del found[name]
                yield name, error
    for name, rounds in found.items():
        yield name, steps[name].keep(rounds)


def _stage(artefact: Artefact, stack: ExitStack) -> Stage:
    stage = Stage.opened(artefact, StagePolicy(artefact.name, score=Margin()))
    stack.callback(stage.close)
    return stage


def _key(place: TimingPlace, *parts: object) -> str:
    """Return a hash of all that a timing depends on: models, images, machine and release."""
    said = [
        (part.sha256, part.engine, part.options, part.codec) if isinstance(part, Artefact) else part
        for part in parts
    ]
    machine = (platform.node(), platform.machine(), os.cpu_count())
    return hashlib.sha256(
        repr((said, place.fingerprint, machine, __version__)).encode()
    ).hexdigest()


def _read(path: Path, key: str, parse: Callable[[dict[str, Any]], Found]) -> Found | None:
    try:
        content = parse_json(read_file(path))
        return parse(content) if content["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return None


def _write(path: Path, key: str, content: dict[str, Any]) -> None:
    write_text(path, json.dumps({"key": key, **content}) + "\n")
