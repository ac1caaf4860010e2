"""Model outputs → float32 logits: the only place that knows how a model states its answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.errors import InputError

SMALLEST_PROBABILITY = 1e-12
"""Stands in for a probability of zero, whose logarithm has no float."""


NO_PROBABILITY = 0.02
"""A probability so much above 1, or a sum so far from it, is none however it was rounded."""

MAY_BE_OFF = 0.05
"""Share of answers whose sum may be off all the same."""

MULTI_LABEL = (
    "every class is answered for itself (a multi-label model, independent sigmoids), so no class "
    "is the answer: train or export it with a softmax over the classes"
)

BINARY = 2
"""Classes of a model with a single output."""


class OutputKind(str, Enum):
    """What the numbers of a model's output mean."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """How a model states its answer.

    A model with a single output tells two classes apart: its number speaks for the second, as a
    probability p (then they have 1 - p and p) or as a logit z (then they have 0 and z).

    Attributes:
        kind: logits, or probabilities (softmax or sigmoid already applied).
        class_offset: leading outputs that are no class of the user's, 1 for a background class.
        class_order: outputs, counted after the offset, in the order of the bundle's labels; None
            where they are in that order already.
        quantization_scale: real value of one step of an integer output; 1/256 where an integer
            output holds probabilities and nothing else is said.
        quantization_zero_point: the integer that stands for zero; where nothing is said, the
            smallest value of the type for probabilities and 0 for logits.
        name: the output that holds the classes, where the file has several; None where only one
            can.

    Raises:
        InputError: a field is out of its range, or does not fit another; the message names it.
    """

    kind: OutputKind = OutputKind.LOGITS
    class_offset: int = 0
    class_order: tuple[int, ...] | None = None
    quantization_scale: float | None = None
    quantization_zero_point: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.class_offset < 0:
            raise InputError(f"class_offset {self.class_offset}: must be 0 or more")
        if self.class_order is not None and not (self.class_order and min(self.class_order) >= 0):
            raise InputError(f"class_order {self.class_order}: must name outputs from 0 on")

    @property
    def least_outputs(self) -> int:
        """How many outputs a model must have at least for this to make sense."""
        last = 0 if self.class_order is None else max(self.class_order)
        return self.class_offset + last + 1

    def fits(self, outputs: int) -> bool:
        """Whether so many outputs are enough; a single one stands for two classes."""
        if outputs == 1 and not self.class_offset:
            return self.least_outputs <= BINARY
        return outputs >= self.least_outputs

    def to_logits(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        """Turn raw outputs into logits, so that their softmax gives the model's probabilities.

        Args:
            raw: ``(n, class_offset + classes)`` of any numeric type.

        Returns:
            ``(n, classes)`` float32. For a float output of logits without offset this is ``raw``
            itself, not a copy.
        """
        values = self._dequantize(raw)
        if values.shape[1] == 1 and not self.class_offset:
            values = self._two_classes(values)
        if self.class_offset:
            values = values[:, self.class_offset :]
        if self.class_order is not None:
            values = values[:, self.class_order]
        if self.kind is OutputKind.LOGITS:
            return values
        return np.log(np.maximum(values, np.float32(SMALLEST_PROBABILITY)))

    def _two_classes(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the class that a single number does not speak for a number of its own."""
        other = np.float32(1) - values if self.kind is OutputKind.PROBABILITIES else values * 0
        return np.concatenate([other, values], axis=1)

    def _dequantize(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        if not np.issubdtype(raw.dtype, np.integer):
            return raw.astype(np.float32, copy=False)
        probabilities = self.kind is OutputKind.PROBABILITIES
        scale = self.quantization_scale
        zero = self.quantization_zero_point
        if scale is None:
            scale = 1 / 256 if probabilities else 1.0
        if zero is None:
            zero = int(np.iinfo(raw.dtype).min) if probabilities else 0  # type: ignore[type-var]
        return (raw.astype(np.float32) - np.float32(zero)) * np.float32(scale)

    def why_no_probabilities(self, logits: NDArray[np.float32]) -> str | None:
        """Return why answers that are described as probabilities are none; None where they are.

        Args:
            logits: what `to_logits` made of some answers, ``(n, classes)``, finite.
        """
        values = np.exp(logits.astype(np.float64))
        totals = values.sum(axis=1)
        step = self.quantization_scale or 0.0
        slack = NO_PROBABILITY + values.shape[1] * step / 2  # each may be rounded by half a step
        partly = self.class_offset > 0 or self.class_order is not None  # others had the rest
        off = (totals > 1 + slack) | ((totals < 1 - slack) & (not partly))
        if values.max() > 1 + NO_PROBABILITY + step:
            return f"numbers up to {values.max():.3g}"
        if off.mean() <= MAY_BE_OFF:
            return None
        sums = f"numbers that sum to {totals.min():.3g}"
        if totals.max() - totals.min() > slack:
            sums += f" to {totals.max():.3g}"
        if not step and values.min() <= SMALLEST_PROBABILITY * 1.01:
            return f"{sums}, some of them 0 or less"
        return f"{sums}, each from 0 to 1: {MULTI_LABEL}"


@dataclass(frozen=True, slots=True)
class RawOutput(OutputFormat):
    """Numbers as the file gives them: what a host passes on, for the device to make logits of."""

    def to_logits(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return the numbers as float32, be they logits or not."""
        return raw.astype(np.float32, copy=False)
