"""Bench reports: what was measured and on which machine, written as JSON and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinysaver_edge._support.files import check_file_target, parse_json, read_text, write_text
from tinysaver_edge._version import __version__
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.bundle import BundleBench
from tinysaver_edge.bench.engine_choice import Chosen
from tinysaver_edge.bench.model import ModelBench
from tinysaver_edge.bench.throughput import Sustained
from tinysaver_edge.engines.registry import engine_class, engine_names, engine_version
from tinysaver_edge.errors import InputError
from tinysaver_edge.hardware.probe import machine
from tinysaver_edge.latency import CascadeLatency, LatencySamples

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What was measured.

    Attributes:
        subject: path of the model or bundle.
        measured_at: when, as ISO 8601 in UTC.
        frames: what it was measured with, in words.
        pause_s: idleness before each run, in seconds.
        bundle: the whole, or None where a model alone was measured.
        sustained: a long run, or None where none was asked for.
        chosen: how the engine was chosen, or None where it was not.
        no_energy: why energy was not counted; None where it was.
    """

    subject: str
    measured_at: str
    frames: str
    pause_s: float
    machine: Mapping[str, Any]
    stages: tuple[ModelBench, ...]
    bundle: BundleBench | None = None
    sustained: Sustained | None = None
    chosen: Chosen | None = None
    no_energy: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        whole = self.bundle
        return {
            "schema_version": SCHEMA_VERSION,
            "created_by": f"tinysaver-edge {__version__}",
            "subject": self.subject,
            "measured_at": self.measured_at,
            "frames": self.frames,
            "pause_s": self.pause_s,
            "machine": dict(self.machine),
            "stages": [one.to_dict() for one in self.stages],
            "load_s": None if whole is None else whole.load_s,
            "end_to_end": None if whole is None else whole.end_to_end.to_dict(),
            "sustained": None if self.sustained is None else self.sustained.to_dict(),
            "no_energy": self.no_energy,
            "engine_choice": None if self.chosen is None else self.chosen.to_dict(),
        }

    def write(self, path: Path) -> None:
        """Write it as JSON, replacing an older one."""
        write_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")


def measured_on() -> dict[str, Any]:
    """Return what tells one measurement's place from another's: the machine, and its engines."""
    releases = {name: engine_version(name) for name in engine_names()}
    there = {name: release for name, release in releases.items() if release is not None}
    return machine() | {"engines": there}


def report_path(bundle: Path) -> Path:
    """Return where a bundle's report lies: beside it, as ``NAME.bench.json``."""
    name = bundle.resolve().name
    return bundle.resolve().with_name(f"{name.removesuffix('.zip')}.bench.json")


RunsAs = tuple[str, str, str, str]
"""What a latency holds for: a model's sha256, engine, device and precision."""


@dataclass(frozen=True, slots=True)
class MeasuredStage:
    """One model of a report.

    Attributes:
        latency: warm runs with the resize and the score.
        loaded_mb: memory that it took, or None.
        energy_mj: millijoules a frame, idling included; None where no counter told.
        batch_ms: warm runs of the model alone on so many frames; none where it was not measured.
    """

    latency: LatencySamples
    loaded_mb: float | None
    energy_mj: float | None = None
    energy_by: str | None = None
    batch_ms: Mapping[int, LatencySamples] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MeasuredReport:
    """What a report holds.

    Attributes:
        measured_at: when, as ISO 8601.
        stages: each model apart, in the order of the cascade.
        pair: the two ways that a frame takes through a cascade of two, or None.
    """

    path: Path
    measured_at: str
    processor: str
    stages: Mapping[RunsAs, MeasuredStage]
    pair: CascadeLatency | None

    def pair_of(self, saver: Artefact, large: Artefact) -> CascadeLatency | None:
        """Return how long a saver and a large model take together, None where that is not known.

        Where the report is of the cascade of these two, that is what was measured; else what each
        takes alone is added up.
        """
        keys = (runs_as(saver), runs_as(large))
        if self.pair is not None and tuple(self.stages) == keys:
            return self.pair
        both = [self.stages.get(key) for key in keys]
        first, last = both
        if first is None or last is None:
            return None
        return CascadeLatency.of(first.latency, last.latency)


def runs_as(model: Artefact) -> RunsAs:
    """Return what a report knows a model by."""
    device = engine_class(model.engine).full_device(model.options.device)
    return (model.sha256, model.engine, device, model.options.precision.value)


def check_report_target(path: Path) -> None:
    """Refuse to write a report where none may stand: over a file, say, that is no earlier one.

    Raises:
        InputError: something else of this name is there, or its folder cannot be written to.
    """
    check_file_target(path, ours=_is_report)


def _is_report(path: Path) -> bool:
    try:
        return {"schema_version", "subject", "measured_at", "stages"} <= set(
            parse_json(read_text(path))
        )
    except (OSError, TypeError, ValueError):
        return False


def read_report(path: Path) -> MeasuredReport:
    """Read a report of `bench`.

    Raises:
        InputError: the file cannot be read, or was written by a newer release.
    """
    try:
        content = parse_json(read_text(path))
        if content["schema_version"] > SCHEMA_VERSION:
            raise InputError(f"bench report {path}: was written by a newer release; upgrade")
        stages = {
            (one["sha256"], one["engine"], one["device"], one["precision"]): MeasuredStage(
                LatencySamples.from_dict(one["stage"]),
                one["loaded_mb"],
                # A report of an earlier release has neither.
                energy_mj=(one.get("energy") or {}).get("mj"),
                energy_by=(one.get("energy") or {}).get("source"),
                batch_ms={
                    int(size): LatencySamples.from_dict(of)
                    for size, of in one.get("batches", {}).items()
                },
            )
            for one in content["stages"]
        }
        return MeasuredReport(
            path=path,
            measured_at=str(content["measured_at"]),
            processor=str(content["machine"]["processor"]),
            stages=stages,
            pair=_pair(content["end_to_end"]),
        )
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"bench report {path}: has no {error.args[0]}; bench anew") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"bench report {path}: cannot be read ({error}); bench anew") from error


def _pair(end_to_end: Mapping[str, Any] | None) -> CascadeLatency | None:
    if end_to_end is None or None in (end_to_end["accepted"], end_to_end["escalated"]):
        return None
    return CascadeLatency(
        LatencySamples.from_dict(end_to_end["accepted"]),
        LatencySamples.from_dict(end_to_end["escalated"]),
    )
