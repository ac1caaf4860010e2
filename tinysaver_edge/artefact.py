"""Artefact: a model as it ships, with all that is needed to run it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tinysaver_edge._support.files import combined, sha256_of
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.engines.base import Engine, EngineOptions, Precision
from tinysaver_edge.engines.registry import create_engine
from tinysaver_edge.errors import BundleError, DescriptionError
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import Preprocess

if TYPE_CHECKING:
    from tinysaver_edge.bundle.bundle import Bundle
    from tinysaver_edge.bundle.manifest import ModelEntry


@dataclass(frozen=True, slots=True)
class Artefact:
    """A model as it will ship: what is calibrated is what the device runs.

    Attributes:
        name: the model's name.
        files: the model file and whatever lies beside it, the model first; none where a bundle
            leaves them to the hosts that serve it.
        sha256: hash of those files.
        source_sha256: hash of the file that the user gave.
        preprocess: what is left to do to a frame before the model sees it.
        output: how the model states its answer.
        engine: name of the engine.
        options: device and precision.
        macs: multiply-accumulates of one frame.
        parameters: number of weights, or None where it is not known.
        classes: how many classes it answers with.
        labels: class names, or None.
        published_top1: accuracy in percent as its makers state it, or None.
        codec: what frames pass on their way to it, or None.
        quantised: whether it computes with numbers of 8 bits, so that answers depend on the
            processor.
        fitted_on: hashes of the images that its numbers' ranges were found on, see `data.looks`.
    """

    name: str
    files: tuple[Path, ...]
    sha256: str
    source_sha256: str
    preprocess: Preprocess
    output: OutputFormat
    engine: str
    options: EngineOptions
    macs: float | None
    parameters: int | None
    classes: int | None
    labels: tuple[str, ...] | None
    published_top1: float | None = None
    codec: Jpeg | None = None
    quantised: bool = False
    fitted_on: tuple[str, ...] = ()

    def aligned_with(self, large: Artefact) -> Artefact:
        """Return this model with its classes in the large model's order.

        Classes are matched by name; those that the large model does not have are dropped. Without
        names on both sides the order is taken to be the same.

        Raises:
            DescriptionError: a class of the large model is none of this one's, or its name is not
                its own.
        """
        if self.labels is None or large.labels is None or self.labels == large.labels:
            return self
        for label in large.labels:
            if self.labels.count(label) > 1 or large.labels.count(label) > 1:
                raise DescriptionError(
                    f"models {self.name} and {large.name} name their classes in different orders, "
                    f"and {label!r} is there more than once: give each class its own name"
                )
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

    def with_threads(self, threads: int | None) -> Artefact:
        """Return this model, to be run with that many processor threads."""
        return replace(self, options=replace(self.options, threads=threads))

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
    return combined([sha256_of(file) for file in files])


def bundled_artefacts(
    bundle: Bundle,
    options: EngineOptions | None = None,
    *,
    elsewhere: bool = False,
) -> list[Artefact]:
    """Return the models of a bundle, one a stage.

    Args:
        bundle: an open bundle.
        options: for the engines, or None; device and precision are the bundle's.
        elsewhere: whether a model whose files the bundle leaves to other hosts will do as well.

    Raises:
        BundleError: it holds no models, or not all that are needed.
    """
    if not bundle.has_models:
        names = ", ".join(stage.model.name for stage in bundle.manifest.stages)
        raise BundleError(
            f"bundle {bundle.path}: made from records, it names models ({names}) but holds none; "
            f"calibrate with the model files to run it"
        )
    for stage in bundle.manifest.stages:
        if stage.model.elsewhere and not elsewhere:
            raise BundleError(
                f"bundle {bundle.path}: holds no file of {stage.model.name}, which other hosts "
                f"serve: name one with --large URL, run with --escalation local, or take the whole "
                f"bundle"
            )
    labels = bundle.manifest.labels
    return [
        _bundled(
            bundle,
            stage.model,
            replace(
                options or EngineOptions(),
                device=stage.model.device,
                precision=_precision(bundle, stage.model),
                sealed=() if stage.model.elsewhere else tuple(map(bundle.seal, stage.model.files)),
            ),
            labels=None if labels is None else tuple(labels),
        )
        for stage in bundle.manifest.stages
    ]


def _precision(bundle: Bundle, model: ModelEntry) -> Precision:
    try:
        return Precision(model.precision or Precision.FLOAT32)
    except ValueError:
        known = ", ".join(one.value for one in Precision)
        raise BundleError(
            f"bundle {bundle.path}: {model.name} has precision {model.precision!r}; known: {known}"
        ) from None


def _bundled(
    bundle: Bundle, model: ModelEntry, options: EngineOptions, *, labels: tuple[str, ...] | None
) -> Artefact:
    if model.preprocess is None or model.engine is None:
        raise BundleError(f"bundle {bundle.path}: {model.name} has no preprocessing or engine")
    files = () if model.elsewhere else tuple(bundle.file(entry) for entry in model.files)
    return Artefact(
        name=model.name,
        files=files,
        sha256=model.sha256 or "",
        source_sha256=model.source_sha256 or "",
        preprocess=model.preprocess,
        output=model.output or OutputFormat(),
        engine=model.engine,
        options=options,
        macs=model.macs,
        parameters=model.parameters,
        classes=None if labels is None else len(labels),
        labels=labels,
        codec=model.codec,
        quantised=model.quantised,
        fitted_on=tuple(model.fitted_on),
    )
