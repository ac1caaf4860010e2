"""Prepare: bring a user's model into the form it will ship in, before anything is measured."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import parse_json, read_file, write_text
from tinysaver_edge._version import __version__
from tinysaver_edge.artefact import Artefact, combined_sha256
from tinysaver_edge.engines.base import (
    EngineOptions,
    Precision,
    check_signature,
    finite_or_raise,
)
from tinysaver_edge.engines.model_file import model_files
from tinysaver_edge.engines.registry import AUTO, engine_name, inspect, is_installed
from tinysaver_edge.errors import DescriptionError, ModelError, TinySaverError
from tinysaver_edge.output_format import BINARY, MULTI_LABEL, OutputKind

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from tinysaver_edge.calibrate.plan import ModelFile

SUMS_TO_ONE = 1e-3

MACS_APART = 0.45
"""Share of the larger by which MACs that a description says may differ from those of its graph:
not every counter counts the same operations; who writes FLOPs is off by a half."""

_FORM = (__version__, 3)
"""Of what is noted: what other releases wrote is made anew."""


def prepare(model: ModelFile, folder: Path, *, embed: bool = True) -> Artefact:
    """Bring a model into the form it will ship in, and run it once; or take it where that was done.

    Args:
        model: its file and description.
        folder: where prepared files go.
        embed: fold colour order, scale, layout and type into its graph where that can be done.

    Raises:
        ModelError: the file cannot be read, or answers NaN.
        DescriptionError: the description does not fit the file.
        EngineError: no engine here runs such files.
    """
    if model.shipped is not None:
        check_name(model.shipped.name)
        return replace(model.shipped, classes=_classes(model.shipped))
    known = find_prepared(model, folder, embed=embed)
    if known is None:
        given = combined_sha256(model_files(model.path))
        known = _prepare(model, given, folder, embed=embed)
        _write_note(_note(model, folder), _key(model, given, embed=embed), known)
    return known


def find_prepared(model: ModelFile, folder: Path, *, embed: bool) -> Artefact | None:
    """Return what was prepared before, None where it has to be prepared.

    Raises:
        ModelError: the file cannot be read.
        DescriptionError: its name cannot be a file's.
    """
    if model.shipped is not None:
        return None
    check_name(model.description.name)
    given = combined_sha256(model_files(model.path))
    return _read_note(_note(model, folder), _key(model, given, embed=embed))


def _note(model: ModelFile, folder: Path) -> Path:
    return folder / model.description.name / "prepared.json"


def _prepare(model: ModelFile, given: str, folder: Path, *, embed: bool) -> Artefact:
    from tinysaver_edge.models.embed.embed import embed as embed_into
    from tinysaver_edge.models.embed.embed import why_not_embedded
    from tinysaver_edge.models.graph.reader import is_quantised

    said = model.description
    macs, parameters = _cost(model)
    files, preprocess, output = model_files(model.path), said.preprocess, said.output
    if embed:
        if why_not_embedded(model.path, said) is None:  # the engine sees the new file only
            signature = inspect(model.path, output=said.output.name)
            check_signature(signature, said.preprocess, model=model.path)
        embedded = embed_into(model.path, said, folder / said.name)
        files, preprocess, output = embedded.files, embedded.preprocess, embedded.output
    asked = model.engine or said.engine
    options = EngineOptions(device=said.device, precision=said.precision or Precision.FLOAT32)
    if asked == AUTO:  # in the way that those to choose from are held against
        options = EngineOptions()
    artefact = Artefact(
        name=said.name,
        files=files,
        sha256=combined_sha256(files),
        source_sha256=given,
        preprocess=preprocess,
        output=output,
        engine=engine_name(asked, files[0], device=options.device),
        options=options,
        macs=macs,
        parameters=parameters,
        classes=None,
        labels=None,
        published_top1=said.published_top1,
        quantised=is_quantised(model.path),
        fitted_on=said.fitted_on,
    )
    classes = _classes(artefact)
    return replace(artefact, classes=classes, labels=said.class_labels(classes))


def _cost(model: ModelFile) -> tuple[float, int | None]:
    """Return MACs and parameters; what the description says of MACs comes first.

    Raises:
        DescriptionError: the graph has far more of them, or far fewer though all of it counts.
    """
    from tinysaver_edge.models.graph.macs import count_macs

    resize, said = model.description.preprocess.resize, model.description.macs
    try:
        counted = count_macs(
            model.path, (resize.height, resize.width), output=model.description.output.name
        )
    except ModelError:
        if said is None:
            raise
        return said, None  # an engine of somebody else's may know files that no counter reads
    if said is None:
        return float(counted.macs), counted.parameters
    few = said < (1 - MACS_APART) * counted.macs
    if few or (not counted.uncounted and (1 - MACS_APART) * said > counted.macs):
        raise DescriptionError(
            f"model {model.description.name}: its description says {said:.4g} MACs and its graph "
            f"has {counted.macs:.4g}: costs are told from them. Take macs out, or correct them "
            "(one MAC is two FLOPs)"
        )
    return said, counted.parameters


def _classes(artefact: Artefact) -> int:
    """Run the model once, so that what cannot work fails before anything is measured."""
    with artefact.open() as engine:
        blank = np.zeros(artefact.preprocess.shape(1), np.dtype(artefact.preprocess.format.dtype))
        logits = engine.infer(blank)
        finite_or_raise(logits, model=artefact.name, where="a black frame")
        _check_kind(logits, artefact)
        return int(logits.shape[1])


def _check_kind(logits: NDArray[np.float32], artefact: Artefact) -> None:
    """Refuse logits described as probabilities, and the reverse, where one answer gives it away."""
    said = artefact.output.kind
    if said is OutputKind.PROBABILITIES:
        why = artefact.output.why_no_probabilities(logits)
        if why is None:
            return
        if why.endswith(MULTI_LABEL):
            raise DescriptionError(f"model {artefact.name}: a black frame gives {why}")
        found = why
    elif logits.min() >= 0 and abs(logits.sum() - 1) < SUMS_TO_ONE:
        found = "numbers from 0 to 1 that sum to 1"
    else:
        _check_single_label(logits, artefact)
        return
    other = OutputKind.LOGITS if said is OutputKind.PROBABILITIES else OutputKind.PROBABILITIES
    raise DescriptionError(
        f"model {artefact.name}: its description says that it answers {said.value}, but a black "
        f'frame gives {found}: write output = {{ kind = "{other.value}" }}'
    )


def _check_single_label(logits: NDArray[np.float32], artefact: Artefact) -> None:
    """Refuse sigmoids described as logits: the numbers allow it and the graph says it."""
    if logits.shape[1] <= BINARY or logits.min() < 0 or logits.max() > 1:
        return
    from tinysaver_edge.models.description.facts import read_facts

    try:
        facts = read_facts(artefact.files[0], output=artefact.output.name)
    except TinySaverError:  # an engine of somebody else's may know files that nobody else reads
        return
    if facts.is_multi_label:
        raise DescriptionError(f"model {artefact.name}: ends in a sigmoid: {MULTI_LABEL}")


def check_name(name: str) -> None:
    """Refuse a model name that cannot be a file name.

    Raises:
        DescriptionError: it is empty or holds a slash.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise DescriptionError(f"model name {name!r} cannot be a file name: choose another")


def _key(model: ModelFile, source_sha256: str, *, embed: bool) -> str:
    """Return a hash of all that the prepared form depends on."""
    said = repr((model.description, model.engine, source_sha256, embed, _FORM))
    return hashlib.sha256(said.encode()).hexdigest()


def _write_note(note: Path, key: str, artefact: Artefact) -> None:
    content = {"key": key, "artefact": _adapter().dump_python(artefact, mode="json")}
    write_text(note, json.dumps(content, indent=2) + "\n")


def _read_note(note: Path, key: str) -> Artefact | None:
    """Return what was prepared before, where nothing it depends on has changed since."""
    try:
        content = parse_json(read_file(note))
        if content["key"] != key:
            return None
        artefact = _adapter().validate_python(content["artefact"])
        if not is_installed(artefact.engine):  # one that is here shall do
            return None
        return artefact if combined_sha256(artefact.files) == artefact.sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _adapter() -> TypeAdapter[Artefact]:
    from pydantic import TypeAdapter

    return TypeAdapter(Artefact)
