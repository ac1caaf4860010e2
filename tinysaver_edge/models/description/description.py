"""What the runtime must know of a model beside its file: read from TOML, metadata or a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tinysaver_edge._support.files import NOT_OURS, check_file_target, parse_toml, read_text
from tinysaver_edge.data.source import one_spelling
from tinysaver_edge.engines.base import Precision
from tinysaver_edge.engines.model_file import check_model_file, external_files
from tinysaver_edge.errors import DescriptionError, InputError, TinySaverError
from tinysaver_edge.models.description.carried import read_metadata
from tinysaver_edge.models.description.facts import FileFacts, read_facts
from tinysaver_edge.models.description.schema import (
    DescriptionTable,
    InputTable,
    OutputTable,
    complaint,
    to_affine,
    unfilled,
)
from tinysaver_edge.models.labels import read_labels
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import InputFormat, Preprocess, Resize

METADATA_KEY = "tinysaver_edge.description"
"""Key of a file's metadata that holds a description, as the text of its TOML."""

_MADE_BY = "# made by tinysaver-edge "


def made_by(command: str, text: str) -> dict[str, str]:
    """Return the metadata of a file that a command makes.

    Args:
        command: such as ``"models quantize"``.
        text: the description, as TOML.
    """
    return {METADATA_KEY: f"{_MADE_BY}{command}\n{text}"}


def check_model_target(out: Path, *, command: str) -> None:
    """Refuse to write a model over one that the same command did not make, or over its weights.

    Args:
        out: the file to open; weights may lie beside it.
        command: as for `made_by`.

    Raises:
        InputError: another's file is there.
    """

    def is_ours(path: Path) -> bool:
        try:
            text = read_metadata(path).get(METADATA_KEY)
        except (TinySaverError, OSError):
            return False
        if text is None:
            return False
        if text.startswith(_MADE_BY):
            return text.partition("\n")[0] == _MADE_BY + command
        # Of an earlier release: only quantising notes images.
        return ("fitted_on" in text) == (command == "models quantize")

    check_file_target(out, ours=is_ours)
    weights = {out.with_suffix(".bin")} if out.suffix == ".xml" else set()
    if out.suffix == ".onnx" and out.parent.is_dir():
        weights = {one for one in out.parent.iterdir() if one.name.startswith(f"{out.name}.data")}
    there = out.is_file() and out.stat().st_size
    for one in sorted(weights - set(external_files(out) if there else ())):
        if one.exists():
            raise InputError(
                f"--out {out}: its weights would lie in {one.name}, where {NOT_OURS}; move it, or "
                "name a new one"
            )


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model file and what the runtime must know of it.

    Attributes:
        file: the model's file.
        name: what it is called in tables and bundles; the file's stem where nothing is said.
        preprocess: how a frame becomes its input.
        output: how it states its answer.
        labels: class names as they were given, background included where the source has it; see
            `class_labels`. None where there are none.
        macs: multiply-accumulates a sample, or None where they are to be counted.
        published_top1: accuracy in percent as its makers state it, or None; it only decides which
            savers are worth measuring.
        engine: the engine to run it with, or None for the one that fits.
        device: that engine's device, or None for its CPU.
        precision: the arithmetic to run it in, or None for float32.
        fitted_on: hashes of the images that its numbers' ranges were found on, see `data.seen`.
        source: where the description was read, for messages.
    """

    file: Path
    name: str
    preprocess: Preprocess
    output: OutputFormat
    labels: tuple[str, ...] | None = None
    macs: float | None = None
    published_top1: float | None = None
    engine: str | None = None
    device: str | None = None
    precision: Precision | None = None
    fitted_on: tuple[str, ...] = ()
    source: str = ""

    def class_labels(self, classes: int) -> tuple[str, ...] | None:
        """Return one name a class, the names of what `output` leaves out dropped.

        Args:
            classes: how many classes the engine answers with.

        Raises:
            DescriptionError: there are more or fewer names than that.
        """
        if self.labels is None or len(self.labels) == classes:
            return self.labels
        if len(self.labels) == classes + self.output.class_offset:
            return self.labels[self.output.class_offset :]
        raise DescriptionError(
            f"{self.source}: has {len(self.labels)} labels where {self.file.name} has {classes} "
            f"classes (class_offset = {self.output.class_offset}): correct labels or class_offset"
        )


def find_description(
    model: Path, *, descriptions_dir: Path | None = None, output: str | None = None
) -> ModelDescription:
    """Find a model's description: beside it, in a folder of descriptions, or in its metadata.

    Args:
        model: the model's file, say ``resnet56.onnx``.
        descriptions_dir: a folder that may hold ``resnet56.toml`` (or ``resnet56.onnx.toml``, where
            two files share a stem).
        output: name of the output that holds the classes, before what the description says.

    Raises:
        DescriptionError: there is none, or it is incomplete or wrong.
        ModelError: the model's file is missing or damaged.
    """
    check_model_file(model)
    if descriptions_dir is not None and not descriptions_dir.is_dir():
        raise DescriptionError(f"--descriptions {descriptions_dir}: no such folder")
    folders = [model.parent] if descriptions_dir is None else [model.parent, descriptions_dir]
    for folder in folders:
        for name in (f"{model.name}.toml", f"{model.stem}.toml"):
            if (folder / name).is_file():
                return read_description(folder / name, model, output=output)
    if (text := read_metadata(model).get(METADATA_KEY)) is not None:
        source = f"{model} (metadata)"
        table = _with_output(parse_description(text, source), output)
        return description_from(table, model, folder=model.parent, source=source, confined=True)
    raise DescriptionError(
        f"model {model} has no description: there is no {model.stem}.toml in "
        f"{' or '.join(map(str, folders))}; write one with "
        f"'tinysaver-edge models describe {model} --out {model.with_suffix('.toml')}'"
    )


def _with_output(table: dict[str, Any], name: str | None) -> dict[str, Any]:
    said = table.get("output")
    if name is None or not isinstance(said, dict):
        return table
    return {**table, "output": {**said, "name": name}}


def read_description(path: Path, model: Path, *, output: str | None = None) -> ModelDescription:
    """Read a description from a TOML file.

    Raises:
        DescriptionError: the file cannot be read, or a field is missing, unknown or wrong.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DescriptionError(f"description {path} cannot be read: {error}") from error
    table = _with_output(parse_description(text, str(path)), output)
    return description_from(table, model, folder=path.parent, source=str(path))


