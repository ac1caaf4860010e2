"""Write a model's description as far as its file tells it; mark what only its maker knows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinysaver_edge._support.files import open_regular
from tinysaver_edge.engines.model_file import check_model_file
from tinysaver_edge.errors import InputError
from tinysaver_edge.models.description.carried import Carried, read_carried, read_metadata
from tinysaver_edge.models.description.description import (
    METADATA_KEY,
    ModelDescription,
    description_from,
    parse_description,
)
from tinysaver_edge.models.description.facts import FileFacts, Quantization, read_facts
from tinysaver_edge.models.description.schema import PRESETS, UNFILLED, to_affine, unfilled
from tinysaver_edge.models.embed.onnx import FRAME
from tinysaver_edge.models.graph.graph import channels_first
from tinysaver_edge.output_format import BINARY, MULTI_LABEL
from tinysaver_edge.preprocess import ColorOrder, InputFormat, Preprocess, ResizePolicy

_CHOICES = (
    '# "imagenet": (x / 255 - mean) / std with ImageNet\'s mean and deviation (torchvision, timm)',
    '# "half": x / 127.5 - 1 (TensorFlow and Keras MobileNets, Inception, timm\'s ViTs)',
    '# "unit": x / 255   "raw": x, 0..255 (Keras EfficientNet, models with scaling inside)',
    '# { kind = "mean_std", mean = [..], std = [..] }   { kind = "affine", multiply = 1, add = 0 }',
)
_LARGEST_GAP = 0.06  # of the range: a quantised range is widened a little to hold zero exactly
_WHOLE_STEP = 0.03  # by which a factor may miss 1, where the integers are pixels less a constant


def describe_scale(
    facts: FileFacts, known: str | None, carried: Carried | None = None
) -> list[str]:
    """Return the lines of a description that give the scale."""
    if known is not None:
        return [f"scale = {_checked(known)}"]
    dtype, quantization = facts.signature.input_dtype, facts.input_quantization
    if np.dtype(dtype).kind == "f":
        if carried is not None and carried.scale is not None:
            return [f"scale = {carried.scale}  # {carried.source}"]
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


def to_toml(description: ModelDescription) -> str:
    """Return a description's fields; the file that it is of is not among them."""
    lines = [f"name = {_toml_text(description.name)}"]
    if description.labels is not None:
        lines.append(f"labels = [{', '.join(map(_toml_text, description.labels))}]")
    for field in ("macs", "published_top1"):
        value = getattr(description, field)
        if value is not None:
            lines.append(f"{field} = {_number(value)}")
    for field in ("engine", "device"):
        value = getattr(description, field)
        if value is not None:
            lines.append(f"{field} = {_toml_text(value)}")
    if description.precision is not None:
        lines.append(f"precision = {_toml_text(description.precision.value)}")
    if description.fitted_on:
        lines.append(f"fitted_on = [{', '.join(map(_toml_text, description.fitted_on))}]")
    return "\n".join(
        [
            *lines,
            *_toml_input(description.preprocess),
            *_toml_output(description),
            "",
        ]
    )


def _toml_input(preprocess: Preprocess) -> list[str]:
    resize, form = preprocess.resize, preprocess.format
    return [
        "[input]",
        f"layout = {_toml_text(form.layout.value)}",
        f"dtype = {_toml_text(form.dtype)}",
        f"color = {_toml_text(form.color.value)}",
        f"size = [{resize.height}, {resize.width}]",
        f"scale = {_scale(form)}",
        f"resize = {{ policy = {_toml_text(resize.policy.value)}, "
        f"crop_ratio = {_number(resize.crop_ratio)}, "
        f"antialias = {str(resize.antialias).lower()}, fill = {resize.fill} }}",
    ]


def _scale(form: InputFormat) -> str:
    if form.is_raw:
        return '"raw"'
    multiply, add = (_numbers(values) for values in (form.multiply, form.add))
    return f'{{ kind = "affine", multiply = {multiply}, add = {add} }}'


def _toml_output(description: ModelDescription) -> list[str]:
    output = description.output
    lines = ["[output]", f"kind = {_toml_text(output.kind.value)}"]
    if output.name is not None:
        lines.append(f"name = {_toml_text(output.name)}")
    if output.class_offset:
        lines.append(f"class_offset = {output.class_offset}")
    scale, zero = output.quantization_scale, output.quantization_zero_point
    if scale is not None and zero is not None:
        lines.append(f"quantization = {{ scale = {_number(scale)}, zero_point = {zero} }}")
    return lines


def _toml_text(value: str) -> str:
    """Write a string as TOML does, which is as JSON does, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _numbers(values: Iterable[float]) -> str:
    return f"[{', '.join(map(_number, values))}]"


def _number(value: float) -> str:
    return repr(float(value))


IMAGENET_WITH_BACKGROUND = 1001
"""Outputs of TensorFlow's ImageNet models, whose first is no class."""


