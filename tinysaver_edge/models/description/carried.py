"""What a model's file carries besides its graph: our own texts, and what other tools wrote.

TensorFlow Lite's metadata (Model Maker, Coral, Teachable Machine), OpenVINO's Model API
(``model_info``) and Ultralytics' exports tell of input and classes. All of it is a help for
`describe`: what is damaged or unknown is passed over.
"""

from __future__ import annotations

import ast
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tinysaver_edge._support.files import atomic_write, members_of
from tinysaver_edge.engines.model_file import DAMAGED, FlatBuffer
from tinysaver_edge.engines.model_file import read_metadata as read_onnx_metadata
from tinysaver_edge.engines.openvino import open_core, read_model, save_model
from tinysaver_edge.engines.timm_file import read_header
from tinysaver_edge.errors import InputError, TinySaverError
from tinysaver_edge.models.description.schema import PRESETS, to_affine
from tinysaver_edge.models.graph.onnx import load_onnx
from tinysaver_edge.models.labels import labels_in
from tinysaver_edge.preprocess import ColorOrder, ResizePolicy

_GROUP = "tinysaver_edge"
_LARGEST_TEXT = 1 << 20
_CLOSE = 1e-3  # of the range, by which a scale may miss a preset that is meant
# TensorFlow Lite: a zip of associated files behind the FlatBuffer, and a second FlatBuffer in one
# of its buffers that says what they are. Places of the fields by its two schemas.
_MODEL_BUFFERS, _MODEL_METADATA = 4, 6

_GRAPHS, _GRAPH_INPUTS, _GRAPH_OUTPUTS = 3, 2, 3
_TENSOR_CONTENT, _TENSOR_UNITS, _TENSOR_FILES = 3, 4, 6
_IMAGE_CONTENT, _NORMALIZATION = 2, 1
_AXIS_LABELS = 2
_COLORS = {1: ColorOrder.RGB, 2: ColorOrder.GRAY}
_NO_ZIP = (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError, NotImplementedError)
_RESIZES = {
    "standard": ResizePolicy.SQUASH,
    "fit_to_window_letterbox": ResizePolicy.LETTERBOX,
    "crop": ResizePolicy.CENTER_CROP,
}


def read_metadata(model: Path) -> dict[str, str]:
    """Return a file's metadata, of an .xml only those that this package wrote.

    Args:
        model: an .onnx, .safetensors or .xml; other files carry none. An .xml is read with
            OpenVINO and has none where that is not installed.

    Raises:
        ModelError: the file is damaged.
    """
    if model.suffix == ".onnx":
        return read_onnx_metadata(model)
    if model.suffix == ".safetensors":
        return read_header(model)
    if model.suffix == ".xml" and find_spec("openvino") is not None:
        return _read_xml(model)
    return {}


def write_metadata(model: Path, entries: Mapping[str, str]) -> None:
    """Write texts into a model's file, in place of those of the same names.

    Args:
        model: an .onnx or .xml.
        entries: names like ``"tinysaver_edge.description"``, and their texts.

    Raises:
        InputError: such files carry none.
        ModelError: the file is damaged.
        MissingDependencyError: what writes it is not installed.
    """
    if model.suffix == ".onnx":
        _write_onnx(model, entries)
    elif model.suffix == ".xml":
        _write_xml(model, entries)
    else:
        raise InputError(f"model {model}: a {model.suffix} file carries no metadata to be changed")


def _write_onnx(model: Path, entries: Mapping[str, str]) -> None:
    proto = load_onnx(model)
    kept = [one for one in proto.metadata_props if one.key not in entries]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    for key, value in entries.items():
        proto.metadata_props.add(key=key, value=value)
    with atomic_write(model) as file:
        file.write(proto.SerializeToString(deterministic=True))


def _read_xml(model: Path) -> dict[str, str]:
    network = read_model(open_core(), model)
    if not network.has_rt_info([_GROUP]):
        return {}
    texts = network.get_rt_info([_GROUP])
    texts = getattr(texts, "value", texts)
    return {f"{_GROUP}.{key}": str(getattr(text, "value", text)) for key, text in texts.items()}


