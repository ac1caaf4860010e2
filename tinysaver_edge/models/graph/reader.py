"""Read the graph of any model file with whatever is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from tinysaver_edge.engines.model_file import one_line
from tinysaver_edge.errors import MissingDependencyError, ModelError, TinySaverError
from tinysaver_edge.models.graph.graph import Graph, Size
from tinysaver_edge.models.graph.onnx import read_onnx
from tinysaver_edge.models.graph.openvino import read_openvino

READABLE = (".onnx", ".xml", ".tflite")
"""Suffixes of the files whose graphs are understood here."""


def read_graph(model: Path, *, size: Size | None = None, output: str | None = None) -> Graph:
    """Read a model file's graph: .onnx with onnx where that is installed, else with OpenVINO.

    Args:
        model: the file.
        size: height and width to take for an input that leaves them open.
        output: name of the output that holds the classes, where there are several.

    Raises:
        MissingDependencyError: nothing that reads such a file is installed.
        ModelError: the file is missing, truncated or of no known format.
    """
    if model.suffix not in READABLE:
        raise ModelError(f"model {model}: not an .onnx, .xml or .tflite file")
    if model.suffix == ".onnx" and find_spec("onnx") is not None:
        return read_whole(model, lambda: read_onnx(model, size=size, output=output))
    if find_spec("openvino") is None:
        package = "onnx" if model.suffix == ".onnx" else "openvino"
        extra = "onnxruntime" if model.suffix == ".onnx" else "openvino"
        raise MissingDependencyError(package, extra=extra, purpose=f"Looking into {model.name}")
    return read_whole(model, lambda: read_openvino(model, size=size, output=output))


def read_whole(model: Path, read: Callable[[], Graph]) -> Graph:
    """Read a graph; a file may hold anything, and the readers trust its numbers and names."""
    try:
        return read()
    except TinySaverError:
        raise
    except Exception as error:
        raise ModelError(
            f"model {model}: its graph is damaged ({one_line(error)}): fetch or export it again"
        ) from error
