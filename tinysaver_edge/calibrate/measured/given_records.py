"""Given records: those that a user brings, and those that `measure` made, perhaps on a device.

What `measure` leaves is all that a calibration needs, so that it can be done on another machine:
records, the models as they were run, what they cost, labels, and samples with their answers.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import (
    atomic_write,
    read_arrays,
    read_file,
    read_text,
    write_text,
)
from tinysaver_edge._version import __version__
from tinysaver_edge.artefact import Artefact, combined_sha256
from tinysaver_edge.calibrate.calibration import CodecCost
from tinysaver_edge.calibrate.measured.independence import Independence
from tinysaver_edge.calibrate.plan import RecordInput
from tinysaver_edge.calibrate.problem import (
    GoldenModel,
    GoldenSamples,
    MeasuredProblem,
    ModelAnswers,
    PairTiming,
    Problem,
    join_records,
)
from tinysaver_edge.calibrate.targets import Method
from tinysaver_edge.data.alike import find_alike
from tinysaver_edge.data.files import CsvLineError, csv_rows
from tinysaver_edge.data.looks import Looks, kept_looks
from tinysaver_edge.errors import DataError, InputError, RecordError
from tinysaver_edge.latency import CascadeLatency, LatencySamples
from tinysaver_edge.outputs import sample_hashes
from tinysaver_edge.records.measure import record_name
from tinysaver_edge.records.records import (
    find_repeated,
    load_record,
    read_groups,
    read_labels,
    record_names,
)

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class MeasuredRecords:
    """What is known of records that `measure` made, beside the records themselves.

    Attributes:
        machine: where, for people.
        processor: its kind; None where it is not known.
        labelled: whether the images had labels; else the large model's answers stand for them.
        savers: names of the others, as they were given.
        artefacts: all of them by name, their files below the folder.
        large_latency: of the large model alone, or None.
        large_memory_mb: what it adds to the process, or None.
        sent_bytes: mean size of what is sent of a frame, or None.
        pairs: of each saver with the large model, the rounds of timing and their memory.
        codec_cost: what its codec costs the large model, or None.
        cut: what was left out of each collected frame, in words, or None.
        lost: savers that were not measured, and why.
        golden_samples: positions of the frames that were kept.
        golden_models: of these, what each model ran with.
    """

    created_by: str
    machine: str
    processor: str | None
    labelled: bool
    large: str
    savers: tuple[str, ...]
    artefacts: Mapping[str, Artefact]
    label_names: tuple[str, ...] | None = None
    large_latency: Mapping[str, Any] | None = None
    large_memory_mb: float | None = None
    sent_bytes: float | None = None
    pairs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    codec_cost: CodecCost | None = None
    cut: str | None = None
    lost: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    stated: tuple[str, ...] = ()
    golden_samples: tuple[int, ...] = ()
    golden_models: Mapping[str, GoldenModel] = field(default_factory=dict)
    schema_version: int = _SCHEMA


def measured_path(folder: Path) -> Path:
    """Return where `measure` says what its records are of."""
    return folder / "measured.json"


def _samples_path(folder: Path) -> Path:
    return folder / "images" / "samples.npz"


def machine() -> str:
    """Say in a few words what this machine is."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def write_measured(folder: Path, found: MeasuredProblem, *, labelled: bool) -> None:
    """Write what is known of the records in a folder, the models' files beside them."""
    problem = found.problem
    measured_path(folder).unlink(missing_ok=True)  # an old one must not vouch for what follows
    tables: dict[str, NDArray[Any]] = {"index": found.sample_index, "labels": problem.labels}
    tables |= {} if problem.groups is None else {"groups": problem.groups}
    tables |= {} if found.content is None else {"content": found.content}
    _samples_path(folder).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(_samples_path(folder)) as file:
        np.savez(file, **tables)  # type: ignore[arg-type]
    golden = found.golden
    latency = problem.large.latency
    measured = MeasuredRecords(
        created_by=f"tinysaver-edge {__version__}",
        machine=machine(),
        processor=found.processor,
        labelled=labelled,
        large=problem.large.name,
        savers=tuple(saver.name for saver in problem.savers),
        artefacts={
            model.name: _below(folder, found.artefacts[model.name])
            for model in (problem.large, *problem.savers)
        },
        label_names=found.label_names,
        large_latency=None if latency is None else latency.to_dict(),
        large_memory_mb=problem.large.memory_mb,
        sent_bytes=problem.large.sent_bytes,
        pairs={
            saver.name: {
                "memory_mb": saver.with_large.memory_mb,
                "rounds": [one.to_dict() for one in saver.with_large.rounds],
            }
            for saver in problem.savers
            if saver.with_large is not None
        },
        codec_cost=found.codec_cost,
        cut=found.cut,
        lost=found.lost,
        warnings=found.warnings,
        stated=found.stated,
        golden_samples=() if golden is None else golden.samples,
        golden_models={} if golden is None else golden.models,
    )
    write_text(measured_path(folder), _adapter().dump_json(measured, indent=2).decode() + "\n")