@dataclass(frozen=True, slots=True)
class KnownAlready:
    """What the user knows already; None leaves the field as the file or the default has it.

    Attributes:
        color: RGB, BGR or GRAY.
        scale: a preset's name (imagenet, half, unit, raw), "quantized", or a table in TOML
            (``{ kind = "affine", multiply = 0.1, add = 0 }``).
        labels: file of class names, beside the model or the description.
        resize: squash, center_crop or letterbox.
        crop_ratio: side of the centre crop as a fraction of the largest possible.
        output: name of the output that holds the classes, where there are several.
    """

    color: ColorOrder | None = None
    scale: str | None = None
    labels: str | None = None
    resize: ResizePolicy | None = None
    crop_ratio: float | None = None
    output: str | None = None


def describe(model: Path, answers: KnownAlready | None = None) -> str:
    """Return the description of a model as TOML, with comments on what is to be filled in.

    A description that the file carries itself is taken over as it is, but for the answers.

    Raises:
        MissingDependencyError: nothing that reads such a file is installed.
        ModelError: the file is missing or damaged, or takes no picture.
        InputError: an answer does not fit.
    """
    answers = answers or KnownAlready()
    check_model_file(model)
    own = read_metadata(model).get(METADATA_KEY)
    if own is not None:
        return _taken_over(parse_description(own, f"{model} (metadata)"), model, answers)
    facts = read_facts(model, output=answers.output)
    if len(facts.signature.input_shape) != 4:
        raise InputError(
            f"model {model}: its input {facts.signature.input_name!r} is no picture: it has "
            f"{len(facts.signature.input_shape)} axes instead of 4"
        )
    carried = read_carried(model, facts.signature.output_shape[1])
    body = "\n".join(
        [
            f"name = {_text(model.stem)}",
            _labels(facts, answers, model, carried),
            "",
            "[input]",
            *_input(facts, answers, carried),
            "",
            "[output]",
            *_output(facts, answers),
        ]
    )
    return f"{_head(body, model)}\n{body}\n"


def _taken_over(said: dict[str, Any], model: Path, answers: KnownAlready) -> str:
    """Return the description that a file carries, with the answers put over it."""
    source = f"{model} (metadata)"
    own = description_from(said, model, folder=model.parent, source=source, confined=True)
    resize: dict[str, Any] = {}
    if answers.resize is not None:
        resize["policy"] = answers.resize.value
    if answers.crop_ratio is not None:
        resize["crop_ratio"] = answers.crop_ratio
    given: dict[str, Any] = {} if answers.labels is None else {"labels": answers.labels}
    source_table, output_table = (dict(said.get(name) or {}) for name in ("input", "output"))
    if answers.color is not None:
        source_table["color"] = answers.color.value
    if answers.scale is not None:
        scale = f"scale = {_checked(answers.scale)}"
        source_table.update(parse_description(scale, f"--scale {answers.scale}"))
    if resize:
        source_table["resize"] = {**source_table.get("resize", {}), **resize}
    if answers.output is not None:
        output_table["name"] = answers.output
    table = {**said, **given, "input": source_table, "output": output_table}
    confined = answers.labels is None
    found = description_from(table, model, folder=model.parent, source=source, confined=confined)
    changed = " but for your answers" if found != own else ""
    return (
        f"# {model.name}, as the description in the file itself has it{changed}.\n{to_toml(found)}"
    )


def _head(body: str, model: Path) -> str:
    """Say what is left to fill in; where nothing is, the description must hold."""
    table = parse_description(body, f"description of {model}")
    still_open = unfilled(table)
    if not still_open:
        description_from(
            {key: value for key, value in table.items() if key != "labels"},
            model,
            folder=model.parent,
            source=f"description of {model}",
        )
        return f"# {model.name}, as its file and your answers describe it."
    return (
        f'# {model.name}, as its file describes it. It does not tell what stands as "{UNFILLED}":\n'
        f"# {', '.join(still_open)}."
    )


def _labels(facts: FileFacts, answers: KnownAlready, model: Path, carried: Carried | None) -> str:
    outputs = facts.signature.output_shape[1]
    outputs = BINARY if outputs == 1 else outputs
    count = "one class a line" if outputs is None else f"one class a line, {outputs} of them"
    if answers.labels is not None:
        return f"labels = {_text(answers.labels)}"
    if carried is not None and carried.labels is not None:
        names = carried.labels
        if outputs in (None, len(names), len(names) + 1):
            return f"labels = [{', '.join(map(_toml_text, names))}]  # {carried.source}"
        return f"# {carried.source} has {len(names)} labels: labels = ... needs {outputs}"
    found = _files_of_names(model, outputs) if outputs is not None else []
    if len(found) == 1:
        return f"labels = {_text(found[0])}  # lies beside the model and has as many lines"
    return f'# labels = "labels.txt"  # a file beside this one, {count}'


