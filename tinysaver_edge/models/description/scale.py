"""Scales as people write them → the one multiplication and addition that a frame goes through."""

from __future__ import annotations

from tinysaver_edge.errors import InputError
from tinysaver_edge.models.description.facts import Quantization
from tinysaver_edge.models.description.schema import (
    PRESETS,
    Affine,
    MeanStd,
    Preset,
    Quantized,
    Raw,
)
from tinysaver_edge.preprocess import ColorOrder

Numbers = tuple[float, ...]


def to_affine(
    scale: MeanStd | Affine | Raw | Preset | Quantized,
    color: ColorOrder,
    quantization: Quantization | None = None,
) -> tuple[Numbers, Numbers]:
    """Return the factor and the offset for numbers 0..255, one value or one a channel.

    Args:
        scale: as it was described.
        color: order of the model's channels; presets are turned to it.
        quantization: what the integers of the model's input stand for.

    Raises:
        InputError: the file's quantisation is asked for, and it has none.
    """
    if isinstance(scale, Quantized):
        if quantization is None:
            raise InputError(
                'input.scale is "quantized", but the file does not say how its input is: give '
                "the scale that leads to its numbers"
            )
        multiply, add = to_affine(scale.of, color)
        return _quantized(multiply, add, quantization)
    if isinstance(scale, Preset):
        preset = to_affine(PRESETS[scale.name], color)
        return preset if color is ColorOrder.RGB else (preset[0][::-1], preset[1][::-1])
    if isinstance(scale, MeanStd):
        return _mean_std(scale)
    if isinstance(scale, Affine):
        return scale.multiply, scale.add
    return (1.0,), (0.0,)


def _mean_std(scale: MeanStd) -> tuple[Numbers, Numbers]:
    channels = max(len(scale.mean), len(scale.std))
    mean = scale.mean * (channels // len(scale.mean))
    std = scale.std * (channels // len(scale.std))
    multiply = tuple(1 / (255 * one) for one in std)
    return multiply, tuple(-one / other for one, other in zip(mean, std, strict=True))


def _quantized(multiply: Numbers, add: Numbers, to: Quantization) -> tuple[Numbers, Numbers]:
    """Divide by the step and move to the zero point: q = (x * multiply + add) / scale + zero."""
    return (
        tuple(one / to.scale for one in multiply),
        tuple(one / to.scale + to.zero_point for one in add),
    )
