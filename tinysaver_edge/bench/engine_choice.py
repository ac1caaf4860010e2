"""Engine choice: run a model in every way a device offers, keep the fastest that agrees.

What was found is remembered for the model, the device and the releases it was found with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import parse_json, read_text, write_text
from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge._support.resources import default_cache_dir
from tinysaver_edge._version import __version__
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.timing import Effort, measure_with
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.engines.base import Precision, finite_or_raise
from tinysaver_edge.engines.registry import engine_class, engine_version
from tinysaver_edge.errors import EngineError, TinySaverError
from tinysaver_edge.hardware.engines import Engines, probe_engines
from tinysaver_edge.hardware.nvidia import read_nvidia
from tinysaver_edge.hardware.probe import machine
from tinysaver_edge.hardware.profile import DeviceProfile, EngineChoice
from tinysaver_edge.preprocess import Frame


def _device() -> Mapping[str, Any]:
    """Return what tells one device from another; the engines' releases are looked at apart."""
    driver = read_nvidia()
    return {**machine(), "driver": None if driver is None else driver.version}


@dataclass(frozen=True, slots=True)
class ChoiceCache:
    """Choices on disk, one file a model and device.

    Attributes:
        folder: where the files lie.
        device: returns what tells this device from others.
        release: returns the release of an engine that is installed, None where none is.
    """

    folder: Path
    device: Callable[[], Mapping[str, Any]] = _device
    release: Callable[[str], str | None] = engine_version

    @classmethod
    def default(cls) -> ChoiceCache | None:
        """Return the user's, or None where nothing can be written."""
        base = default_cache_dir()
        return None if base is None else cls(base / "engines")

    def read(
        self, model: Artefact, ways: Sequence[EngineChoice]
    ) -> tuple[Path, dict[str, Any]] | None:
        """Return the file and what was kept, None where anything that it rests on has changed."""
        path = self._path(model)
        try:
            content = parse_json(read_text(path))
            same = content["key"] == self._key(model, ways)
            return (path, dict(content["chosen"])) if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(
        self, model: Artefact, ways: Sequence[EngineChoice], chosen: Mapping[str, Any]
    ) -> None:
        """Keep a choice, in place of the one before it."""
        content = {"key": self._key(model, ways), "chosen": dict(chosen)}
        write_text(self._path(model), json.dumps(content, indent=1, default=str) + "\n")

    def _path(self, model: Artefact) -> Path:
        device = hashlib.sha256(repr(sorted(self.device().items())).encode()).hexdigest()
        return self.folder / f"{model.sha256[:16]}-{device[:16]}.json"

    def _key(self, model: Artefact, ways: Sequence[EngineChoice]) -> dict[str, Any]:
        """Return all else that a choice depends on, as JSON gives it back."""
        names = sorted({model.engine, *(way.engine for way in ways)})
        said = (model.preprocess, model.output, model.engine, model.options)
        key = {
            "created_by": f"tinysaver-edge {__version__}",
            "releases": {name: self.release(name) for name in names},
            "ways": [asdict(way) for way in ways],
            "model": hashlib.sha256(repr(said).encode()).hexdigest(),
        }
        found: dict[str, Any] = json.loads(json.dumps(key))
        return found


TOLERANCES = MappingProxyType(
    {
        Precision.FLOAT32: 1e-3,
        Precision.TF32: 1e-2,
        Precision.FLOAT16: 1e-2,
        Precision.BFLOAT16: 5e-2,
    }
)
"""Difference of a probability from the reference's that counts as agreement, by precision.

In float32 it is that of golden samples. What is computed in fewer bits is calibrated as it is; the
wider limits only tell rounding from a model that is run wrongly.
"""

EFFORT = Effort(warm_up=10, min_runs=50, min_seconds=0.5, max_seconds=15.0)
"""How long each candidate is timed."""

_CPU = frozenset({"cpu", "cpuexecutionprovider"})


