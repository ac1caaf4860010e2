"""Which files belong to a model: weights may lie in files of their own beside it."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from tinysaver_edge.errors import ModelError
from tinysaver_edge.models.graph.onnx import load_onnx

ModelProto: TypeAlias = Any
GraphProto: TypeAlias = Any
TensorProto: TypeAlias = Any

_EXTERNAL_KEY = b"\x0a\x08location\x12"
"""How protobuf writes the key of a tensor's reference to another file."""


def model_files(model: Path) -> tuple[Path, ...]:
    """Return all files that a model needs, the one to open first.

    Raises:
        ModelError: one of them is missing or lies outside the model's folder.
        MissingDependencyError: an .onnx keeps weights elsewhere, and onnx is not installed.
    """
    if model.suffix == ".xml":
        weights = [model.with_suffix(".bin")]
    elif model.suffix == ".onnx" and _mentions_files(model):
        weights = [model.parent / name for name in external_names(model, load_onnx(model))]
    else:
        weights = []
    for path in weights:
        if not path.is_file():
            raise ModelError(f"model {model}: its weights {path.name} are not beside it")
    return (model, *weights)


def external_names(model: Path, proto: ModelProto) -> list[str]:
    """Return the files that a loaded model's tensors lie in, relative to its folder.

    Raises:
        ModelError: one of them lies outside the model's folder.
    """
    names = sorted({entry.value for entry in external_entries(proto)})
    for name in names:
        path = PurePath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ModelError(f"model {model}: its weights {name!r} lie outside its folder")
    return names


def external_entries(proto: ModelProto) -> Iterator[Any]:
    """Yield the entries that name a file, of all tensors that are kept in one."""
    for tensor in _tensors(proto.graph):
        if tensor.data_location == tensor.EXTERNAL:
            yield from (entry for entry in tensor.external_data if entry.key == "location")


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield weights and constants, those of graphs within the graph included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from _present(attribute)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _present(attribute: Any) -> Iterable[TensorProto]:  # noqa: ANN401 - onnx.AttributeProto
    return (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else []))


def _mentions_files(model: Path) -> bool:
    """Whether an .onnx speaks of other files; large ones are looked through without a copy."""
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(_EXTERNAL_KEY) >= 0
    except (OSError, ValueError) as error:
        raise ModelError(f"model {model}: cannot be read: {error}") from error
