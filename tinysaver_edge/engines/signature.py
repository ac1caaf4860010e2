"""Which of a model's tensors are the picture and the answer, and why not where that is unclear."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinysaver_edge.engines.base import ModelSignature
from tinysaver_edge.errors import (
    ModelError,
)


class TensorInfo(NamedTuple):
    """One input or output as the file states it.

    Attributes:
        name: the tensor's name.
        shape: its axes, None where one is dynamic; None where even their number is unknown.
        dtype: numpy name of its type, or what the format calls it where numpy has no such numbers
            (texts, maps, sequences).
        aliases: its other names.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    aliases: tuple[str, ...] = ()


def signature_of(
    model: Path,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    *,
    answer: str | None = None,
) -> ModelSignature:
    """Pick a model's one input and the output that holds the classes.

    Args:
        model: the file, for messages.
        inputs: all that it takes.
        outputs: all that it gives. Those that are no tensors of numbers are passed over.
        answer: name of the output that holds the classes; None where only one can.

    Raises:
        ModelError: there are several inputs; or the output of that name, or without a name not
            exactly one output, is of the form ``(n, classes)``, where further axes of length 1 do
            not count, and ``(n)`` is one number for each where there is no other.
    """
    if len(inputs) != 1:
        raise ModelError(
            f"model {model}: has {len(inputs)} inputs ({_names(inputs)}), but a picture is all it "
            "would get: export it with a single input"
        )
    source = inputs[0]
    if not _is_number(source.dtype):
        raise ModelError(f"model {model}: its input {source.name!r} takes {source.dtype}")
    batch = source.shape[0] if source.shape else None
    found, axes = _answer(model, outputs, answer, batch)
    name = answer or found.name
    stated = None if found.shape == axes else found.shape
    return ModelSignature(
        source.name, source.shape or (), source.dtype, name, axes, found.dtype, stated
    )


def _answer(
    model: Path, outputs: Sequence[TensorInfo], name: str | None, batch: int | None
) -> tuple[TensorInfo, tuple[int | None, int | None]]:
    """Return the output that holds the classes, and its batch and classes."""
    asked = [one for one in outputs if name is None or name in (one.name, *one.aliases)]
    if not asked:
        raise ModelError(
            f"model {model}: has no output {name!r}, only {_names(outputs)}: correct output.name "
            "in its description"
        )
    answers = [(info, axes) for info in asked if (axes := _class_axes(info)) is not None]
    if not answers:
        single = [one for one in asked if one.shape == (batch,) and one.dtype.startswith("float")]
        answers = [(info, (batch, 1)) for info in single]
    if len(answers) == 1:
        return answers[0]
    if answers:
        first = answers[0][0].name
        raise ModelError(
            f"model {model}: {len(answers)} outputs can hold the classes, "
            f"{_names([info for info, _ in answers])}: say which (output.name = {first!r} in its "
            f"description, or --output {first})"
        )
    raise ModelError(
        f"model {model}: no output of the form (n, classes) among {_names(asked)}: export it with "
        "the class scores as one such output"
    )


def _is_number(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "fiu"
    except (TypeError, ValueError):
        return False


def _class_axes(info: TensorInfo) -> tuple[int | None, int | None] | None:
    """Return ``(batch, classes)``, or None where the tensor is no list of class scores."""
    if not _is_number(info.dtype):
        return None
    if info.shape is None:
        return (None, None)
    if len(info.shape) < 2:
        return None
    batch, *others = info.shape
    classes = [axis for axis in others if axis != 1] or [1]
    return (batch, classes[0]) if len(classes) == 1 else None


def _names(infos: Sequence[TensorInfo]) -> str:
    return ", ".join(
        f"{printable(info.name)} {info.dtype} "
        + ("(?)" if info.shape is None else "(" + ", ".join(map(_axis, info.shape)) + ")")
        for info in infos
    )


def printable(name: str) -> str:
    """Return a name from a file without what would break a line or a terminal."""
    return "".join(one if one.isprintable() else "?" for one in name)


def _axis(length: int | None) -> str:
    return "n" if length is None else str(length)