def _files_of_names(model: Path, outputs: int) -> list[str]:
    """Return the text files beside a model that have a line for each output."""
    found = []
    for path in sorted(model.parent.glob("*.txt")):
        with suppress(OSError):  # a pipe, a link to nowhere: nobody has named it
            with open_regular(path) as file:
                text = file.read(_LONGEST_NAMES + 1)
            if len(text) <= _LONGEST_NAMES and len(text.splitlines()) == outputs:
                found.append(path.name)
    return found


_LONGEST_NAMES = 1 << 20


def _input(facts: FileFacts, answers: KnownAlready, carried: Carried | None) -> list[str]:
    shape = facts.signature.input_shape
    first = channels_first(shape)
    if (shape[1 if first else 3] or 3) not in (1, 3):
        raise InputError(
            f"a picture has 1 or 3 channels: the input {facts.signature.input_name!r} is "
            f"({', '.join('n' if axis is None else str(axis) for axis in shape)})"
        )
    channels, height, width = shape[1:] if first else (shape[3], shape[1], shape[2])
    size = f"[{height}, {width}]" if height and width else f'"{UNFILLED}"'
    note = "height, width" if height and width else "the file takes any: [height, width]"
    return [
        _layout(shape),
        f"dtype = {_text(facts.signature.input_dtype)}",
        f"size = {size}  # {note}",
        _color(answers.color or _known_color(facts), channels, carried),
        *describe_scale(facts, answers.scale, carried),
        *_resize(answers, carried),
    ]


def _layout(shape: tuple[int | None, ...]) -> str:
    line = f'layout = "{"NCHW" if channels_first(shape) else "NHWC"}"'
    first, last = (axis in (None, 1, 3) for axis in (shape[1], shape[3]))
    return f"{line}  # assumed: the file leaves it open" if first and last else line


def _known_color(facts: FileFacts) -> ColorOrder | None:
    """Models that `embed` made take frames as OpenCV gives them."""
    return ColorOrder.BGR if facts.signature.input_name == FRAME else None


def _color(known: ColorOrder | None, channels: int | None, carried: Carried | None) -> str:
    told = None if carried is None else carried.color
    if known is None and told is not None and channels in (None, told.channels):
        return f'color = "{told.value}"  # {carried.source if carried is not None else ""}'
    if known is None and channels != 1:
        return (
            f'color = "{UNFILLED}"  # "RGB": torchvision, timm, TensorFlow, Keras; "BGR": OpenCV, '
            "Caffe"
        )
    color = known or ColorOrder.GRAY
    if channels is not None and color.channels != channels:
        raise InputError(
            f"color {color.value} has {color.channels} channels, the model takes {channels}"
        )
    return f'color = "{color.value}"'


def _resize(answers: KnownAlready, carried: Carried | None) -> list[str]:
    told = None if carried is None else carried.resize
    policy = answers.resize or told or ResizePolicy.SQUASH
    ratio = "" if answers.crop_ratio is None else f", crop_ratio = {answers.crop_ratio}"
    line = f'resize = {{ policy = "{policy.value}"{ratio}, antialias = true }}'
    if answers.resize is not None:
        return [line]
    if carried is not None and told is not None:
        return [f"{line}  # {carried.source}"]
    return [
        "# How frames are brought to that size: assumed, best is what the model was trained with.",
        '# { policy = "center_crop", crop_ratio = 0.875 } cuts (torchvision, timm), { policy =',
        '# "letterbox", fill = 114 } keeps all in its proportions (YOLO).',
        line,
    ]


def _output(facts: FileFacts, answers: KnownAlready) -> list[str]:
    lines = []
    if answers.output is not None:
        lines.append(f"name = {_toml_text(answers.output)}")
    single = facts.signature.output_shape[1] == 1
    if single and facts.last_operation == "Sigmoid":
        lines.append('kind = "probabilities"  # one sigmoid: two classes, it is the second\'s')
    elif single and not facts.ends_in_softmax:
        lines.append('kind = "logits"  # one number: two classes, it speaks for the second')
    elif facts.ends_in_softmax:
        lines.append('kind = "probabilities"  # it ends in a softmax')
    elif facts.is_multi_label:
        lines.append(f'kind = "{UNFILLED}"  # {MULTI_LABEL}')
    else:
        lines.append(f'kind = "logits"  # it ends in {facts.last_operation or "no softmax"}')
    if facts.signature.output_shape[1] == IMAGENET_WITH_BACKGROUND:
        lines.append("class_offset = 1  # 1001 outputs: the first is most likely a background")
    else:
        lines.append("class_offset = 0  # 1 if the first output is a background")
    if facts.output_quantization is not None:
        scale, zero = facts.output_quantization.scale, facts.output_quantization.zero_point
        lines.append(f"quantization = {{ scale = {scale!r}, zero_point = {zero} }}")
    return lines


def _text(value: str) -> str:
    """Quote text; JSON's strings are TOML's basic strings."""
    return json.dumps(value)