def _below(folder: Path, artefact: Artefact) -> Artefact:
    """Return a model with its files below a folder, named from there on; copied where need be."""
    placed = []
    for file in artefact.files:
        place = PurePosixPath("models", artefact.name, file.name)
        if file.resolve() != (folder / place).resolve():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / place)
        placed.append(Path(place))
    return replace(artefact, files=tuple(placed))


def read_measured(folder: Path) -> MeasuredRecords | None:
    """Return what is known of a folder's records; None where a user brings them.

    Raises:
        RecordError: it is damaged, or written by a newer release.
    """
    path = measured_path(folder)
    if not path.is_file():
        return None
    try:
        measured = _adapter().validate_json(read_file(path))
    except (OSError, ValueError) as error:
        raise RecordError(
            f"records {path}: damaged, or of another release ({_brief(error)}): measure again"
        ) from error
    if measured.schema_version != _SCHEMA:
        raise RecordError(
            f"records {path}: of form {measured.schema_version}, made by {measured.created_by}; "
            f"this release reads {_SCHEMA}"
        )
    for artefact in measured.artefacts.values():
        for file in artefact.files:
            if file.is_absolute() or ".." in file.parts:
                raise RecordError(f"records {path}: {artefact.name}: {file} leaves the folder")
    return measured


def _brief(error: Exception) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):  # whose own words are many lines
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    return " ".join(str(error).split())[:200]


def from_measured(given: RecordInput, measured: MeasuredRecords) -> MeasuredProblem:
    """Read what `measure` left, as if it had been measured here.

    Raises:
        InputError: a model is named that was not measured.
        RecordError: a file is missing, damaged, or not the one that was measured.
    """
    folder = given.records
    if given.macs is not None or given.groups is not None:
        raise InputError(
            f"records {folder}: `measure` made them, MACs and groups are there: leave --macs and "
            "--groups out"
        )
    large = given.large or measured.large
    savers = measured.savers if given.savers in ((), ("all",)) else given.savers
    if large != measured.large or not set(savers) <= set(measured.savers):
        raise InputError(
            f"records {folder}: measured were {measured.large} as the large model and "
            f"{', '.join(measured.savers)}: name these, or leave --large and --saver out"
        )
    artefacts = {name: _checked(folder, measured, name) for name in (large, *savers)}
    tables = _samples(folder)
    records = [
        replace(load_record(folder, record_name(name, artefacts[name].codec)), name=name)
        for name in (large, *savers)
    ]
    for record in records:
        if record.key is None or record.key.model_sha256 != artefacts[record.name].sha256:
            raise RecordError(
                f"record {record.name} in {folder}: not of the model that lies beside it: measure "
                "again"
            )
    samples, index = records[0].outputs.samples, tables["index"]
    labels, groups = np.zeros(samples, np.int64), None
    labels[index] = tables["labels"]
    if given.labels is not None:
        labels = read_labels(given.labels)
    if "groups" in tables:
        groups = np.zeros(samples, tables["groups"].dtype)
        groups[index] = tables["groups"]
    costs = {name: one.macs or 0.0 for name, one in artefacts.items()}
    problem, kept = join_records(records, costs, labels, groups)
    problem = problem.subset(np.flatnonzero(np.isin(kept, index)))
    if given.labels is None and not (measured.labelled and given.labelled):
        problem = replace(problem, labels=problem.large.outputs.predictions)
    latency = measured.large_latency
    return MeasuredProblem(
        problem=replace(
            problem,
            large=replace(
                problem.large,
                latency=None if latency is None else LatencySamples.from_dict(latency),
                memory_mb=measured.large_memory_mb,
                sent_bytes=measured.sent_bytes,
            ),
            savers=tuple(_timed(one, measured.pairs.get(one.name)) for one in problem.savers),
        ),
        sample_index=index,
        artefacts=artefacts,
        label_names=measured.label_names,
        lost=measured.lost,
        codec_cost=measured.codec_cost,
        cut=measured.cut,
        warnings=measured.warnings,
        stated=measured.stated,
        content=tables.get("content"),
        processor=measured.processor,
        machine=measured.machine,
        golden=_golden(folder, measured),
    )


