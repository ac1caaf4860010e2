"""What can be said of a model file before any engine opens it, and engines' complaints in a line.

Runtimes answer a file that is no model with stack traces, or by trying every parser they have, each
with log lines of its own. The usual cases are told apart here: an empty or cut-off file, a Git LFS
pointer, a download that brought a web page.
"""

from __future__ import annotations

import difflib
import mmap
import re
from pathlib import Path

from tinysaver_edge._support.flatbuffer import DAMAGED, INT, FlatBuffer
from tinysaver_edge.engines.onnx_file import check_onnx, external_names
from tinysaver_edge.errors import ModelError

# Places of the fields in their tables, by the schema of TensorFlow Lite.
_MODEL_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS = 1, 2, 4
_GRAPH_TENSORS, _GRAPH_INPUTS, _GRAPH_OUTPUTS, _GRAPH_OPERATORS = 0, 1, 2, 3
_TENSOR_SHAPE, _TENSOR_NAME, _TENSOR_QUANTIZATION = 0, 3, 4
_OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 1, 2


def _check_tflite(model: Path) -> None:
    """Refuse a .tflite file that ends early or whose parts lie outside it.

    Raises:
        ModelError: it does.
    """
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _visit(data)
        except DAMAGED as error:
            raise ModelError(
                f"model {model}: the file ends early or is damaged: fetch or export it again"
            ) from error


def _visit(data: mmap.mmap) -> None:
    """Visit the model's operators, tensors and buffers."""
    file = FlatBuffer(data)
    root = file.root
    file.vector(root, _MODEL_CODES, INT)
    for buffer in file.tables(root, _MODEL_BUFFERS):
        file.vector(buffer, 0, 1)
    for graph in file.tables(root, _MODEL_SUBGRAPHS):
        file.vector(graph, _GRAPH_INPUTS, INT)
        file.vector(graph, _GRAPH_OUTPUTS, INT)
        for tensor in file.tables(graph, _GRAPH_TENSORS):
            _visit_tensor(file, tensor)
        for operator in file.tables(graph, _GRAPH_OPERATORS):
            file.vector(operator, _OPERATOR_INPUTS, INT)
            file.vector(operator, _OPERATOR_OUTPUTS, INT)


def _visit_tensor(file: FlatBuffer, tensor: int) -> None:
    file.vector(tensor, _TENSOR_SHAPE, INT)
    file.vector(tensor, _TENSOR_NAME, 1)
    quantization = file.table(tensor, _TENSOR_QUANTIZATION)
    if quantization is not None:
        for field, size in ((0, 4), (1, 4), (2, 4), (3, 8)):  # min, max, scale, zero point
            file.vector(quantization, field, size)


_HEAD_BYTES = 64
# ModelProto's fields in protobuf's encoding: a file that begins with another byte is no ONNX model.
_ONNX_FIRST_BYTES = frozenset(b"\x08\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2\xca")
_NOISE = re.compile(r"^(Exception from |Check '|FrontEnd API failed)")
_ORT_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


def _instead(path: Path) -> str:
    """Say what stands where a model's file was looked for, and the nearest that there is."""
    if path.is_dir():
        return "a folder: name the model's file in it"
    try:
        beside = sorted(one.name for one in path.parent.iterdir() if one.is_file())
    except OSError:
        return f"no such file: there is no folder {path.parent}"
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.75)
    return f"no such file{f'; did you mean {path.parent / near[0]}?' if near else ''}"


def check_model_file(path: Path) -> None:
    """Refuse what is plainly no model.

    Raises:
        ModelError: the file is missing, empty, a Git LFS pointer, begins like another format,
            or ends early, or its weights lie outside its folder.
    """
    if not path.is_file():
        raise ModelError(f"model {path}: {_instead(path)}")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise ModelError(f"model {path}: {error.strerror}") from error
    if not head:
        raise ModelError(f"model {path}: the file is empty")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"model {path}: a Git LFS pointer, not the model: run 'git lfs pull'")
    if not _looks_like(path.suffix, head):
        raise ModelError(
            f"model {path}: not a {path.suffix} model (it begins with {head[:12]!r}): "
            "fetch or export it again"
        )
    if path.suffix == ".onnx":
        check_onnx(path)
        external_files(path)
    elif path.suffix == ".tflite":
        _check_tflite(path)
    elif path.suffix == ".xml":
        external_files(path)


def model_files(model: Path) -> tuple[Path, ...]:
    """Return all files that a model needs, the one to open first.

    Raises:
        ModelError: one of them is missing or lies outside the model's folder.
    """
    weights = external_files(model)
    for path in weights:
        if not path.is_file():
            raise ModelError(f"model {model}: its weights {path.name} are not beside it")
    return (model, *weights)


def external_files(model: Path) -> tuple[Path, ...]:
    """Return the files beside a model that its engine will read, be they there or not.

    Engines follow such names wherever they lead, some releases even to any file of the machine.

    Raises:
        ModelError: one of them lies outside the model's folder, by its name or as a link.
    """
    if model.suffix == ".xml":
        files: tuple[Path, ...] = (model.with_suffix(".bin"),)
    elif model.suffix == ".onnx":
        files = tuple(model.parent / name for name in external_names(model))
    else:
        return ()
    # Download caches keep a folder of links: model and weights then lie in one folder elsewhere.
    homes = {model.parent.resolve(), model.resolve().parent}
    for path in files:
        if not any(path.resolve().is_relative_to(home) for home in homes):
            raise ModelError(f"model {model}: its weights {path.name!r} lie outside its folder")
    return files


def _looks_like(suffix: str, head: bytes) -> bool:
    if suffix == ".onnx":
        return head[0] in _ONNX_FIRST_BYTES
    if suffix == ".tflite":
        return head[4:8] == b"TFL3"
    if suffix == ".xml":
        return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    return True


def one_line(error: BaseException) -> str:
    """Return what an engine's exception says, without the places in its source code."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not _NOISE.match(line)]
    text = telling[-1] if telling else " ".join(filter(None, lines)) or type(error).__name__
    plain = "".join(one if one.isprintable() else "?" for one in _ORT_PREFIX.sub("", text))
    return plain[:400]
