"""Move colour order, layout, scale and type of a model's input from numpy into its graph.

What is left to do on the device is the resize: a frame of uint8 NHWC BGR pixels is the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tinysaver_edge.engines.model_file import model_files
from tinysaver_edge.engines.registry import engine_class
from tinysaver_edge.errors import InputError
from tinysaver_edge.models.description.description import METADATA_KEY, ModelDescription
from tinysaver_edge.models.embed.onnx import embed_onnx
from tinysaver_edge.models.embed.openvino import embed_openvino
from tinysaver_edge.models.graph.reader import READABLE
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import ColorOrder, Preprocess


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model to be shipped, and what is left to do before and after it.

    Attributes:
        files: the file to open, then those of its weights where they lie apart.
        preprocess: what is left to do before it.
        output: how it states its answer.
        reason: why the model is still the one that was given, or None where it was changed.
    """

    files: tuple[Path, ...]
    preprocess: Preprocess
    output: OutputFormat
    reason: str | None = None

    @property
    def path(self) -> Path:
        """The file to open."""
        return self.files[0]


def embed(model: Path, description: ModelDescription, out_dir: Path) -> EmbeddedModel:
    """Write a copy of a model that takes resized frames as they are.

    An .onnx stays one where the onnx package is installed; everything else becomes OpenVINO's
    .xml and .bin. The same model gives the same bytes. What cannot be changed is returned as it
    is, with the reason.

    Args:
        model: the model's file.
        description: what its input is.
        out_dir: folder for the new files, another than the model's.

    Raises:
        InputError: the new file would replace the model.
        ModelError: the model cannot be read.
        MissingDependencyError: nothing that reads it is installed.
    """
    form, named = description.preprocess.format, description.output.name
    suffix = _suffix(model)
    reason = why_not_embedded(model, description)
    if reason is not None:
        return EmbeddedModel(model_files(model), description.preprocess, description.output, reason)
    out = out_dir / f"{model.stem}{suffix}"
    if out.resolve() == model.resolve():
        raise InputError(f"embedding {model} would replace it: choose another folder")
    if suffix == ".onnx":
        files = embed_onnx(model, form, out, drop_metadata=METADATA_KEY, output=named)
    else:
        files = embed_openvino(model, form, out, output=named)
    return EmbeddedModel(tuple(files), description.preprocess.in_graph(), description.output)


def _suffix(model: Path) -> str:
    return ".onnx" if model.suffix == ".onnx" and find_spec("onnx") is not None else ".xml"


def why_not_embedded(model: Path, description: ModelDescription) -> str | None:
    """Return why `embed` leaves a model as it is, or None."""
    form, engine, suffix = description.preprocess.format, description.engine, _suffix(model)
    if model.suffix not in READABLE:
        return f"the graph of a {model.suffix} file cannot be changed"
    if form.is_device_format:
        return "it takes frames as they are already"
    if form.color is ColorOrder.GRAY:
        return "grey pictures are made by OpenCV, whose rounding no graph repeats"
    if form.is_raw and np.dtype(form.dtype).kind in "iu" and form.dtype != "uint8":
        return f"raw pixels do not fit into {form.dtype}"
    if engine is not None and suffix not in engine_class(engine).suffixes:
        return f"engine {engine} reads no {suffix}"
    if suffix == ".xml" and find_spec("openvino") is None:
        return f"changing {model.suffix} files needs openvino, which is not installed"
    return None
