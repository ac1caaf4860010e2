"""Artefact: a model as it will ship, prepared before anything is measured on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge.engines.base import Engine, EngineOptions, Precision, finite_or_raise
from tinysaver_edge.engines.registry import create_engine, engine_for
from tinysaver_edge.errors import DescriptionError
from tinysaver_edge.files import sha256_of
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import Preprocess

if TYPE_CHECKING:
    from tinysaver_edge.calibrate.plan import ModelFile


@dataclass(frozen=True, slots=True)
class Artefact:
    """A model as it will ship: what is calibrated is what the device runs.

    Attributes:
        name: the model's name.
        files: the model file and whatever lies beside it, the model first.
        sha256: hash of those files.
        source_sha256: hash of the file that the user gave.
        preprocess: what is left to do to a frame before the model sees it.
        output: how the model states its answer.
        engine: name of the engine.
        options: device and precision.
        macs: multiply-accumulates of one frame.
        parameters: number of weights, or None where it is not known.
        labels: class names, or None.
    """

    name: str
    files: tuple[Path, ...]
    sha256: str
    source_sha256: str
    preprocess: Preprocess
    output: OutputFormat
    engine: str
    options: EngineOptions
    macs: float
    parameters: int | None
    labels: tuple[str, ...] | None

    def aligned_with(self, large: Artefact) -> Artefact:
        """Return this model with its classes in the large model's order.

        Classes are matched by name; those that the large model does not have are dropped. Without
        names on both sides the order is taken to be the same.

        Raises:
            DescriptionError: a class of the large model is none of this one's.
        """
        if self.labels is None or large.labels is None or self.labels == large.labels:
            return self
        place = {label: index for index, label in enumerate(self.labels)}
        missing = [label for label in large.labels if label not in place]
        if missing:
            raise DescriptionError(
                f"model {self.name} does not know {len(missing)} of {large.name}'s "
                f"{len(large.labels)} classes, among them {missing[0]!r}: a cascade needs models "
                f"of the same classes"
            )
        order = tuple(place[label] for label in large.labels)
        return replace(self, output=replace(self.output, class_order=order), labels=large.labels)

    def open(self) -> Engine:
        """Open it with its engine."""
        return create_engine(
            self.engine,
            self.files[0],
            preprocess=self.preprocess,
            output=self.output,
            options=self.options,
        )


def combined_sha256(files: tuple[Path, ...]) -> str:
    """Return one hash of several files: that of the file itself where there is one."""
    hashes = [sha256_of(file) for file in files]
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


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
        blank = np.zeros(
            artefact.preprocess.shape(1), np.dtype(artefact.preprocess.format.dtype)
        )
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
