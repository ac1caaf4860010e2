"""Does a model do what its description says, and the same in every engine that is installed?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.engines.registry import create_engine, engine_class, engine_names
from tinysaver_edge.errors import MissingDependencyError, TinySaverError
from tinysaver_edge.models.compare.compare import answers, compare
from tinysaver_edge.models.compare.pictures import Pictures, draw_pictures
from tinysaver_edge.models.description.description import ModelDescription
from tinysaver_edge.models.description.facts import read_facts
from tinysaver_edge.models.graph.macs import count_macs
from tinysaver_edge.output_format import OutputKind

TOLERANCE = 1e-3
"""How far engines may lie apart, as a share of the largest logit where that is above 1."""

_MACS_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class CheckedPoint:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        passed: whether it is as it should be; None where there is nothing to hold it against.
        detail: what was found.
    """

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """What was found of a model.

    Attributes:
        model: the file.
        findings: in the order in which they were made.
        macs: multiply-accumulates of one picture as counted from the file, or None.
    """

    model: Path
    findings: tuple[CheckedPoint, ...]
    macs: int | None

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
        }


def check_model(
    description: ModelDescription, pictures: Pictures | None = None, *, threads: int | None = None
) -> ModelCheck:
    """Run a model once in every engine and hold it against its description.

    Args:
        description: the model.
        pictures: what to run it on; drawn ones unless given.
        threads: processor threads; None leaves it to the engines.
    """
    pictures = draw_pictures(count=4) if pictures is None else pictures
    macs, counted = _macs(description)
    ran = dict(_ran(description, pictures, threads))
    logits = {name: found for name, found in ran.items() if isinstance(found, np.ndarray)}
    findings = [
        *_said(description),
        counted,
        *(_answered(name, found, description) for name, found in ran.items()),
        *_apart(logits, pictures),
    ]
    return ModelCheck(description.file, tuple(findings), macs)


def _said(description: ModelDescription) -> Iterator[CheckedPoint]:
    """Hold what the file tells of itself against the description."""
    if description.file.suffix not in (".onnx", ".xml", ".tflite"):
        return
    try:
        facts = read_facts(description.file)
    except MissingDependencyError as error:
        yield CheckedPoint("file", None, str(error))
        return
    probabilities = description.output.kind is OutputKind.PROBABILITIES
    said = f"described as {description.output.kind.value}, ends in {facts.last_operation or '?'}"
    yield CheckedPoint("answer", facts.ends_in_softmax == probabilities or None, said)
    if facts.scales_input and not description.preprocess.format.is_raw:
        yield CheckedPoint("scale", None, "the graph scales its input: is it scaled twice?")


def _macs(description: ModelDescription) -> tuple[int | None, CheckedPoint]:
    try:
        found = count_macs(description.file)
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
    name: str, found: NDArray[np.float32] | str, description: ModelDescription
) -> CheckedPoint:
    if isinstance(found, str):
        return CheckedPoint(name, False, found)
    if not np.isfinite(found).all():
        return CheckedPoint(name, False, "answers NaN or infinity: check the scale and the export")
    try:
        labels = description.class_labels(found.shape[1])
    except TinySaverError as error:
        return CheckedPoint(name, False, str(error))
    named = "no labels" if labels is None else f"{len(labels)} labels"
    return CheckedPoint(name, True, f"{found.shape[1]} classes, {named}")


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
