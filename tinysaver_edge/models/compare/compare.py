"""Do two forms of a model answer alike, in every engine, and as the description says?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.data.store import Place, parted
from tinysaver_edge.engines.base import Engine, EngineOptions
from tinysaver_edge.engines.registry import create_engine, engine_class, engine_names
from tinysaver_edge.errors import DataError, MissingDependencyError, TinySaverError
from tinysaver_edge.models.compare.readings import Readings, try_readings
from tinysaver_edge.models.description.carried import read_metadata
from tinysaver_edge.models.description.description import (
    METADATA_KEY,
    ModelDescription,
    description_from,
    parse_description,
)
from tinysaver_edge.models.description.facts import read_facts
from tinysaver_edge.models.graph.macs import count_macs
from tinysaver_edge.output_format import BINARY, MULTI_LABEL, OutputKind
from tinysaver_edge.preprocess import Frame, Preprocess, Preprocessor

COUNT = 16
"""How many pictures a comparison takes unless it is told otherwise."""

_SIDE = 256
TOLERANCE = 1e-3
"""How far engines may lie apart, as a share of the largest logit where that is above 1."""

_MACS_TOLERANCE = 0.02
_SUMS_TO_ONE = 1e-3
_COMPARED = ("preprocess", "output", "labels")


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures and where they are from.

    Attributes:
        frames: the pictures, BGR uint8.
        origin: in a few words, for reports.
    """

    frames: tuple[Frame, ...]
    origin: str


def read_pictures(path: Place, *, count: int = COUNT) -> Pictures:
    """Take pictures from a user's images, at even distances.

    Raises:
        DataError: there are no images, or none of those taken can be read.
    """
    with open_data(path) as data:
        return pictures_of(data, count=count)


def pictures_of(data: DataSource, *, count: int = COUNT) -> Pictures:
    """Take pictures from a user's images, at even distances.

    Raises:
        DataError: none of those taken can be read.
    """
    frames = tuple(frame for frame in _taken(data, count) if frame is not None)
    if not frames:
        raise DataError(f"data {data.path}: none of the images that were tried can be read")
    return Pictures(frames, f"{len(frames)} images of {parted(data.path)[1]}")


def _taken(data: DataSource, count: int) -> list[Frame | None]:
    places = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)
    return [data.frame(int(place)) for place in places]


