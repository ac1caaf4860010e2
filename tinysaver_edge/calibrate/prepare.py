"""Prepare: bring a user's model into the form it will ship in, before anything is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge.artefact import Artefact, combined_sha256
from tinysaver_edge.engines.base import EngineOptions, Precision, finite_or_raise
from tinysaver_edge.engines.registry import engine_for
from tinysaver_edge.errors import DescriptionError

if TYPE_CHECKING:
    from tinysaver_edge.calibrate.plan import ModelFile


def prepare(model: ModelFile, folder: Path, *, embed: bool = True) -> Artefact:
    """Bring a model into the form it will ship in, and run it once.

    Args:
        model: its file and description.
        folder: where prepared files go.
        embed: fold colour order, scale, layout and type into its graph where that can be done.

    Raises:
        ModelError: the file cannot be read, or answers NaN.
        DescriptionError: the description does not fit the file.
        EngineError: no engine here runs such files.
    """
    from tinysaver_edge.models.embed import embed as embed_into
    from tinysaver_edge.models.macs import count_macs

    said = model.description
    check_name(said.name)
    resize = said.preprocess.resize
    counted = count_macs(model.path, (resize.height, resize.width))
    files, preprocess, output = _model_files(model.path), said.preprocess, said.output
    if embed:
        embedded = embed_into(model.path, said, folder)
        files, preprocess, output = embedded.files, embedded.preprocess, embedded.output
    artefact = Artefact(
        name=said.name,
        files=files,
        sha256=combined_sha256(files),
        source_sha256=combined_sha256(_model_files(model.path)),
        preprocess=preprocess,
        output=output,
        engine=model.engine or said.engine or engine_for(files[0], device=said.device),
        options=EngineOptions(device=said.device, precision=said.precision or Precision.FLOAT32),
        macs=float(counted.macs) if said.macs is None else said.macs,
        parameters=counted.params,
        labels=None,
    )
    return replace(artefact, labels=said.class_labels(_classes(artefact)))


def _classes(artefact: Artefact) -> int:
    """Run the model once, so that what cannot work fails before anything is measured."""
    with artefact.open() as engine:
        blank = np.zeros(artefact.preprocess.shape(1), np.dtype(artefact.preprocess.format.dtype))
        logits = engine.infer(blank)
        finite_or_raise(logits, model=artefact.name, where="a black frame")
        return int(logits.shape[1])


def check_name(name: str) -> None:
    """Refuse a model name that cannot be a file name.

    Raises:
        DescriptionError: it is empty or holds a slash.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise DescriptionError(f"model name {name!r} cannot be a file name: choose another")


def _model_files(model: Path) -> tuple[Path, ...]:
    weights = model.with_suffix(".bin")
    return (model, weights) if model.suffix == ".xml" and weights.is_file() else (model,)
