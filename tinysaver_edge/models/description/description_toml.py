"""A whole description → the text of its TOML, as `description.description_from` reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tinysaver_edge.models.description.description import ModelDescription
from tinysaver_edge.preprocess import InputFormat, Preprocess


def to_toml(description: ModelDescription) -> str:
    """Return a description's fields; the file that it is of is not among them."""
    lines = [f"name = {_text(description.name)}"]
    if description.labels is not None:
        lines.append(f"labels = [{', '.join(map(_text, description.labels))}]")
    for field in ("macs", "published_top1"):
        value = getattr(description, field)
        if value is not None:
            lines.append(f"{field} = {_number(value)}")
    for field in ("engine", "device"):
        value = getattr(description, field)
        if value is not None:
            lines.append(f"{field} = {_text(value)}")
    if description.precision is not None:
        lines.append(f"precision = {_text(description.precision.value)}")
    return "\n".join([*lines, *_input(description.preprocess), *_output(description), ""])


def _input(preprocess: Preprocess) -> list[str]:
    resize, form = preprocess.resize, preprocess.format
    return [
        "[input]",
        f"layout = {_text(form.layout.value)}",
        f"dtype = {_text(form.dtype)}",
        f"color = {_text(form.color.value)}",
        f"size = [{resize.height}, {resize.width}]",
        f"scale = {_scale(form)}",
        f"resize = {{ policy = {_text(resize.policy.value)}, "
        f"crop_ratio = {_number(resize.crop_ratio)}, "
        f"antialias = {str(resize.antialias).lower()}, fill = {resize.fill} }}",
    ]


def _scale(form: InputFormat) -> str:
    if form.is_raw:
        return '"raw"'
    multiply, add = (_numbers(values) for values in (form.multiply, form.add))
    return f'{{ kind = "affine", multiply = {multiply}, add = {add} }}'


def _output(description: ModelDescription) -> list[str]:
    output = description.output
    lines = ["[output]", f"kind = {_text(output.kind.value)}"]
    if output.class_offset:
        lines.append(f"class_offset = {output.class_offset}")
    scale, zero = output.quantization_scale, output.quantization_zero_point
    if scale is not None and zero is not None:
        lines.append(f"quantization = {{ scale = {_number(scale)}, zero_point = {zero} }}")
    return lines


def _text(value: str) -> str:
    """Write a string as TOML does, which is as JSON does, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _numbers(values: Iterable[float]) -> str:
    return f"[{', '.join(map(_number, values))}]"


def _number(value: float) -> str:
    return repr(float(value))
