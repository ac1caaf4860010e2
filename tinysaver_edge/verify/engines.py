"""Engines: does every model run here with the engine and precision that it was calibrated with?"""

from __future__ import annotations

from collections.abc import Iterator

from tinysaver_edge.artefact import bundled_artefacts
from tinysaver_edge.bundle import Bundle
from tinysaver_edge.engines.base import Engine
from tinysaver_edge.engines.registry import engine_version
from tinysaver_edge.errors import EngineError, MissingDependencyError
from tinysaver_edge.manifest import GoldenEntry, RanEntry
from tinysaver_edge.stage import Stage
from tinysaver_edge.verify.check import Check


def ran_by(engine: Engine) -> RanEntry:
    """Return what a model runs with, as the engine itself says once the model is open."""
    return RanEntry(
        engine=engine.name,
        release=engine_version(engine.name),
        device=engine.device,
        precision=engine.precision.value,
    )


def check_engines(stages: list[Stage], golden: GoldenEntry | None) -> Iterator[Check]:
    """Yield whether each stage runs as it did where the golden samples were made."""
    for position, stage in enumerate(stages):
        name = f"engine of {stage.policy.model}"
        here = ran_by(stage.engine)
        if golden is None or not golden.ran:
            yield Check(name, None, f"{_said(here)} here; not known where it was calibrated")
            continue
        yield _compare(name, golden.ran[position], here)


def _compare(name: str, kept: RanEntry, here: RanEntry) -> Check:
    for what in ("engine", "precision", "device"):
        before, now = getattr(kept, what), getattr(here, what)
        if before != now:
            verb = {"engine": "with", "precision": "in", "device": "on"}[what]
            return Check(
                name,
                False,
                f"was calibrated {verb} {before}, would run {verb} {now} here: its threshold does "
                f"not hold for that; calibrate {verb} {now}",
            )
    detail = _said(here)
    if kept.release != here.release:
        detail += f" ({here.release} here, calibrated with {kept.release})"
    return Check(name, True, detail)


def _said(one: RanEntry) -> str:
    return f"{one.engine} on {one.device} in {one.precision}"


def why_not_open(bundle: Bundle, error: EngineError | MissingDependencyError) -> Check:
    """Return which model of a bundle cannot be opened as it was calibrated."""
    for artefact in bundled_artefacts(bundle):
        try:
            artefact.open().close()
        except (EngineError, MissingDependencyError) as reason:
            way = f"{artefact.engine} on {artefact.options.device or 'CPU'}"
            precision = artefact.options.precision.value
            return Check(
                f"engine of {artefact.name}",
                False,
                f"was calibrated with {way} in {precision}, which cannot be had here: {reason}",
            )
    return Check("engines", False, str(error))
