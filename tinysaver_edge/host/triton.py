"""Triton: a model repository, run by its own backends or by its Python backend."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

from tinysaver_edge.engines.remote.facts import DATATYPES, JPEG
from tinysaver_edge.errors import InputError
from tinysaver_edge.host.served import Served
from tinysaver_edge.host.writing import Verbatim, copy_file, render

MAX_BATCH = 8
"""Frames that Triton runs together at most."""

_BACKENDS = MappingProxyType({".onnx": "onnxruntime", ".xml": "openvino"})

_TYPES = MappingProxyType({"BYTES": "TYPE_STRING"})


def uses_python_backend(served: Served, asked: bool) -> bool:
    """Whether Triton's Python backend runs a model: when asked to, and where JPEG is decoded."""
    return asked or served.jpeg


def write_triton(served: Served, out: Path, *, python_backend: bool = False) -> None:
    """Write ``model_repository/`` for Triton.

    Args:
        served: the model.
        out: a folder that is there.
        python_backend: run an .onnx with the ``onnxruntime`` package in Triton's Python backend,
            for builds without the ONNX Runtime backend. JPEG needs it in any case.

    Raises:
        InputError: Triton has no backend for such a model.
    """
    python_backend = uses_python_backend(served, python_backend)
    suffix = served.file.suffix
    if suffix not in _BACKENDS or (python_backend and suffix != ".onnx"):
        readable = ".onnx in its Python backend" if python_backend else ".onnx and .xml"
        raise InputError(f"{served.file.name}: Triton runs {readable}, not {suffix}")
    folder = out / "model_repository" / served.name
    version = folder / "1"
    version.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(served.artefact.files):
        copy_file(file, version / f"model{file.suffix if number == 0 else Path(file.name).suffix}")
    values = {
        "name": served.name,
        "platform": "python" if python_backend else _BACKENDS[suffix],
        "sha256": served.sha256,
        "file": f"model{suffix}",
        "jpeg": served.jpeg,
        "height": served.artefact.preprocess.resize.height,
        "width": served.artefact.preprocess.resize.width,
        **_tensors(served),
    }
    (folder / "config.pbtxt").write_text(render("triton_config.pbtxt", values))
    if python_backend:
        (version / "model.py").write_text(render("triton_model.py", values))


def _tensors(served: Served) -> dict[str, Any]:
    """Return input and output as Triton's configuration wants them."""
    signature = served.signature
    fixed = signature.batch_size
    max_batch = MAX_BATCH if fixed is None else 0
    shape = served.artefact.preprocess.shape(1)[1:]
    inputs: tuple[int | None, ...] = (1,) if served.jpeg else shape
    outputs = signature.output_shape[1:]
    if not max_batch:
        inputs, outputs = (fixed, *inputs), (fixed, *outputs)
    datatype = JPEG if served.jpeg else DATATYPES[signature.input_dtype]
    return {
        "max_batch": max_batch,
        "model_input": signature.input_name,
        "input": {
            "name": "jpeg" if served.jpeg else signature.input_name,
            "type": _type(datatype),
            "dims": [-1 if axis is None else axis for axis in inputs],
        },
        "output": {
            "name": signature.output_name,
            "type": _type(DATATYPES[signature.output_dtype]),
            "dims": [-1 if axis is None else axis for axis in outputs],
        },
    }


def _type(datatype: str) -> Verbatim:
    return Verbatim(_TYPES.get(datatype, f"TYPE_{datatype}"))