def _write_xml(model: Path, entries: Mapping[str, str]) -> None:
    """Save anew, both files under other names first; the .bin stays the same."""
    network = read_model(open_core(), model)
    for key, value in entries.items():
        network.set_rt_info(value, key.split("."))
    save_model(network, model)


@dataclass(frozen=True, slots=True)
class Carried:
    """What a file carries; None where it says nothing.

    Attributes:
        source: what wrote it, in a few words.
        scale: as a description states it, in TOML; it is that of a float input.
        resize: how a frame is brought to the picture's size.
    """

    source: str
    labels: tuple[str, ...] | None = None
    scale: str | None = None
    color: ColorOrder | None = None
    resize: ResizePolicy | None = None


def read_carried(model: Path, outputs: int | None) -> Carried | None:
    """Return what a file carries, or None.

    Args:
        model: an .onnx, .xml or .tflite file.
        outputs: how many outputs it has, which tells the file of labels among others.
    """
    try:
        if model.suffix == ".tflite":
            return _of_tflite(model, outputs)
        if model.suffix == ".onnx":
            return _of_texts(read_onnx_metadata(model))
        if model.suffix == ".xml":
            return _of_texts(_model_info(model))
    except (TinySaverError, OSError):
        pass
    return None


def _of_tflite(model: Path, outputs: int | None) -> Carried | None:
    files = _associated_files(model)
    try:
        scale, color, name = _told(_metadata_buffer(model.read_bytes()))
    except DAMAGED:
        scale, color, name = None, None, None
    labels = _labels_among(files, name, outputs)
    if (scale, color, labels) == (None, None, None):
        return None
    return Carried("TensorFlow Lite's metadata in the file", labels, scale, color)


def _associated_files(model: Path) -> dict[str, str]:
    """Return the texts of the zip that is appended to a file, by name."""
    if not zipfile.is_zipfile(model):
        return {}
    found = {}
    try:
        with zipfile.ZipFile(model) as archive:
            for entry in members_of(archive):
                if entry.filename.endswith(".txt") and entry.file_size <= _LARGEST_TEXT:
                    with archive.open(entry) as file:
                        text = file.read(_LARGEST_TEXT)
                    found[entry.filename] = text.decode("utf-8-sig", "replace")
    except _NO_ZIP:
        return {}
    return found


def _metadata_buffer(data: bytes) -> bytes:
    """Return the FlatBuffer of metadata, empty where there is none."""
    file = FlatBuffer(data)
    root = file.root
    for entry in file.tables(root, _MODEL_METADATA):
        if file.content(entry, 0) == b"TFLITE_METADATA":
            buffers = list(file.tables(root, _MODEL_BUFFERS))
            return file.content(buffers[file.scalar(entry, 1, "I")], 0)
    return b""


def _told(data: bytes) -> tuple[str | None, ColorOrder | None, str | None]:
    """Return the scale, the colours and the name of the file of labels, None where unsaid."""
    if not data:
        return None, None, None
    file = FlatBuffer(data)
    graph = next(file.tables(file.root, _GRAPHS), None)
    if graph is None:
        return None, None, None
    source = next(file.tables(graph, _GRAPH_INPUTS), None)
    scale = None if source is None else _normalization(file, source)
    color = None if source is None else _color_space(file, source)
    names = (
        file.content(one, 0).decode()
        for answer in file.tables(graph, _GRAPH_OUTPUTS)
        for one in file.tables(answer, _TENSOR_FILES)
        if file.scalar(one, 2, "b") == _AXIS_LABELS
    )
    return scale, color, next(names, None)


def _normalization(file: FlatBuffer, tensor: int) -> str | None:
    for unit in file.tables(tensor, _TENSOR_UNITS):
        options = file.table(unit, 1)
        if file.scalar(unit, 0, "B") == _NORMALIZATION and options is not None:
            return _scale_text(file.floats(options, 0), file.floats(options, 1))
    return None


def _color_space(file: FlatBuffer, tensor: int) -> ColorOrder | None:
    content = file.table(tensor, _TENSOR_CONTENT)
    if content is None or file.scalar(content, 0, "B") != _IMAGE_CONTENT:
        return None
    image = file.table(content, 1)
    return None if image is None else _COLORS.get(file.scalar(image, 0, "b"))


