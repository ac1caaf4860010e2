"""Fastest: a model file in the fastest way that agrees, of those that a device offers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.engine_choice import (
    ChoiceCache,
    Chosen,
    Runner,
    candidates,
    choose_engine,
    in_way,
    run_here,
)
from tinysaver_edge.bench.frames import frames_from, made_up_frame
from tinysaver_edge.bench.model import artefact_of
from tinysaver_edge.engines.base import EngineOptions, Precision
from tinysaver_edge.engines.registry import engine_for
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
        profile: the device whose engines are tried; None for those that this machine has.
        run: does one run, perhaps in a process of its own.

    Raises:
        DescriptionError: it has no description, or a wrong one.
        EngineError: it cannot be run in any way.
        InputError: there is no such image.
    """
    told = artefact_of(model, descriptions=descriptions, engine=engine_for(model), threads=threads)
    said = find_description(model, descriptions_dir=descriptions)
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
