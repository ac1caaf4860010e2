"""The form of a model description, checked field by field; scales as people write them."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from tinysaver_edge.engines.base import Precision
from tinysaver_edge.errors import InputError
from tinysaver_edge.models.description.facts import Quantization
from tinysaver_edge.output_format import OutputKind
from tinysaver_edge.preprocess import ColorOrder, Layout, ResizePolicy

UNFILLED = "?"
"""Stands where only the model's maker knows the answer."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, (int, float)) else value


def _one_or_three(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) not in (1, 3):
        raise ValueError(f"has {len(values)} values: give one, or one for each of 3 channels")
    return values


Numbers = Annotated[tuple[float, ...], BeforeValidator(_as_list), AfterValidator(_one_or_three)]


def _fractions(values: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0 <= value <= 1 for value in values):
        raise ValueError(
            f"{max(values, key=abs):g} is outside 0..1: mean and std are those of x / 255, so "
            "divide by 255 what is meant for 0..255"
        )
    return values


Fractions = Annotated[Numbers, AfterValidator(_fractions)]


class MeanStd(_Strict):
    """``(x / 255 - mean) / std``."""

    kind: Literal["mean_std"]
    mean: Fractions
    std: Fractions

    @field_validator("std")
    @classmethod
    def _not_zero(cls, std: tuple[float, ...]) -> tuple[float, ...]:
        if 0 in std:
            raise ValueError("a deviation of 0 cannot be divided by")
        return std


class Affine(_Strict):
    """``x * multiply + add``."""

    kind: Literal["affine"]
    multiply: Numbers = (1.0,)
    add: Numbers = (0.0,)


class Raw(_Strict):
    """``x`` as it is."""

    kind: Literal["raw"]