@dataclass(frozen=True, slots=True)
class TriedWay:
    """What came of one candidate.

    Attributes:
        choice: engine, device, precision.
        median_ms: resize and model, one frame; None where it did not run.
        difference: the largest of a probability from the reference's; None where it did not run.
        why: why it was not taken, "" for the one that was.
    """

    choice: EngineChoice
    median_ms: float | None
    difference: float | None
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "engine": self.choice.engine,
            "device": self.choice.device,
            "precision": self.choice.precision,
            "median_ms": self.median_ms,
            "difference": self.difference,
            "why": self.why,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TriedWay:
        """Read what `to_dict` returned."""
        choice = EngineChoice(values["engine"], values["device"], values["precision"])
        return cls(choice, values["median_ms"], values["difference"], str(values["why"]))

    def __str__(self) -> str:
        time = "" if self.median_ms is None else f" {self.median_ms:.3f} ms"
        return f"{name_of(self.choice)}:{time}{',' if time else ''} {self.why or 'taken'}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The engine for one model on this device.

    Attributes:
        reference: what the answers were held against.
        tried: every candidate, in order of preference.
        kept_in: where it was read from, None where it was measured now.
    """

    model: str
    reference: EngineChoice
    tried: tuple[TriedWay, ...]
    kept_in: Path | None = None

    @property
    def choice(self) -> EngineChoice:
        """The one that was taken."""
        return next(one.choice for one in self.tried if not one.why)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "model": self.model,
            "reference": name_of(self.reference),
            "tried": [one.to_dict() for one in self.tried],
            "kept_in": None if self.kept_in is None else str(self.kept_in),
        }

    def lines(self) -> list[str]:
        """Say what was tried and why each candidate lost, a line each."""
        known = "" if self.kept_in is None else f", as measured before ({self.kept_in})"
        first = f"{self.model}: engine {name_of(self.choice)}{known}"
        return [first, *(f"  {one}" for one in self.tried)]


@dataclass(frozen=True, slots=True)
class CandidateAnswer:
    """What a candidate answered.

    Attributes:
        probabilities: ``(frames, classes)``.
        median_ms: resize and model, one frame.
    """

    probabilities: NDArray[np.float64]
    median_ms: float


@dataclass(frozen=True, slots=True)
class TryStep:
    """Run a model one way: what a process of its own may do, since a driver can end one.

    Attributes:
        frames: ``(height, width, 3)`` BGR uint8, at least one.
    """

    artefact: Artefact
    frames: Sequence[Frame]

    def __call__(self, progress: Progress) -> CandidateAnswer:
        """Do it.

        Raises:
            EngineError: it cannot be run so.
            MissingDependencyError: the engine is not installed.
        """
        name = self.artefact.name
        stage = Stage.opened(self.artefact, StagePolicy(name))
        try:
            rows = [stage.engine.infer(stage.prepare(frame)).copy() for frame in self.frames]
            logits = np.concatenate(rows)
            finite_or_raise(logits, model=name, where="a frame")
            first = self.frames[0]
            took = measure_with(EFFORT, lambda: stage.ask(stage.prepare(first)))
        finally:
            stage.close()
        return CandidateAnswer(_softmax(logits), took.median_ms)


Runner = Callable[[TryStep, str], CandidateAnswer]
"""Does a step, perhaps in a process of its own; the text names it for messages."""


def run_here(step: TryStep, what: str) -> CandidateAnswer:
    """Do a step in this process."""
    return step(SILENT)


def candidates(
    profile: DeviceProfile | None, *, probed: Callable[[], Engines] = probe_engines
) -> tuple[EngineChoice, ...]:
    """Return the ways to run a model that a device's profile lists, the best first.

    Without a profile those that this machine really has, in float32, accelerators first.
    """
    if profile is not None:
        return profile.engines
    found = probed()
    ways = [EngineChoice(one.engine, one.listed.device) for one in found.working]
    ways += [EngineChoice(name, "CPU") for name in found.others]
    return tuple(sorted(ways, key=lambda way: way.device.lower() in _CPU))


def name_of(choice: EngineChoice) -> str:
    """Name a way to run a model."""
    return f"{choice.engine} on {choice.device}, {choice.precision}"


def in_way(artefact: Artefact, choice: EngineChoice) -> Artefact:
    """Return a model to be run in another way."""
    options = replace(artefact.options, device=choice.device, precision=Precision(choice.precision))
    return replace(artefact, engine=choice.engine, options=options)


def choose_engine(
    reference: Artefact,
    ways: Sequence[EngineChoice],
    frames: Sequence[Frame],
    *,
    device: str | None = None,
    precision: Precision | None = None,
    run: Runner = run_here,
    cache: ChoiceCache | None = None,
) -> Chosen:
    """Measure a model in every way and take the fastest whose answers agree.

    Args:
        reference: the model, in the way that the answers are held against: in float32 on the CPU.
        ways: the candidates, in order of preference.
        frames: what they answer, ``(height, width, 3)`` BGR uint8, at least one.
        device: only candidates on this device count; None for all.
        precision: takes the place of the candidates' own; None leaves them as they are.
        run: does one run.
        cache: remembers choices; None for not at all.

    Raises:
        EngineError: no candidate can be taken; says why each cannot. Or the reference fails.
        MissingDependencyError: the engine of the reference is not installed.
    """
    asked = _asked(ways, device=device, precision=precision)
    if not asked:
        on = "" if device is None else f" on {device}"
        raise EngineError(f"model {reference.name}: there is no engine{on} to choose from")
    if cache is not None and (known := _remembered(cache, reference, asked)) is not None:
        return known
    told = run(TryStep(reference, frames), f"running {reference.name} for reference")
    tried = [_try(reference, told, way, frames, run) for way in asked]
    if [one.why for one in tried].count("") > 1:
        # In turns, so that a busy moment does not decide.
        tried = [one if one.why else _again(reference, one, frames, run) for one in tried]
    tried = _decided(tried)
    if all(one.why for one in tried):
        reasons = "; ".join(map(str, tried))
        raise EngineError(f"model {reference.name}: no engine can be taken: {reasons}")
    found = Chosen(reference.name, _way_of(reference), tuple(tried))
    if cache is not None:
        cache.write(reference, asked, found.to_dict())
    return found


def _remembered(
    cache: ChoiceCache, reference: Artefact, asked: Sequence[EngineChoice]
) -> Chosen | None:
    kept = cache.read(reference, asked)
    if kept is None:
        return None
    path, values = kept
    try:
        tried = tuple(TriedWay.from_dict(one) for one in values["tried"])
        found = Chosen(reference.name, _way_of(reference), tried, kept_in=path)
        return found if [one.why for one in tried].count("") == 1 else None
    except (KeyError, TypeError):
        return None


def _asked(
    ways: Sequence[EngineChoice], *, device: str | None, precision: Precision | None
) -> tuple[EngineChoice, ...]:
    """Return the candidates that count, each once."""
    kept = [
        _way(way.engine, way.device, precision or Precision(way.precision))
        for way in ways
        if device is None or _same_device(way, device)
    ]
    return tuple(dict.fromkeys(kept))


def _same_device(way: EngineChoice, device: str) -> bool:
    return _full(way.engine, way.device).lower() == _full(way.engine, device).lower()


def _way_of(artefact: Artefact) -> EngineChoice:
    return _way(artefact.engine, artefact.options.device, artefact.options.precision)


def _way(engine: str, device: str | None, precision: Precision) -> EngineChoice:
    return EngineChoice(engine, _full(engine, device), precision.value)


def _full(engine: str, device: str | None) -> str:
    """Write a device's name out; that of an engine nobody knows stays, until it is tried."""
    try:
        return engine_class(engine).full_device(device)
    except EngineError:
        return device or ""