def _checked(folder: Path, measured: MeasuredRecords, name: str) -> Artefact:
    artefact = measured.artefacts[name]
    artefact = replace(artefact, files=tuple(folder / file for file in artefact.files))
    try:
        same = combined_sha256(artefact.files) == artefact.sha256
    except OSError as error:
        raise RecordError(f"records {folder}: {error.filename}: {error.strerror}") from error
    if not same:
        raise RecordError(
            f"records {folder}: {artefact.files[0]} was written to since it was measured: measure "
            "again"
        )
    return artefact


def _samples(folder: Path) -> dict[str, NDArray[Any]]:
    path = _samples_path(folder)
    try:
        tables = read_arrays(path)
        return {**tables, "index": tables["index"].astype(np.int64), "labels": tables["labels"]}
    except (OSError, ValueError, KeyError) as error:
        raise RecordError(f"records {path}: damaged ({error!r}): measure again") from error


def _timed(saver: ModelAnswers, timed: Mapping[str, Any] | None) -> ModelAnswers:
    if timed is None:
        return saver
    rounds = tuple(CascadeLatency.from_dict(one) for one in timed["rounds"])
    pair = PairTiming(CascadeLatency.joined(rounds), timed["memory_mb"], rounds)
    return replace(saver, with_large=pair)


def golden_folder(folder: Path) -> Path:
    """Return where `measure` keeps samples with their answers."""
    return folder / "golden"


def _golden(folder: Path, measured: MeasuredRecords) -> GoldenSamples | None:
    if not measured.golden_samples:
        return None
    return GoldenSamples(golden_folder(folder), measured.golden_samples, measured.golden_models)


def _adapter() -> TypeAdapter[MeasuredRecords]:
    from pydantic import TypeAdapter

    return TypeAdapter(MeasuredRecords)


def check_copies(
    problem: Problem,
    *,
    where: str,
    method: Method,
    stated: bool,
    numbered: NDArray[np.int64],
    looks: Looks | None = None,
) -> Independence:
    """Refuse to promise anything on samples that were written several times, or on a clip's frames.

    Args:
        problem: the records' answers.
        where: the records, for people.
        method: how the threshold is found; one that promises nothing is only warned.
        stated: whether the user vouches for the samples' independence.
        numbered: ``(n,)`` positions of the samples in the records.
        looks: the images that the records are of, where they were looked at.

    Raises:
        DataError: there are too many copies, and nobody says that they are none.
    """
    models = (problem.large, *problem.savers)
    found = find_repeated([one.outputs for one in models], problem.labels, problem.groups)
    alike, brief = None, found.brief
    names = [] if looks is None else [f"sample {place}" for place in range(len(looks.content))]
    if found.independent and looks is not None and problem.groups is None:
        classes = dict(zip(numbered.tolist(), problem.labels.tolist(), strict=True))
        labels = [str(classes.get(place, "")) for place in range(len(looks.content))]
        alike = find_alike(looks, names, labels)
    if found.independent and (alike is None or alike.independent):
        return Independence()
    said = brief
    if alike is not None:
        said, brief = alike.text(names), alike.brief
    elif found.repeated and found.example is not None:
        one, other = (int(numbered[place]) for place in found.example)
        said += f": every model answers samples {one} and {other} alike to the last digit"
    if stated:
        line = f"{said}; they count as independent, as --independent says"
        return Independence((line,), f"that its samples are independent, although {brief}")
    if method in (Method.EMPIRICAL, Method.TINYSAVER):
        return Independence((f"{said}: the figures rest on fewer samples than they seem to",))
    raise DataError(
        f"records {where}: {said}. A certificate counts independent samples, and these are not. "
        f"Take copies out; name each sample's clip or scene with --groups; or, where they are "
        f"different images after all, say --independent: the certificate then states that it is "
        f"your word"
    )


