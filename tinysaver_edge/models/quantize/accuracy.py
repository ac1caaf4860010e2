"""Run a model over labelled images and count what it gets right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.data import DataSource, class_indices
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.engines.registry import create_engine, engine_name
from tinysaver_edge.errors import DataError
from tinysaver_edge.models.description.description import ModelDescription
from tinysaver_edge.preprocess import Frame, Preprocessor

_BATCH = 16


@dataclass(frozen=True, slots=True)
class LabelledAnswers:
    """What a model answered on labelled images.

    Attributes:
        engine: what ran it.
        logits: ``(n, classes)`` float32, of the images that could be read.
        labels: ``(n,)`` the true classes.
    """

    engine: str
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of images whose best class is the true one, 0..1."""
        return float((self.logits.argmax(axis=1) == self.labels).mean())

    def agreement(self, other: LabelledAnswers) -> float:
        """Share of images on which two models name the same class, 0..1."""
        return float((self.logits.argmax(axis=1) == other.logits.argmax(axis=1)).mean())


def measure_accuracy(
    description: ModelDescription,
    data: DataSource,
    places: Sequence[int],
    *,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> LabelledAnswers:
    """Run a model over some images of a data source, on its engine, device and precision.

    Args:
        description: the model.
        data: the images.
        places: which of them.
        threads: processor threads; None leaves it to the engine.
        progress: hears of each image.

    Raises:
        DataError: the labels are none of the model's, or no image can be read.
        EngineError: the model cannot be run.
    """
    options = EngineOptions(device=description.device, threads=threads)
    if description.precision is not None:
        options = EngineOptions(
            device=description.device, threads=threads, precision=description.precision
        )
    name = engine_name(description.engine, description.file, device=description.device)
    preprocess = description.preprocess
    preprocessor = Preprocessor(preprocess)
    answered: list[NDArray[np.float32]] = []
    known: list[int] = []
    truth: NDArray[np.int64] | None = None
    progress.start(f"{description.name} ({name})", total=len(places))
    with create_engine(
        name,
        description.file,
        preprocess=preprocess,
        output=description.output,
        options=options,
    ) as engine:
        for start in range(0, len(places), _BATCH):
            part = [int(place) for place in places[start : start + _BATCH]]
            frames, readable = readable_frames(data, part)
            if frames:
                answered.append(engine.infer(preprocessor.batch(frames)).copy())
                known.extend(readable)
                if truth is None:  # labels that do not fit end it here, not after the last image
                    truth = _truth(description, data, classes=answered[0].shape[1])
            progress.advance(len(part))
    progress.finish()
    if truth is None:
        raise DataError(f"data {data.path}: none of {len(places)} images can be read")
    return LabelledAnswers(name, np.concatenate(answered), truth[known])


def _truth(description: ModelDescription, data: DataSource, *, classes: int) -> NDArray[np.int64]:
    labels = description.class_labels(classes)
    return class_indices(data.samples, labels=labels, classes=classes, path=data.path)


def readable_frames(data: DataSource, places: Sequence[int]) -> tuple[list[Frame], list[int]]:
    """Decode some images; return those that can be read and which they are."""
    found = [(place, data.frame(place)) for place in places]
    kept = [(place, frame) for place, frame in found if frame is not None]
    return [frame for _, frame in kept], [place for place, _ in kept]