def _labels_among(
    files: Mapping[str, str], name: str | None, outputs: int | None
) -> tuple[str, ...] | None:
    """Return the labels: of the file that is named, else of the one that has as many lines."""
    if name is not None and name in files:
        return labels_in(files[name]) or None
    found = [labels_in(text) for text in files.values()]
    fitting = [labels for labels in found if labels and outputs in (None, len(labels))]
    return fitting[0] if len(fitting) == 1 else None


def _scale_text(mean: Sequence[float], std: Sequence[float]) -> str | None:
    """Write ``(x - mean) / std`` of numbers 0..255 as a preset where it is one, else in full."""
    if not mean or not std or 0 in std or {len(mean), len(std)} - {1, 3}:
        return None
    if not np.isfinite([*mean, *std]).all():
        return None
    multiply, add = (np.resize(np.array(one), 3) for one in (std, mean))
    multiply, add = 1 / multiply, -add / multiply
    for name, preset in PRESETS.items():
        wanted = [np.resize(np.array(one), 3) for one in to_affine(preset, ColorOrder.RGB)]
        ends = 255 * wanted[0] + wanted[1], 255 * multiply + add
        gap = max(np.abs(ends[0] - ends[1]).max(), np.abs(wanted[1] - add).max())
        if gap <= _CLOSE * np.ptp([ends[0], wanted[1]]):
            return f'"{name}"'
    numbers = [f"[{', '.join(f'{value:.8g}' for value in one)}]" for one in (multiply, add)]
    return f'{{ kind = "affine", multiply = {numbers[0]}, add = {numbers[1]} }}'


def _of_texts(texts: Mapping[str, str]) -> Carried | None:
    """Read OpenVINO's Model API, or Ultralytics' names."""
    info = {
        key.removeprefix("model_info").lstrip(" ._"): value
        for key, value in texts.items()
        if key.startswith("model_info")
    }
    if info:
        return _of_model_info(info)
    if texts.get("task") == "classify" and "names" in texts:
        labels = _numbered_names(texts["names"])
        if labels is not None:
            return Carried(
                "Ultralytics' metadata in the file",
                labels,
                '"unit"',
                ColorOrder.RGB,
                ResizePolicy.CENTER_CROP,
            )
    return None


def _of_model_info(info: Mapping[str, str]) -> Carried | None:
    """Read what Model API knows: BGR pixels, less a mean, by a scale, reversed where asked."""
    labels = tuple(name.replace("_", " ") for name in info.get("labels", "").split())
    if info.get("embedded_processing", "").lower() in ("true", "yes", "1"):  # its graph does it all
        return Carried("model_info of OpenVINO's Model API in the file", labels or None)
    reverse = info.get("reverse_input_channels", "").lower() in ("true", "yes", "1")
    scale = None
    if "mean_values" in info or "scale_values" in info:
        mean = _numbers(info.get("mean_values", "")) or (0.0,)
        scale = _scale_text(mean, _numbers(info.get("scale_values", "")) or (1.0,))
    return Carried(
        "model_info of OpenVINO's Model API in the file",
        labels or None,
        scale,
        ColorOrder.RGB if reverse else ColorOrder.BGR,
        _RESIZES.get(info.get("resize_type", "")),
    )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.replace(",", " ").strip(" []").split())
    except ValueError:
        return ()


def _numbered_names(text: str) -> tuple[str, ...] | None:
    """Read ``{0: 'cat', 1: 'dog'}``."""
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(names, dict) or sorted(names, key=str) != sorted(range(len(names)), key=str):
        return None
    return tuple(str(names[place]) for place in range(len(names)))


def _model_info(model: Path) -> dict[str, str]:
    """Return the ``model_info`` of an .xml."""
    from tinysaver_edge.engines.openvino import open_core, read_model

    network = read_model(open_core(), model)
    if not network.has_rt_info(["model_info"]):
        return {}
    texts = network.get_rt_info(["model_info"])
    texts = getattr(texts, "value", texts)
    return {f"model_info {key}": str(getattr(one, "value", one)) for key, one in texts.items()}
