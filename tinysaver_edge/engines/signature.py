"""Which of a model's tensors are the picture and the answer, and why not where that is unclear."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tinysaver_edge.engines.base import ModelSignature
from tinysaver_edge.errors import ModelError


class TensorInfo(NamedTuple):
    """One input or output as the file states it.

    Attributes:
        name: the tensor's name.
        shape: its axes, None where one is dynamic; None where even their number is unknown.
        dtype: numpy name of its type.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str


def signature_of(
    model: Path, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
) -> ModelSignature:
    """Pick a model's one input and the output that holds the classes.

    Raises:
        ModelError: there are several inputs, or not exactly one output of the form
            ``(n, classes)``, where further axes of length 1 do not count.
    """
    if len(inputs) != 1:
        raise ModelError(
            f"model {model}: has {len(inputs)} inputs ({_names(inputs)}), but a picture is all it "
            "would get: export it with a single input"
        )
    answers = [(info, axes) for info in outputs if (axes := _class_axes(info)) is not None]
    if len(answers) != 1:
        found = "no output" if not answers else f"{len(answers)} outputs"
        raise ModelError(
            f"model {model}: {found} of the form (n, classes) among {_names(outputs)}: export it "
            "with the class scores as its one such output"
        )
    (source, shape), (answer, axes) = (inputs[0], inputs[0].shape or ()), answers[0]
    return ModelSignature(source.name, shape, source.dtype, answer.name, axes, answer.dtype)


def _class_axes(info: TensorInfo) -> tuple[int | None, int | None] | None:
    """Return ``(batch, classes)``, or None where the tensor is no list of class scores."""
    if info.shape is None:
        return (None, None)
    if len(info.shape) < 2:
        return None
    batch, *others = info.shape
    classes = [axis for axis in others if axis != 1] or [1]
    return (batch, classes[0]) if len(classes) == 1 else None


def _names(infos: Sequence[TensorInfo]) -> str:
    return ", ".join(
        f"{info.name} {info.dtype} "
        + ("(?)" if info.shape is None else "(" + ", ".join(map(_axis, info.shape)) + ")")
        for info in infos
    )


def _axis(length: int | None) -> str:
    return "n" if length is None else str(length)