PRESETS: dict[str, MeanStd | Raw] = {
    "imagenet": MeanStd(kind="mean_std", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "half": MeanStd(kind="mean_std", mean=(0.5,), std=(0.5,)),
    "unit": MeanStd(kind="mean_std", mean=(0.0,), std=(1.0,)),
    "raw": Raw(kind="raw"),
}
"""Scales by name: `imagenet` as torchvision and timm train with (mean and deviation of ImageNet's
colours), `half` to -1..1, `unit` to 0..1, `raw` the numbers 0..255 as they are."""


class Preset(_Strict):
    """One of `PRESETS`, whose values are in RGB whatever the model's own order."""

    kind: Literal["preset"]
    name: str


def _by_name(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in PRESETS:
        raise ValueError(f"no scale {value!r}: there are {', '.join(PRESETS)}, or give a table")
    return {"kind": "preset", "name": value}


RealScale = Annotated[
    Annotated[MeanStd | Affine | Raw | Preset, Field(discriminator="kind")],
    BeforeValidator(_by_name),
]


class QuantizedScale(_Strict):
    """The integers that the file's own quantisation gives for the numbers of another scale."""

    kind: Literal["quantized"]
    of: RealScale = Raw(kind="raw")


def _any_by_name(value: object) -> object:
    return {"kind": "quantized"} if value == "quantized" else _by_name(value)


AnyScale = Annotated[
    Annotated[MeanStd | Affine | Raw | Preset | QuantizedScale, Field(discriminator="kind")],
    BeforeValidator(_any_by_name),
]


def _as_pair(value: object) -> object:
    return (value, value) if isinstance(value, int) else value


class ResizeTable(_Strict):
    """How a frame is brought to the picture's size."""

    policy: ResizePolicy = ResizePolicy.SQUASH
    crop_ratio: float = Field(default=1.0, gt=0, le=1)
    antialias: bool = True
    fill: int = Field(default=114, ge=0, le=255)


class InputTable(_Strict):
    """What the model takes."""

    layout: Layout
    dtype: str
    color: ColorOrder
    size: Annotated[
        tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], BeforeValidator(_as_pair)
    ]
    scale: AnyScale
    resize: ResizeTable = ResizeTable()

    @field_validator("dtype")
    @classmethod
    def _numeric(cls, name: str) -> str:
        try:
            dtype = np.dtype(name)
        except TypeError:
            dtype = None
        if dtype is None or dtype.kind not in "fiu":
            raise ValueError(f"{name!r} is no numeric type such as float32, float16, uint8, int8")
        return dtype.name


class QuantizationTable(_Strict):
    """What the integers of an answer stand for."""

    scale: float = Field(gt=0)
    zero_point: int


class OutputTable(_Strict):
    """How the model states its answer."""

    kind: OutputKind
    name: str | None = Field(default=None, min_length=1)
    class_offset: int = Field(default=0, ge=0)
    quantization: QuantizationTable | None = None


class DescriptionTable(_Strict):
    """A whole description."""

    name: str | None = Field(default=None, min_length=1)
    labels: str | tuple[str, ...] | None = None
    macs: float | None = Field(default=None, gt=0)
    published_top1: float | None = Field(default=None, gt=0, le=100)
    engine: str | None = None
    device: str | None = None
    precision: Precision | None = None
    fitted_on: tuple[Annotated[str, Field(pattern="^[0-9a-f]{16}$")], ...] = ()
    input: InputTable
    output: OutputTable


def unfilled(table: object, prefix: str = "") -> list[str]:
    """Return the names of the fields that still hold a question mark, dotted."""
    if isinstance(table, dict):
        inner = (
            unfilled(value, f"{prefix}.{key}" if prefix else key) for key, value in table.items()
        )
        return [name for names in inner for name in names]
    return [prefix] if table == UNFILLED else []


_SCALES: dict[str, type[BaseModel]] = {
    "mean_std": MeanStd,
    "affine": Affine,
    "raw": Raw,
    "preset": Preset,
    "quantized": QuantizedScale,
}
_TABLES: dict[tuple[str, ...], type[BaseModel]] = {
    (): DescriptionTable,
    ("input",): InputTable,
    ("input", "resize"): ResizeTable,
    ("output",): OutputTable,
    ("output", "quantization"): QuantizationTable,
}


def complaint(error: ValidationError) -> str:
    """Return one of pydantic's complaints about a description in a line, with the field's name.

    An unknown field comes first: it is often the misspelt name of one that is missing.
    """
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    path = [str(part) for part in first["loc"]]
    field = ".".join(part for part in path if part not in _SCALES)
    if first["type"] == "extra_forbidden":
        table = _SCALES.get(path[-2]) if len(path) > 1 else None
        known = (table or _TABLES[tuple(path[:-1])]).model_fields
        return f"unknown field {field}; known are {', '.join(known)}"
    if first["type"] == "missing":
        return f"field {field} is missing"
    return f"field {field}: {first['msg'].removeprefix('Value error, ')}"


Factors = tuple[float, ...]


def to_affine(
    scale: MeanStd | Affine | Raw | Preset | QuantizedScale,
    color: ColorOrder,
    quantization: Quantization | None = None,
) -> tuple[Factors, Factors]:
    """Return the factor and the offset for numbers 0..255, one value or one a channel.

    Args:
        scale: as it was described.
        color: order of the model's channels; presets are turned to it.
        quantization: what the integers of the model's input stand for.

    Raises:
        InputError: the file's quantisation is asked for, and it has none.
    """
    if isinstance(scale, QuantizedScale):
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


def _mean_std(scale: MeanStd) -> tuple[Factors, Factors]:
    channels = max(len(scale.mean), len(scale.std))
    mean = scale.mean * (channels // len(scale.mean))
    std = scale.std * (channels // len(scale.std))
    multiply = tuple(1 / (255 * one) for one in std)
    return multiply, tuple(-one / other for one, other in zip(mean, std, strict=True))


def _quantized(multiply: Factors, add: Factors, to: Quantization) -> tuple[Factors, Factors]:
    """Divide by the step and move to the zero point: q = (x * multiply + add) / scale + zero."""
    return (
        tuple(one / to.scale for one in multiply),
        tuple(one / to.scale + to.zero_point for one in add),
    )
