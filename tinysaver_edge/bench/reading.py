"""Reading: what `bench` measured, perhaps on another device, for a calibration to go by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.report import SCHEMA_VERSION
from tinysaver_edge.engines.registry import engine_class
from tinysaver_edge.errors import InputError
from tinysaver_edge.latency import CascadeLatency, LatencySamples

RunsAs = tuple[str, str, str, str]
"""What a latency holds for: a model's sha256, engine, device and precision."""


@dataclass(frozen=True, slots=True)
class MeasuredStage:
    """One model of a report.

    Attributes:
        latency: warm runs with the resize and the score.
        loaded_mb: memory that it took, or None.
    """

    latency: LatencySamples
    loaded_mb: float | None


@dataclass(frozen=True, slots=True)
class MeasuredReport:
    """What a report holds.

    Attributes:
        path: the file.
        measured_at: when, as ISO 8601.
        processor: what it was measured on, as that calls itself.
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


def read_report(path: Path) -> MeasuredReport:
    """Read a report of `bench`.

    Raises:
        InputError: the file cannot be read, or was written by a newer release.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] > SCHEMA_VERSION:
            raise InputError(f"bench report {path}: was written by a newer release; upgrade")
        stages = {
            (one["sha256"], one["engine"], one["device"], one["precision"]): MeasuredStage(
                LatencySamples.from_dict(one["stage"]), one["loaded_mb"]
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
