"""The plausible readings of a model's file: how pictures may be meant to become its input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tinysaver_edge.models.description.description import ModelDescription
from tinysaver_edge.models.description.facts import FileFacts, Quantization, read_facts
from tinysaver_edge.models.description.schema import (
    PRESETS,
    Affine,
    MeanStd,
    QuantizedScale,
    Raw,
    to_affine,
)
from tinysaver_edge.models.graph.reader import READABLE
from tinysaver_edge.preprocess import (
    ColorOrder,
    InputFormat,
    Layout,
    Preprocess,
    Resize,
    ResizePolicy,
)

_FURTHER_SCALES: dict[str, MeanStd | Affine | Raw] = {
    "affine 1, [-123.68, -116.779, -103.939] (Caffe)": Affine(
        kind="affine", multiply=(1.0,), add=(-123.68, -116.779, -103.939)
    ),
    "mean_std [0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616] (CIFAR-10)": MeanStd(
        kind="mean_std", mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616)
    ),
    "mean_std [0.4815, 0.4578, 0.4082], [0.2686, 0.2613, 0.2758] (CLIP)": MeanStd(
        kind="mean_std",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    ),
}
_RESIZES = {
    "squash": (ResizePolicy.SQUASH, 1.0),
    "center_crop": (ResizePolicy.CENTER_CROP, 1.0),
    "center_crop, crop_ratio 0.875": (ResizePolicy.CENTER_CROP, 0.875),
    "letterbox": (ResizePolicy.LETTERBOX, 1.0),
}


@dataclass(frozen=True, slots=True)
class Way:
    """A reading to be tried: what differs, and how pictures and answers are then made."""

    what: str
    preprocess: Preprocess


def all_ways(description: ModelDescription) -> Iterator[Way]:
    """Yield every reading of a file but the described one."""
    said, facts = description.preprocess, _facts(description)
    quantization = None if facts is None else facts.input_quantization
    seen = {_rounded(said.format, said.format.color)}
    for name, form in _formats(said.format, quantization):
        if form not in seen:
            seen.add(form)
            yield Way(name, replace(said, format=form))
    yield from resized(Way("", said), "")
    other = Layout.NHWC if said.format.layout is Layout.NCHW else Layout.NCHW
    turned = replace(said, format=replace(said.format, layout=other))
    if turned.shape(1)[1:] == said.shape(1)[1:] or (facts is not None and _is_open(facts)):
        yield Way(f"layout {other.value}", turned)


def _facts(description: ModelDescription) -> FileFacts | None:
    if description.file.suffix not in READABLE:
        return None
    return read_facts(description.file, output=description.output.name)


def _is_open(facts: FileFacts) -> bool:
    """Whether the file takes any number of channels wherever they stand."""
    shape = facts.signature.input_shape
    return len(shape) == 4 and all(axis is None for axis in shape[1:])


def _formats(
    said: InputFormat, quantization: Quantization | None
) -> Iterator[tuple[str, InputFormat]]:
    """Yield every scale in every colour order, with what differs from the one described."""
    colors = (ColorOrder.RGB, ColorOrder.BGR) if said.color.channels == 3 else (said.color,)
    in_rgb = [_turned(one, said.color) for one in (said.multiply, said.add)]
    for color in colors:
        for name, (multiply, add) in [("", in_rgb), *_scales(said, quantization)]:
            parts = [f"scale {name}"] if name else []
            if color is not said.color:
                parts.append(f"color {color.value}")
            one = _turned(multiply, color), _turned(add, color)
            if color.channels == 1 and max(map(len, one)) > 1:
                continue
            yield " and ".join(parts), _rounded(replace(said, multiply=one[0], add=one[1]), color)


def _rounded(form: InputFormat, color: ColorOrder) -> InputFormat:
    """Return a format with its numbers written shortly, so that equal ones compare equal."""
    multiply, add = (
        tuple(float(f"{value:.7g}") + 0.0 for value in one) for one in (form.multiply, form.add)
    )
    return replace(form, color=color, multiply=multiply, add=add)


def _turned(values: tuple[float, ...], color: ColorOrder) -> tuple[float, ...]:
    return values[::-1] if color is ColorOrder.BGR else values


def _scales(
    said: InputFormat, quantization: Quantization | None
) -> Iterator[tuple[str, tuple[tuple[float, ...], tuple[float, ...]]]]:
    """Yield the scales that a model of such a type may want, for channels in RGB."""
    if np.dtype(said.dtype).kind == "f":
        for name, scale in {**PRESETS, **_FURTHER_SCALES}.items():
            yield f'"{name}"' if name in PRESETS else name, to_affine(scale, ColorOrder.RGB)
        return
    lowest = float(np.iinfo(said.dtype).min)
    yield f"{{ add = {lowest:g} }}" if lowest else '"raw"', ((1.0,), (lowest,))
    if quantization is not None:
        for name, scale in PRESETS.items():
            made = QuantizedScale(kind="quantized", of=scale)
            yield f"quantized of {name}", to_affine(made, ColorOrder.RGB, quantization)


def resized(way: Way, before: str) -> Iterator[Way]:
    """Yield a reading with every other way to resize, what it differs in after other words."""
    said = way.preprocess.resize
    for name, (policy, ratio) in _RESIZES.items():
        other = replace(said, policy=policy, crop_ratio=ratio)
        if not _same(other, said):
            yield Way(f"{before}resize {name}", replace(way.preprocess, resize=other))


def _same(one: Resize, other: Resize) -> bool:
    if one.policy is not other.policy:
        return False
    return one.policy is not ResizePolicy.CENTER_CROP or one.crop_ratio == other.crop_ratio