def _try(
    reference: Artefact,
    told: CandidateAnswer,
    way: EngineChoice,
    frames: Sequence[Frame],
    run: Runner,
) -> TriedWay:
    """Run one candidate and hold its answers against the reference's."""
    try:
        suffix = reference.files[0].suffix
        if suffix not in engine_class(way.engine).suffixes:
            return TriedWay(way, None, None, f"does not read {suffix} files")
        if way == _way_of(reference):
            found = told
        else:
            found = run(TryStep(in_way(reference, way), frames), f"running {name_of(way)}")
    except TinySaverError as error:
        return TriedWay(way, None, None, f"does not run: {error}")
    if found.probabilities.shape != told.probabilities.shape:
        classes = found.probabilities.shape[1]
        return TriedWay(way, found.median_ms, None, f"answers with {classes} classes")
    worst = float(np.abs(found.probabilities - told.probabilities).max())
    allowed = TOLERANCES[Precision(way.precision)]
    why = ""
    if worst > allowed:
        why = (
            f"answers otherwise than {name_of(_way_of(reference))}: probabilities differ by up to "
            f"{worst:.2g} (allowed: {allowed:g})"
        )
    return TriedWay(way, found.median_ms, worst, why)


def _again(reference: Artefact, one: TriedWay, frames: Sequence[Frame], run: Runner) -> TriedWay:
    """Time a candidate once more and keep the lesser figure."""
    step = TryStep(in_way(reference, one.choice), frames)
    try:
        found = run(step, f"running {name_of(one.choice)} again")
    except TinySaverError as error:
        return replace(one, why=f"ran once and not again: {error}")
    return replace(one, median_ms=min(one.median_ms or found.median_ms, found.median_ms))


def _decided(tried: Sequence[TriedWay]) -> list[TriedWay]:
    """Say of all but the fastest that agrees that they are slower."""
    agreeing = [one for one in tried if not one.why]
    if not agreeing:
        return list(tried)
    best = min(agreeing, key=lambda one: one.median_ms or 0.0)
    return [
        one if one is best or one.why else replace(one, why=f"slower than {name_of(best.choice)}")
        for one in tried
    ]


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return probabilities
