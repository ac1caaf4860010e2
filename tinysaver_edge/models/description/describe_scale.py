"""Which scale a model's input has: read from its quantisation, or offered to be chosen."""

from __future__ import annotations

import numpy as np

from tinysaver_edge.errors import InputError
from tinysaver_edge.models.description.facts import ModelFacts, Quantization
from tinysaver_edge.models.description.scale import to_affine
from tinysaver_edge.models.description.schema import PRESETS, UNFILLED
from tinysaver_edge.preprocess import ColorOrder

_CHOICES = (
    '# "imagenet": (x / 255 - mean) / std with ImageNet\'s mean and deviation (torchvision, timm)',
    '# "half": x / 127.5 - 1 (TensorFlow and Keras MobileNets, Inception, timm\'s ViTs)',
    '# "unit": x / 255   "raw": x, 0..255 (Keras EfficientNet, models with scaling inside)',
    '# { kind = "mean_std", mean = [..], std = [..] }   { kind = "affine", multiply = 1, add = 0 }',
)
_LARGEST_GAP = 0.06  # of the range: a quantised range is widened a little to hold zero exactly
_WHOLE_STEP = 0.03  # by which a factor may miss 1, where the integers are pixels less a constant


def describe_scale(facts: ModelFacts, known: str | None) -> list[str]:
    """Return the lines of a description that give the scale."""
    if known is not None:
        return [f"scale = {_checked(known)}"]
    dtype, quantization = facts.signature.input_dtype, facts.input_quantization
    if np.dtype(dtype).kind == "f":
        if facts.scales_input:
            return ['scale = "raw"  # the graph itself begins with arithmetic on the picture']
        return [*_CHOICES, f'scale = "{UNFILLED}"']
    if quantization is not None:
        return [_of_quantization(quantization, dtype)]
    if dtype == "uint8":
        return ['scale = "raw"  # pixels as they are']
    return [
        f'scale = "{UNFILLED}"  # what makes {dtype} of 0..255: {{ kind = "affine", add = -128 }}?'
    ]


def _checked(known: str) -> str:
    known = known.strip()
    if known.startswith("{"):
        return known
    if known not in PRESETS and known != "quantized":
        names = ", ".join(PRESETS)
        raise InputError(
            f"no scale {known!r}: there are {names}, quantized, or a table such as "
            '{ kind = "affine", multiply = 0.01, add = 0 }'
        )
    return f'"{known}"'


def _of_quantization(quantization: Quantization, dtype: str) -> str:
    """Tell the scale by the range of real numbers that the input's integers cover."""
    limits = np.iinfo(dtype)
    ends = (np.array([limits.min, limits.max]) - quantization.zero_point) * quantization.scale
    gaps = {name: _gap(name, ends) for name in PRESETS}
    name = min(gaps, key=gaps.__getitem__)
    covers = f"its quantisation covers {ends[0]:.3g} to {ends[1]:.3g}"
    if gaps[name] > _LARGEST_GAP:
        return f'scale = "{UNFILLED}"  # {{ kind = "quantized", of = ... }}: {covers}'
    multiply, _ = to_affine(PRESETS[name], ColorOrder.RGB)
    if all(abs(one / quantization.scale - 1) <= _WHOLE_STEP for one in multiply):
        if limits.min == 0:
            return f'scale = "raw"  # pixels as they are: {covers}'
        return f'scale = {{ kind = "affine", add = {limits.min} }}  # {covers}'
    return f'scale = {{ kind = "quantized", of = "{name}" }}  # {covers}'


def _gap(name: str, ends: np.ndarray) -> float:
    """Return how far a preset's range of numbers is from the one covered, as a share of it."""
    multiply, add = (np.array(one) for one in to_affine(PRESETS[name], ColorOrder.RGB))
    low, high = float(add.min()), float((255 * multiply + add).max())
    return max(abs(low - float(ends[0])), abs(high - float(ends[1]))) / (high - low)
