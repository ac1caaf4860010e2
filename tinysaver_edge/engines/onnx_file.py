"""What an .onnx file says of itself, read without the onnx package: metadata, files it refers to.

A file is walked field by field, as protobuf writes them, in whatever order they stand.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import NamedTuple

from tinysaver_edge.errors import ModelError

_GRAPH, _METADATA = 7, 14
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST_METADATA = 16 << 20
_DEEPEST = 32
"""Graphs within graphs, far more than any model has."""

_LOCATION = b"location"
"""Key of a tensor's reference to another file."""

# For each kind of message the fields to follow and what they hold, by the schema of ONNX.
_WITHIN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}


class _Span(NamedTuple):
    """Part of a file: a message's fields lie from `start` up to `end`."""

    start: int
    end: int


class _Field(NamedTuple):
    """One field: its number, and where its content lies; None for a plain number."""

    number: int
    content: _Span | None


def read_metadata(model: Path) -> dict[str, str]:
    """Return the metadata of an .onnx file.

    Raises:
        ModelError: the file cannot be read, ends early or is no ONNX model.
    """
    with _Opened(model) as file:
        return dict(
            file.entry(field.content)
            for field in file.fields(file.whole)
            if field.number == _METADATA and field.content is not None
            if field.content.end - field.content.start <= _LONGEST_METADATA
        )


def check_onnx(model: Path) -> None:
    """Refuse an .onnx file that ends early or holds no graph.

    Raises:
        ModelError: it does.
    """
    with _Opened(model) as file:
        if _GRAPH not in [field.number for field in file.fields(file.whole)]:
            raise ModelError(f"model {model}: holds no graph: fetch or export it again")


def external_names(model: Path) -> list[str]:
    """Return the files that an .onnx file's tensors lie in, relative to its folder.

    Raises:
        ModelError: the file is damaged, or one of them lies outside its folder.
    """
    with _Opened(model) as file:
        if not file.holds(_LOCATION):
            return []
        names = sorted(set(file.external("model", file.whole, depth=0)))
    for name in names:
        path = PurePath(name)
        if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise ModelError(f"model {model}: its weights {name!r} lie outside its folder")
    return names


class _Opened:
    """An .onnx file, looked through without a copy of its weights."""

    def __init__(self, model: Path) -> None:
        self._model = model
        try:
            with model.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ModelError(f"model {model}: cannot be read: {error}") from error
        self.whole = _Span(0, len(self._data))

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        self._data.close()

    def holds(self, text: bytes) -> bool:
        """Whether some bytes occur anywhere."""
        return self._data.find(text) >= 0

    def fields(self, span: _Span) -> Iterator[_Field]:
        """Yield the fields of a message."""
        place = span.start
        while place < span.end:
            tag, place = self._varint(place, span.end)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                _, place = self._varint(place, span.end)
                yield _Field(number, None)
                continue
            if kind == _LENGTH:
                length, place = self._varint(place, span.end)
            elif kind in (_FIXED64, _FIXED32):
                length = 8 if kind == _FIXED64 else 4
            else:
                raise ModelError(f"model {self._model}: is no ONNX model: fetch or export it again")
            if place + length > span.end:
                raise ModelError(
                    f"model {self._model}: the file ends early: fetch or export it again"
                )
            yield _Field(number, _Span(place, place + length) if kind == _LENGTH else None)
            place += length

    def external(self, kind: str, span: _Span, *, depth: int) -> Iterator[str]:
        """Yield the names of other files in a message and in all that it holds."""
        if depth > _DEEPEST * 4:
            raise ModelError(f"model {self._model}: its graphs are nested too deeply")
        if kind == "external":
            key, value = self.entry(span)
            if key == _LOCATION.decode():
                yield value
            return
        inner = _WITHIN[kind]
        for field in self.fields(span):
            if field.content is not None and field.number in inner:
                yield from self.external(inner[field.number], field.content, depth=depth + 1)

    def entry(self, span: _Span) -> tuple[str, str]:
        """Read a StringStringEntryProto: field 1 is the key, field 2 the value."""
        parts = {1: "", 2: ""}
        for field in self.fields(span):
            if field.content is not None:
                text = self._data[field.content.start : field.content.end]
                parts[field.number] = text.decode("utf-8", "replace")
        return parts[1], parts[2]

    def _varint(self, place: int, end: int) -> tuple[int, int]:
        """Read an integer of seven bits a byte, the lowest first; return where the next begins."""
        value = 0
        for shift in range(0, 70, 7):
            if place >= end:
                break
            byte = self._data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value, place
        raise ModelError(
            f"model {self._model}: the file ends early or is no ONNX model: fetch it again"
        )
