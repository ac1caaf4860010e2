"""Where the figures come from: everything that a second run needs to find them again."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.files import sha256_of
from tinysaver_edge._support.text import for_people
from tinysaver_edge._version import __version__
from tinysaver_edge.calibrate.measured.given_records import measured_path
from tinysaver_edge.calibrate.plan import ImageInput, ModelFile, Plan, RecordInput
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.records.records import record_path

if TYPE_CHECKING:
    from tinysaver_edge.artefact import Artefact

_PACKAGES = ("numpy", "scipy", "onnxruntime", "onnxruntime-gpu", "openvino", "opencv-python")


@dataclass(frozen=True, slots=True)
class ModelOrigin:
    """One model as it was measured.

    Attributes:
        parameters: number of weights, or None.
        runs_on: engine, device and precision, or what else is known.
        takes: size, resize and codec of its picture, or None.
        sha256: hash of the file that was measured, or of its record.
        source_sha256: hash of the file that the user gave, or None.
    """

    name: str
    macs: float
    parameters: int | None
    runs_on: str
    takes: str | None
    sha256: str
    source_sha256: str | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Everything needed to reproduce a calibration.

    Attributes:
        command: the command line, or None where it was run from a program.
        created: when, as text, or None.
        asked: (name, value) of all that decides what is found.
        versions: (package, version) of what ran.
    """

    command: str | None
    created: str | None
    asked: tuple[tuple[str, str], ...]
    data: tuple[tuple[str, str], ...]
    models: tuple[ModelOrigin, ...]
    versions: tuple[tuple[str, str], ...]


def origin(
    plan: Plan,
    *,
    macs: Mapping[str, float],
    artefacts: Mapping[str, Artefact],
    data: DataSource | None,
    command: str | None,
    created: datetime | None,
) -> Origin:
    """Gather what a second run needs."""
    return Origin(
        command=command,
        created=None if created is None else created.isoformat(sep=" ", timespec="minutes"),
        asked=tuple(_asked(plan)),
        data=tuple(_samples(plan.input, data)),
        models=tuple(_model(name, cost, plan, artefacts) for name, cost in macs.items()),
        versions=tuple(_versions()),
    )


def _asked(plan: Plan) -> Sequence[tuple[str, str]]:
    drop = plan.targets.allowed_drop_points
    rows = [
        *_plain("", plan.targets),
        ("drop in force", "none, budgets only" if drop is None else f"{drop:g} points"),
        ("objective in force", plan.targets.aim.value),
        ("hold-out", f"{plan.holdout:g}"),
        ("seed", str(plan.seed)),
    ]
    return [*rows, *_plain("", plan.input)]


def _plain(prefix: str, values: object) -> list[tuple[str, str]]:
    """Return a value object's fields as words, those that say nothing left out."""
    rows: list[tuple[str, str]] = []
    if not is_dataclass(values):
        return rows
    for one in fields(values):
        value, name = getattr(values, one.name), f"{prefix}{one.name.replace('_', ' ')}"
        if isinstance(value, ModelFile) or (isinstance(value, tuple) and not value):
            value = getattr(value, "path", None)
        if value is None:
            continue
        if is_dataclass(value):
            rows += _plain(f"{name}: ", value)
        else:
            rows.append((name, _words(value)))
    return rows


def _words(value: Any) -> str:  # noqa: ANN401 - any field of a plan
    if isinstance(value, (tuple, list)):
        return ", ".join(map(_words, value))
    if isinstance(value, (ModelFile, DataSource)):
        return str(value.path)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return for_people(str(value), None)


def _samples(given: ImageInput | RecordInput, data: DataSource | None) -> list[tuple[str, str]]:
    if isinstance(given, ImageInput):
        if data is None:
            return []
        return [("images", f"{len(data):,}"), ("fingerprint", data.fingerprint())]
    if given.macs is None:
        return [("what was measured, sha256", _hash(measured_path(given.records)))]
    labels = "the large model's answers" if given.labels is None else _hash(given.labels)
    return [("labels, sha256", labels), ("MACs table, sha256", _hash(given.macs))]


def _model(name: str, macs: float, plan: Plan, artefacts: Mapping[str, Artefact]) -> ModelOrigin:
    artefact = artefacts.get(name)
    if artefact is None:
        given = plan.input
        place = record_path(given.records, name) if isinstance(given, RecordInput) else None
        digest = "not known" if place is None else _hash(place)
        return ModelOrigin(name, macs, None, "a record of its answers", None, digest, None)
    options, resize = artefact.options, artefact.preprocess.resize
    return ModelOrigin(
        name=name,
        macs=macs,
        parameters=artefact.parameters,
        runs_on=", ".join(filter(None, (artefact.engine, options.device, options.precision.value))),
        takes=", ".join(
            (
                f"{resize.width}×{resize.height}",
                resize.policy.value,
                *(() if artefact.codec is None else (str(artefact.codec),)),
            )
        ),
        sha256=artefact.sha256,
        source_sha256=artefact.source_sha256,
    )


def _hash(path: Path) -> str:
    return sha256_of(path) if path.is_file() else "no longer there"


def _versions() -> list[tuple[str, str]]:
    found = [("tinysaver-edge", __version__), ("Python", platform.python_version())]
    for package in _PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return [*found, ("machine", f"{platform.system()} {platform.machine()}")]