def from_records(given: RecordInput) -> tuple[MeasuredProblem, Looks | None]:
    """Read records, labels and MACs that the user brings.

    Returns:
        The answers, and the images where a calibration had looked at them when it measured these.

    Raises:
        InputError: a file is missing, damaged or does not fit the others.
    """
    if given.macs is None or given.large is None:
        raise InputError(f"records {given.records}: MACs and the large model's name are needed")
    costs = read_macs(given.macs)
    names = _saver_names(given, costs)
    for name in (given.large, *names):
        if name not in costs:
            known = ", ".join(costs) or "none"
            raise InputError(f"macs {given.macs}: no row for model {name}; rows there: {known}")
    records = [load_record(given.records, name) for name in (given.large, *names)]
    labels = records[0].outputs.predictions if given.labels is None else read_labels(given.labels)
    groups = None if given.groups is None else read_groups(given.groups)
    problem, kept = join_records(records, costs, labels, groups)
    content = np.zeros(len(labels), np.uint64)
    content[kept] = sample_hashes([problem.large.outputs])
    looks = None if records[0].key is None else kept_looks(given.records, records[0].key.data)
    return MeasuredProblem(problem=problem, sample_index=kept, content=content), looks


def _saver_names(given: RecordInput, costs: dict[str, float]) -> tuple[str, ...]:
    if given.savers != ("all",):
        return given.savers
    if given.large not in record_names(given.records):
        raise InputError(
            f"records {given.records}: no {given.large}.npz; records there: "
            f"{', '.join(record_names(given.records)) or 'none'}"
        )
    limit = costs.get(given.large, 0.0)
    names = [name for name in record_names(given.records) if costs.get(name, limit) < limit]
    if not names:
        raise InputError(
            f"records {given.records}: no model there has a row in {given.macs} with fewer MACs "
            f"than {given.large}"
        )
    return tuple(sorted(names, key=lambda name: costs[name]))


def read_macs(path: Path) -> dict[str, float]:
    """Read MACs by model name from a table with columns ``name`` and ``macs``.

    Raises:
        RecordError: the file is missing, or a column or number is.
    """
    try:
        rows = list(csv_rows(read_text(path).splitlines()))
    except UnicodeDecodeError as error:
        raise RecordError(f"macs {path}: no text; expected CSV with columns name, macs") from error
    except OSError as error:
        raise RecordError(f"macs {path}: not readable ({error})") from error
    except CsvLineError as error:
        raise RecordError(f"macs {path}, line {error.line}: not CSV ({error})") from error
    filled = [(number, cells) for number, cells in rows if cells]
    header = filled[0][1] if filled else []
    if len(filled) > 1 and not {"name", "macs"} <= set(header):
        raise RecordError(f"macs {path}: needs columns name and macs, has {', '.join(header)}")
    costs: dict[str, float] = {}
    for number, cells in filled[1:]:
        cells += [""] * (len(header) - len(cells))
        row = dict(zip(header, cells, strict=False))
        name = row["name"].strip()
        if name in costs:
            raise RecordError(f"macs {path}, line {number}: {name} is there twice")
        try:
            costs[name] = float(row["macs"])
        except ValueError:
            raise RecordError(
                f"macs {path}, line {number}: {row['macs']!r} is not a number"
            ) from None
    if not costs:
        raise RecordError(f"macs {path}: no rows")
    return costs
