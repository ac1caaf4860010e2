"""Measure a model file or a bundle, as it is or in its fastest way, and report on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.bundle import bench_bundle
from tinysaver_edge.bench.engine_choice import (
    ChoiceCache,
    Chosen,
    Runner,
    candidates,
    choose_engine,
    in_way,
    run_here,
)
from tinysaver_edge.bench.frames import EncodedFrame, frames_from, golden_frames, made_up_frame
from tinysaver_edge.bench.model import ModelBench, artefact_of, bench_model, sustain_model
from tinysaver_edge.bench.report import BenchReport, measured_on
from tinysaver_edge.bench.timing import DEFAULT_EFFORT, Clock, Effort
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.engines.base import EngineOptions, Precision
from tinysaver_edge.engines.registry import engine_for
from tinysaver_edge.hardware.energy import Meters, open_meters
from tinysaver_edge.hardware.profile import DeviceProfile
from tinysaver_edge.models.description.description import find_description

FRAMES = 8
"""Pictures whose answers are compared."""


def fastest_artefact(
    model: Path,
    *,
    descriptions: Path | None = None,
    image: Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    output: str | None = None,
    profile: DeviceProfile | None = None,
    run: Runner = run_here,
) -> tuple[Artefact, Chosen]:
    """Return a model file to be run in the fastest way, and how that was found.

    Args:
        model: the file.
        descriptions: folder that may hold its description.
        image: an image or a folder of them to compare answers on; None takes made-up pictures.
        device: only engines on this device count; None for what the description says, or all.
        precision: arithmetic; None for what the description says, or the candidates' own.
        threads: processor threads for one inference; None leaves it to the engine.
        output: name of the output that holds the classes, before what the description says.
        profile: the device whose engines are tried; None for those that this machine has.
        run: does one run, perhaps in a process of its own.

    Raises:
        DescriptionError: it has no description, or a wrong one.
        EngineError: it cannot be run in any way.
        InputError: there is no such image.
    """
    told = artefact_of(
        model, descriptions=descriptions, engine=engine_for(model), threads=threads, output=output
    )
    said = find_description(model, descriptions_dir=descriptions, output=output)
    reference = replace(told, options=EngineOptions(threads=threads))
    encoded = [made_up_frame(seed=seed) for seed in range(FRAMES)]
    if image is not None:
        encoded = frames_from(image)[:FRAMES]
    chosen = choose_engine(
        reference,
        candidates(profile),
        [one.decode() for one in encoded],
        device=device or said.device,
        precision=said.precision if precision is None else Precision(precision),
        run=run,
        cache=ChoiceCache.default(),
    )
    return in_way(reference, chosen.choice), chosen


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What to measure, and for how long.

    Attributes:
        effort: how long to measure latencies.
        throughput_s: seconds to keep each model busy; 0 for not at all.
        sustained_s: seconds of a long run; 0 for none.
    """

    effort: Effort = DEFAULT_EFFORT
    throughput_s: float = 1.0
    sustained_s: float = 0.0


def bench_bundle_file(
    path: Path,
    *,
    image: Path | None = None,
    threads: int | None = None,
    wanted: BenchRequest = BenchRequest(),
    clock: Clock = time.perf_counter,
    now: Callable[[], datetime] = _now,
) -> BenchReport:
    """Measure a bundle and report on it.

    Args:
        path: its folder or .zip.
        image: an image or a folder of them; None takes the golden frames, or a made-up picture
            where there are none.
        threads: processor threads for one inference; None leaves it to the engines.
        wanted: what to measure.
        clock: seconds.
        now: the time of day, for the report.

    Raises:
        BundleError: it is damaged, or holds no models.
        EngineError: a model cannot be run here.
        InputError: there is no such image.
    """
    with Bundle.load(path) as bundle, open_meters() as meters:
        frames = _frames(image) if image is not None else golden_frames(bundle) or _frames(None)
        found = bench_bundle(
            bundle,
            frames,
            threads=threads,
            effort=wanted.effort,
            throughput_s=wanted.throughput_s,
            sustained_s=wanted.sustained_s,
            meters=meters.found,
            clock=clock,
        )
    report = _report(path, found.stages, frames, wanted, meters, now)
    return replace(report, bundle=found, sustained=found.sustained)


def bench_model_file(
    artefact: Artefact,
    *,
    image: Path | None = None,
    wanted: BenchRequest = BenchRequest(),
    clock: Clock = time.perf_counter,
    now: Callable[[], datetime] = _now,
) -> BenchReport:
    """Measure a model and report on it.

    Args:
        artefact: the model, see `artefact_of`.
        image: an image; None takes a made-up picture.
        wanted: what to measure.
        clock: seconds.
        now: the time of day, for the report.

    Raises:
        EngineError: the model cannot be run here.
        InputError: there is no such image.
    """
    frames = _frames(image)[:1]
    frame = frames[0].decode()
    with open_meters() as meters:
        found = bench_model(
            artefact,
            frame,
            effort=wanted.effort,
            throughput_s=wanted.throughput_s,
            batches=wanted.throughput_s > 0,
            meters=meters.found,
            clock=clock,
        )
    sustained = None
    if wanted.sustained_s > 0:
        sustained = sustain_model(artefact, frame, seconds=wanted.sustained_s, clock=clock)
    report = _report(artefact.files[0], (found,), frames, wanted, meters, now)
    return replace(report, sustained=sustained)


def _report(
    subject: Path,
    stages: tuple[ModelBench, ...],
    frames: Sequence[EncodedFrame],
    wanted: BenchRequest,
    meters: Meters,
    now: Callable[[], datetime],
) -> BenchReport:
    height, width = frames[0].decode().shape[:2]
    first = f"{frames[0].name} ({width}x{height})"
    return BenchReport(
        subject=str(subject),
        measured_at=now().isoformat(timespec="seconds"),
        frames=first if len(frames) == 1 else f"{len(frames)} images, the first {first}",
        pause_s=wanted.effort.pause_s,
        machine=measured_on(),
        stages=stages,
        no_energy=None if meters.found else meters.why_none,
    )


def _frames(image: Path | None) -> list[EncodedFrame]:
    return [made_up_frame()] if image is None else frames_from(image)
