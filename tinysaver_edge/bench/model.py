"""Bench one model: from the cold start to the warm run, its memory and its throughput."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tinysaver_edge._support.packages import import_engine
from tinysaver_edge.artefact import Artefact, combined_sha256
from tinysaver_edge.bench.throughput import (
    InferenceEnergy,
    Sustained,
    Throughput,
    measure_batches,
    measure_energy,
    measure_throughput,
    sustain,
)
from tinysaver_edge.bench.timing import (
    DEFAULT_EFFORT,
    Clock,
    Effort,
    measure_stage,
    measure_with,
    peak_mb,
    resident_mb,
)
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.engines.base import EngineOptions, Precision
from tinysaver_edge.engines.registry import engine_name
from tinysaver_edge.hardware.energy import EnergyMeter
from tinysaver_edge.latency import LatencySamples
from tinysaver_edge.models.description.description import find_description
from tinysaver_edge.preprocess import Frame

KEPT_SAMPLES = 1000
"""Samples of one measurement that a report keeps."""


@dataclass(frozen=True, slots=True)
class ModelBench:
    """What one model takes on this machine, one frame at a time.

    Attributes:
        device: the engine's device in use.
        threads: processor threads for one inference; None leaves it to the engine.
        frame: height and width of the frame that it was measured with.
        import_s: importing the engine's package; 0 where that was done before.
        load_s: opening the model, nothing cached.
        stage: warm runs with the resize and the score, as a cascade runs it.
        throughput: frames a second when kept busy, or None where that was not measured.
        batches: warm runs of the model alone on so many frames at once, as a host has it answer
            them; none where that was not measured.
        energy: of a frame, with the resize; None where no counter tells.
        loaded_mb: memory that opening it and running it once took; None where nobody tells.
        peak_mb: the most that the process ever held, all else included.
    """

    name: str
    sha256: str
    engine: str
    device: str
    precision: str
    threads: int | None
    frame: tuple[int, int]
    import_s: float
    load_s: float
    first_ms: float
    inference: LatencySamples
    stage: LatencySamples
    throughput: Throughput | None
    loaded_mb: float | None
    peak_mb: float | None
    batches: Mapping[int, LatencySamples]
    energy: InferenceEnergy | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "engine": self.engine,
            "device": self.device,
            "precision": self.precision,
            "threads": self.threads,
            "frame": list(self.frame),
            "import_s": self.import_s,
            "load_s": self.load_s,
            "first_ms": self.first_ms,
            "inference": self.inference.thinned(KEPT_SAMPLES).to_dict(),
            "stage": self.stage.thinned(KEPT_SAMPLES).to_dict(),
            "throughput": None if self.throughput is None else self.throughput.to_dict(),
            "loaded_mb": self.loaded_mb,
            "peak_mb": self.peak_mb,
            "batches": {
                str(size): one.thinned(KEPT_SAMPLES // 4).to_dict()
                for size, one in self.batches.items()
            },
            "energy": None if self.energy is None else self.energy.to_dict(),
        }


def bench_model(
    artefact: Artefact,
    frame: Frame,
    *,
    policy: StagePolicy | None = None,
    effort: Effort = DEFAULT_EFFORT,
    throughput_s: float = 0.0,
    batches: bool = False,
    meters: Sequence[EnergyMeter] = (),
    clock: Clock = time.perf_counter,
) -> ModelBench:
    """Measure one model.

    Args:
        artefact: the model; without a cache folder, so that the start is a cold one.
        frame: ``(height, width, 3)`` BGR uint8.
        policy: its score, which is timed too; None for none.
        effort: how long to measure.
        throughput_s: seconds to keep it busy; 0 for not at all.
        batches: whether to time several frames at once, as a host has them answered.
        meters: counters of energy.
        clock: seconds.

    Raises:
        EngineError: the model cannot be run here.
        MissingDependencyError: its engine is not installed.
    """
    import_s = _import(artefact.engine, clock)
    before, started = resident_mb(), clock()
    stage = Stage.opened(artefact, policy or StagePolicy(artefact.name))
    engine = stage.engine
    load_s = clock() - started
    try:
        batch = np.zeros_like(stage.prepare(frame))
        started = clock()
        stage.ask(batch)
        first_ms = (clock() - started) * 1e3
        after = resident_mb()
        inference = measure_with(effort, lambda: engine.infer(batch), clock=clock)
        whole = measure_stage(stage, frame, clock=clock, effort=effort)
        each = replace(effort, min_runs=1, max_seconds=effort.max_seconds / 3)
        together = measure_batches(engine.infer, batch, effort=each, clock=clock) if batches else {}
        energy = measure_energy(lambda: stage.ask(stage.prepare(frame)), meters, clock=clock)
    finally:
        stage.close()
    throughput = None
    if throughput_s > 0:
        throughput = measure_throughput(artefact, seconds=throughput_s, clock=clock)
    return ModelBench(
        name=artefact.name,
        sha256=artefact.sha256,
        engine=artefact.engine,
        device=engine.device,
        precision=engine.precision.value,
        threads=artefact.options.threads,
        frame=(frame.shape[0], frame.shape[1]),
        import_s=import_s,
        load_s=load_s,
        first_ms=first_ms,
        inference=inference,
        stage=whole,
        throughput=throughput,
        loaded_mb=None if before is None or after is None else max(after - before, 0.0),
        peak_mb=peak_mb(),
        batches=together,
        energy=energy,
    )


def sustain_model(
    artefact: Artefact, frame: Frame, *, seconds: float, clock: Clock = time.perf_counter
) -> Sustained:
    """Run a model on and on, with its resize, and see whether it gets slower.

    Raises:
        EngineError: the model cannot be run here.
    """
    stage = Stage.opened(artefact, StagePolicy(artefact.name))
    try:
        stage.warm_up()
        return sustain(lambda: stage.ask(stage.prepare(frame)), seconds=seconds, clock=clock)
    finally:
        stage.close()


def artefact_of(
    model: Path,
    *,
    descriptions: Path | None = None,
    engine: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    output: str | None = None,
) -> Artefact:
    """Return a model file as it is, with what is said of it, to be measured.

    Args:
        model: the file.
        descriptions: folder that may hold its description.
        engine: over what the description says; None or ``"auto"`` for the one that fits.
        device: over what the description says.
        precision: over what the description says.
        threads: processor threads for one inference; None leaves it to the engine.
        output: name of the output that holds the classes, over what the description says.

    Raises:
        DescriptionError: it has no description, or a wrong one.
        ModelError: it is missing, or no engine reads it.
    """
    said = find_description(model, descriptions_dir=descriptions, output=output)
    weights = model.with_suffix(".bin")
    files = (model, weights) if model.suffix == ".xml" and weights.is_file() else (model,)
    sha256 = combined_sha256(files)
    device = device or said.device
    asked = said.engine if engine is None else engine
    return Artefact(
        name=said.name,
        files=files,
        sha256=sha256,
        source_sha256=sha256,
        preprocess=said.preprocess,
        output=said.output,
        engine=engine_name(asked, model, device=device),
        options=EngineOptions(
            device=device,
            precision=Precision(precision or said.precision or Precision.FLOAT32),
            threads=threads,
        ),
        macs=said.macs,
        parameters=None,
        classes=None,
        labels=None,
    )


def _import(engine: str, clock: Clock) -> float:
    """Import an engine's package, whose name is the engine's, so that loading starts clean."""
    started = clock()
    if find_spec(engine) is not None:
        import_engine(engine)
    return clock() - started
