"""The texts that a model's file carries besides its graph: read and written in each format."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from tinysaver_edge._support.files import atomic_write
from tinysaver_edge._support.packages import import_engine
from tinysaver_edge.engines.onnx_file import read_metadata as read_onnx_metadata
from tinysaver_edge.engines.openvino import open_core, read_model
from tinysaver_edge.engines.timm_file import read_header
from tinysaver_edge.errors import InputError
from tinysaver_edge.models.graph.onnx import load_onnx

_GROUP = "tinysaver_edge"


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
    openvino = import_engine("openvino")
    network = read_model(open_core(), model)
    for key, value in entries.items():
        network.set_rt_info(value, key.split("."))
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=f".{model.name}.") as folder:
        made = Path(folder) / model.name
        openvino.save_model(network, str(made), compress_to_fp16=False)
        del network
        for suffix in (".bin", ".xml"):
            with made.with_suffix(suffix).open("rb+") as file:
                os.fsync(file.fileno())
            made.with_suffix(suffix).replace(model.with_suffix(suffix))