def description_from(
    table: Mapping[str, Any], model: Path, *, folder: Path, source: str, confined: bool = False
) -> ModelDescription:
    """Make a description of a table, as a TOML file or a recipe holds it.

    Args:
        table: the fields.
        model: the model's file.
        folder: where a file of labels is looked for, before the model's own folder.
        source: where the table stands, for messages.
        confined: refuse a file of labels outside these folders: the table came with the model.

    Raises:
        DescriptionError: a field is missing, unknown or wrong.
    """
    if open_fields := unfilled(dict(table)):
        raise DescriptionError(
            f'{source}: still to be filled in: {", ".join(open_fields)} (marked "?")'
        )
    try:
        checked = DescriptionTable.model_validate(dict(table))
    except ValidationError as error:
        raise DescriptionError(f"{source}: {complaint(error)}") from error
    looked_into = _needs_facts(checked) and model.suffix != ".safetensors"
    facts = read_facts(model, output=checked.output.name) if looked_into else None
    try:
        preprocess = _preprocess(checked.input, facts)
    except InputError as error:
        raise DescriptionError(f"{source}: {error}") from error
    labels = checked.labels
    if isinstance(labels, str):
        labels = read_labels(labels, (folder, model.parent), source=source, confined=confined)
    return ModelDescription(
        file=model,
        name=checked.name or model.stem,
        preprocess=preprocess,
        output=_output(checked.output, facts),
        labels=None if labels is None else tuple(one_spelling(label) for label in labels),
        macs=checked.macs,
        published_top1=checked.published_top1,
        engine=checked.engine,
        device=checked.device,
        precision=checked.precision,
        fitted_on=checked.fitted_on,
        source=source,
    )


def parse_description(text: str, source: str) -> dict[str, Any]:
    """Return what a TOML text holds.

    Raises:
        DescriptionError: it is no valid TOML.
    """
    try:
        return parse_toml(text)
    except ValueError as error:
        raise DescriptionError(f"{source}: no valid TOML: {error}") from error


def _needs_facts(table: DescriptionTable) -> bool:
    """Whether something is left to the file: quantisation of its input or its answer."""
    integers = table.input.dtype.startswith(("int", "uint"))
    return table.input.scale.kind == "quantized" or (integers and not table.output.quantization)


def _preprocess(table: InputTable, facts: FileFacts | None) -> Preprocess:
    quantization = facts.input_quantization if facts is not None else None
    multiply, add = to_affine(table.scale, table.color, quantization)
    height, width = table.size
    resize = table.resize
    return Preprocess(
        Resize(
            height,
            width,
            policy=resize.policy,
            crop_ratio=resize.crop_ratio,
            antialias=resize.antialias,
            fill=resize.fill,
        ),
        InputFormat(table.layout, table.dtype, table.color, multiply, add),
    )


def _output(table: OutputTable, facts: FileFacts | None) -> OutputFormat:
    given = table.quantization or (facts.output_quantization if facts is not None else None)
    return OutputFormat(
        kind=table.kind,
        class_offset=table.class_offset,
        quantization_scale=given.scale if given is not None else None,
        quantization_zero_point=given.zero_point if given is not None else None,
        name=table.name,
    )
