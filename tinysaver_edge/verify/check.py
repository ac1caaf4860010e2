"""Check: one promise of a bundle that was looked at, and all of them; that engines are the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tinysaver_edge.artefact import bundled_artefacts
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.bundle.manifest import GoldenEntry, RanEntry
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.engines.base import Engine
from tinysaver_edge.engines.registry import engine_version
from tinysaver_edge.errors import (
    EngineError,
    MissingDependencyError,
    TooSlowError,
    VerificationError,
)

if TYPE_CHECKING:
    from tinysaver_edge.engines.remote.engine import RemoteEngine

LATENCY = "latency"
"""Name of the check that a device fails by being too slow, not by answering otherwise."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was compared.

    Attributes:
        passed: whether it agrees; None where there was nothing to compare with, or too little lies
            between the two to tell.
        detail: the figures, or why not.
        warning: whether a user should be told although nothing failed.
    """

    name: str
    passed: bool | None
    detail: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Verification:
    """All that was compared, in order."""

    bundle: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing disagrees."""
        return all(check.passed is not False for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values for JSON."""
        return {
            "bundle": self.bundle,
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
        }

    def raise_if_failed(self) -> None:
        """Refuse a bundle that disagrees.

        Raises:
            VerificationError: names the first thing that does.
            TooSlowError: the answers are right, but they take longer than was promised.
        """
        for check in self.checks:
            if check.passed is False:
                kind = TooSlowError if check.name == LATENCY else VerificationError
                raise kind(f"bundle {self.bundle}: {check.name}: {check.detail}")


def ran_by(engine: Engine) -> RanEntry:
    """Return what a model runs with, as the engine itself says once the model is open."""
    return RanEntry(
        engine=engine.name,
        release=engine_version(engine.name),
        device=engine.device,
        precision=engine.precision.value,
    )


def check_engines(stages: list[Stage], golden: GoldenEntry | None) -> Iterator[Check]:
    """Yield whether each stage runs as it did where the golden samples were made.

    What others serve is not held against an engine: its hosts have told what it is, and their
    answers are compared like any other's.
    """
    from tinysaver_edge.engines.remote.engine import RemoteEngine

    for position, stage in enumerate(stages):
        if isinstance(stage.engine, RemoteEngine):
            yield _check_hosts(stage.policy.model, stage.engine)
            continue
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


def _check_hosts(model: str, engine: RemoteEngine) -> Check:
    name = hosts_of(model)
    if engine.unproven:
        return Check(name, False, "; ".join(engine.unproven))
    detail = f"{engine.device}: {engine.identity}"
    if engine.doubt is not None:
        return Check(name, None, f"{detail}: not to be certified, {engine.doubt}", warning=True)
    return Check(name, True, f"{detail}, which is the model that was calibrated")


def hosts_of(model: str) -> str:
    """Name the check of the hosts that serve a model."""
    return f"hosts of {model}"


def _said(one: RanEntry) -> str:
    return f"{one.engine} on {one.device} in {one.precision}"


def why_not_open(
    bundle: Bundle, error: EngineError | MissingDependencyError, *, elsewhere: bool = False
) -> Check:
    """Return which model of a bundle cannot be opened as it was calibrated.

    Args:
        bundle: an open bundle.
        error: what kept it from being opened.
        elsewhere: whether the last model is served by hosts.
    """
    artefacts = bundled_artefacts(bundle, elsewhere=elsewhere)
    for artefact in artefacts[:-1] if elsewhere else artefacts:
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
    name = hosts_of(artefacts[-1].name) if elsewhere else "engines"
    return Check(name, False, str(error))