def draw_pictures(*, count: int = COUNT, seed: int = 0) -> Pictures:
    """Draw pictures whose detail falls off with its fineness, as it does in photographs."""
    rng = np.random.default_rng(seed)
    rows = np.fft.fftfreq(_SIDE)[:, None]
    columns = np.fft.rfftfreq(_SIDE)[None, :]
    fineness = np.sqrt(rows**2 + columns**2)
    fineness[0, 0] = 1 / _SIDE
    frames = []
    for _ in range(count):
        noise = rng.normal(size=(3, _SIDE, _SIDE))
        colours = np.fft.irfft2(np.fft.rfft2(noise) / fineness, s=(_SIDE, _SIDE))
        mixed = np.einsum("dc,chw->hwd", rng.normal(0, 0.3, (3, 3)) + 0.7, colours)
        scaled = mixed / mixed.std() * rng.uniform(30, 70) + rng.uniform(90, 160)
        frames.append(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))
    return Pictures(tuple(frames), f"{count} drawn pictures")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far two sets of answers to the same pictures lie apart.

    Attributes:
        max_difference: largest absolute difference between two logits; NaN where one is NaN.
        largest_logit: largest absolute value among the reference's logits, for scale.
        top1_agreement: share of pictures with the same best class, 0..1.
    """

    samples: int
    max_difference: float
    largest_logit: float
    top1_agreement: float

    def within(self, tolerance: float) -> bool:
        """Whether no logit is further off than that; NaN never is.

        Where all logits are small, as with random weights, so is what they may be off by.
        """
        return self.max_difference <= tolerance * min(1.0, self.largest_logit)


def compare(reference: NDArray[np.float32], found: NDArray[np.float32]) -> Comparison:
    """Compare logits, ``(n, classes)`` each."""
    return Comparison(
        samples=len(reference),
        max_difference=float(np.abs(reference - found).max()),
        largest_logit=float(np.abs(reference).max()),
        top1_agreement=float((reference.argmax(axis=1) == found.argmax(axis=1)).mean()),
    )


def answers(
    engine: Engine, preprocess: Preprocess, frames: Sequence[Frame], *, batch: int = 4
) -> NDArray[np.float32]:
    """Run an engine over pictures.

    Returns:
        Logits ``(n, classes)``.

    Raises:
        EngineError: a run failed.
    """
    preprocessor = Preprocessor(preprocess)
    parts = [
        engine.infer(preprocessor.batch(frames[start : start + batch])).copy()
        for start in range(0, len(frames), batch)
    ]
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class CheckedPoint:
    """One thing that was looked at.

    Attributes:
        passed: whether it is as it should be; None where there is nothing to hold it against.
    """

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """What was found of a model.

    Attributes:
        findings: in the order in which they were made.
        macs: multiply-accumulates of one picture as counted from the file, or None.
        readings: what other readings of the file get right, where labelled images were given.
    """

    model: Path
    findings: tuple[CheckedPoint, ...]
    macs: int | None
    readings: Readings | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return all(one.passed is not False for one in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        found = [asdict(one) for one in self.findings]
        return {
            "model": str(self.model),
            "passed": self.passed,
            "macs": self.macs,
            "findings": found,
            "readings": None if self.readings is None else self.readings.to_dict(),
        }


def check_model(
    description: ModelDescription,
    pictures: Pictures | None = None,
    *,
    data: DataSource | None = None,
    threads: int | None = None,
) -> ModelCheck:
    """Run a model in every engine and hold it against its description.

    Args:
        description: the model.
        pictures: what to run it on; some of the data unless given, drawn ones without data.
        data: labelled images; with them every plausible reading of the file is tried as well.
        threads: processor threads; None leaves it to the engines.

    Raises:
        DataError: none of the images can be read.
    """
    if pictures is None:
        pictures = draw_pictures(count=4) if data is None else pictures_of(data)
    macs, counted = _macs(description)
    ran = dict(_ran(description, pictures, threads))
    logits = {name: found for name, found in ran.items() if isinstance(found, np.ndarray)}
    findings = [
        *_said(description),
        counted,
        *(_answered(name, found, description, ran) for name, found in ran.items()),
        *_apart(logits, pictures),
    ]
    readings = None
    if data is not None and logits:
        try:
            readings = try_readings(description, data, threads=threads)
            findings.append(CheckedPoint("readings", readings.fits, readings.sentence()))
        except DataError as error:
            findings.append(CheckedPoint("readings", None, str(error)))
    return ModelCheck(description.file, tuple(findings), macs, readings)


def _said(description: ModelDescription) -> Iterator[CheckedPoint]:
    """Hold what the file tells of itself against the description."""
    yield from _contradicted(description)
    if description.file.suffix not in (".onnx", ".xml", ".tflite"):
        return
    try:
        facts = read_facts(description.file, output=description.output.name)
    except MissingDependencyError as error:
        yield CheckedPoint("file", None, str(error))
        return
    except TinySaverError as error:
        yield CheckedPoint("file", False, str(error))
        return
    probabilities = description.output.kind is OutputKind.PROBABILITIES
    if facts.signature.output_shape[1] == 1:
        probabilities = probabilities and facts.last_operation != "Sigmoid"
    said = f"described as {description.output.kind.value}, ends in {facts.last_operation or '?'}"
    fits: bool | None = facts.ends_in_softmax == probabilities or None
    if facts.is_multi_label:
        fits, said = False, f"{said}: {MULTI_LABEL}"
    yield CheckedPoint("answer", fits, said)
    if facts.scales_input and not description.preprocess.format.is_raw:
        yield CheckedPoint("scale", None, "the graph scales its input: is it scaled twice?")


def _contradicted(description: ModelDescription) -> Iterator[CheckedPoint]:
    """Point out where a description beside a file differs from the one that the file carries."""
    own = read_metadata(description.file).get(METADATA_KEY)
    if own is None:
        return
    source = f"{description.file} (metadata)"
    folder = description.file.parent
    try:
        table = parse_description(own, source)
        carried = description_from(
            table, description.file, folder=folder, source=source, confined=True
        )
    except TinySaverError as error:
        yield CheckedPoint("description", None, str(error))
        return
    different = [name for name in _COMPARED if getattr(carried, name) != getattr(description, name)]
    if different:
        yield CheckedPoint(
            "description",
            None,
            f"{description.source} differs from the description that the file carries in "
            f"{' and '.join(different)}",
        )


def _macs(description: ModelDescription) -> tuple[int | None, CheckedPoint]:
    try:
        found = count_macs(description.file, output=description.output.name)
    except TinySaverError as error:
        return None, CheckedPoint("MACs", None, str(error))
    detail = f"{found.macs:,}, {found.parameters:,} parameters"
    if description.macs is None:
        return found.macs, CheckedPoint("MACs", None, detail)
    close = abs(found.macs - description.macs) <= _MACS_TOLERANCE * description.macs
    return found.macs, CheckedPoint(
        "MACs", close, f"{detail}; described as {description.macs:,.0f}"
    )


def _ran(
    description: ModelDescription, pictures: Pictures, threads: int | None
) -> Iterator[tuple[str, NDArray[np.float32] | str]]:
    """Yield each engine that reads such files, and its answers or why it has none."""
    for name in engine_names():
        if description.file.suffix not in engine_class(name).suffixes:
            continue
        try:
            with create_engine(
                name,
                description.file,
                preprocess=description.preprocess,
                output=description.output,
                options=EngineOptions(threads=threads),
            ) as engine:
                yield name, answers(engine, description.preprocess, pictures.frames)
        except MissingDependencyError:
            continue
        except TinySaverError as error:
            yield name, str(error)


def _answered(
    name: str,
    found: NDArray[np.float32] | str,
    description: ModelDescription,
    ran: Mapping[str, NDArray[np.float32] | str],
) -> CheckedPoint:
    if isinstance(found, str):
        # What one engine cannot read is no fault of the model's where another runs it.
        alone = description.engine == name or all(isinstance(one, str) for one in ran.values())
        return CheckedPoint(name, False if alone else None, found)
    if not np.isfinite(found).all():
        return CheckedPoint(name, False, "answers NaN or infinity: check the scale and the export")
    try:
        labels = description.class_labels(found.shape[1])
    except TinySaverError as error:
        return CheckedPoint(name, False, str(error))
    if (why := _no_such_kind(found, description)) is not None:
        return CheckedPoint(name, False, why)
    named = "no labels" if labels is None else f"{len(labels)} labels"
    return CheckedPoint(name, True, f"{found.shape[1]} classes, {named}")


def _no_such_kind(found: NDArray[np.float32], description: ModelDescription) -> str | None:
    """Return why answers are not of the kind described, where they give it away."""
    if description.output.kind is OutputKind.PROBABILITIES:
        why = description.output.why_no_probabilities(found)
        return None if why is None else f"described as probabilities, but it answers {why}"
    sums = np.abs(found.sum(axis=1) - 1)
    if found.shape[1] > BINARY and found.min() >= 0 and sums.max() < _SUMS_TO_ONE:
        return 'described as logits, but they sum to 1: write kind = "probabilities"'
    return None


def _apart(logits: dict[str, NDArray[np.float32]], pictures: Pictures) -> Iterator[CheckedPoint]:
    """Hold every engine against the first."""
    if len(logits) < 2:
        only = next(iter(logits), "no engine")
        yield CheckedPoint("engines", None, f"{only} alone ran it: nothing to compare with")
        return
    (first, expected), *others = logits.items()
    for name, found in others:
        comparison = compare(expected, found)
        allowed = TOLERANCE * max(1.0, comparison.largest_logit)
        yield CheckedPoint(
            f"{name} against {first}",
            comparison.within(allowed) and comparison.top1_agreement == 1.0,
            f"logits at most {comparison.max_difference:.2g} apart, "
            f"{100 * comparison.top1_agreement:.0f} % of the best classes the same "
            f"({pictures.origin})",
        )
