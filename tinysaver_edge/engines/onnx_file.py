"""Step through an .onnx file without the onnx package: is it whole, and what are its metadata?

A model is a protobuf message whose fields follow one another, each as a tag, a length and its
content. The graph, weights and all, is a single field that is stepped over, so that a file of a
gigabyte is as quick to ask as a small one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tinysaver_edge.errors import ModelError

_GRAPH, _METADATA = 7, 14
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST_METADATA = 16 << 20


def read_metadata(model: Path) -> dict[str, str]:
    """Return the metadata of an .onnx file.

    Raises:
        ModelError: the file ends early or is no ONNX model.
    """
    with model.open("rb") as file:
        return dict(_entry(content) for number, content in _fields(file, model) if content)


def check_whole(model: Path) -> None:
    """Refuse an .onnx file that ends early or holds no graph.

    Raises:
        ModelError: it does.
    """
    with model.open("rb") as file:
        if _GRAPH not in [number for number, _ in _fields(file, model)]:
            raise ModelError(f"model {model}: holds no graph: fetch or export it again")


def _fields(file: BinaryIO, model: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each field, and the content of the metadata among them."""
    end = os.fstat(file.fileno()).st_size
    while file.tell() < end:
        tag = _varint(file, model)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _varint(file, model)
            continue
        if kind not in (_FIXED64, _LENGTH, _FIXED32):
            raise ModelError(f"model {model}: is no ONNX model: fetch or export it again")
        length = _varint(file, model) if kind == _LENGTH else {_FIXED64: 8, _FIXED32: 4}[kind]
        if file.tell() + length > end:
            raise ModelError(f"model {model}: the file ends early: fetch or export it again")
        if number == _METADATA and length <= _LONGEST_METADATA:
            yield number, file.read(length)
        else:
            file.seek(length, os.SEEK_CUR)
            yield number, b""


def _varint(file: BinaryIO, model: Path) -> int:
    """Read an integer of seven bits a byte, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value
    raise ModelError(f"model {model}: the file ends early or is no ONNX model: fetch it again")


def _entry(content: bytes) -> tuple[str, str]:
    """Read a StringStringEntryProto: field 1 is the key, field 2 the value."""
    parts = {1: "", 2: ""}
    position = 0
    while position < len(content):
        number = content[position] >> 3
        length, position = _length(content, position + 1)
        parts[number] = content[position : position + length].decode("utf-8", "replace")
        position += length
    return parts[1], parts[2]


def _length(content: bytes, position: int) -> tuple[int, int]:
    length = shift = 0
    while position < len(content):
        byte = content[position]
        length |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if not byte & 0x80:
            break
    return length, position
