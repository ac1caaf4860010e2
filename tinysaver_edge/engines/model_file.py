"""What can be said of a model file before any engine opens it, and engines' complaints in a line.

Runtimes answer a file that is no model with stack traces, or by trying every parser they have, each
with log lines of its own. The usual cases are told apart here: an empty or cut-off file, a Git LFS
pointer, a download that brought a web page. What an .onnx file says of itself is read without the
onnx package, field by field as protobuf writes them; a .tflite file by the places of its fields,
without its schema's code.
"""

from __future__ import annotations

import difflib
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeAlias

from tinysaver_edge._support.files import library_path, open_regular
from tinysaver_edge.errors import ModelError

Data: TypeAlias = Any  # bytes, or an mmap of a file

INT = 4
"""Bytes of an offset and of a vector's length."""

DAMAGED = (struct.error, IndexError, UnicodeDecodeError)
"""What following the offsets of a damaged buffer raises."""

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

# Places of the fields in their tables, by the schema of TensorFlow Lite.
_MODEL_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS = 1, 2, 4

_GRAPH_TENSORS, _GRAPH_INPUTS, _GRAPH_OUTPUTS, _GRAPH_OPERATORS = 0, 1, 2, 3
_TENSOR_SHAPE, _TENSOR_NAME, _TENSOR_QUANTIZATION = 0, 3, 4
_OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 1, 2
_HEAD_BYTES = 64
# ModelProto's fields in protobuf's encoding: a file that begins with another byte is no ONNX model.
_ONNX_FIRST_BYTES = frozenset(b"\x08\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2\xca")

_NOISE = re.compile(r"^(Exception from |Check '|FrontEnd API failed)")
_ORT_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


def check_model_file(path: Path) -> None:
    """Refuse what is plainly no model.

    Raises:
        ModelError: the file is missing, empty, a Git LFS pointer, begins like another format,
            or ends early, or its weights lie outside its folder.
    """
    if not path.is_file():
        raise ModelError(f"model {path}: {_instead(path)}")
    library_path(path)
    try:
        with open_regular(path) as file:
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


def _looks_like(suffix: str, head: bytes) -> bool:
    if suffix == ".onnx":
        return head[0] in _ONNX_FIRST_BYTES
    if suffix == ".tflite":
        return head[4:8] == b"TFL3"
    if suffix == ".xml":
        return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    return True


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


def one_line(error: BaseException) -> str:
    """Return what an engine's exception says, without the places in its source code."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not _NOISE.match(line)]
    text = telling[-1] if telling else " ".join(filter(None, lines)) or type(error).__name__
    plain = "".join(one if one.isprintable() else "?" for one in _ORT_PREFIX.sub("", text))
    return plain[:400]


def _check_tflite(model: Path) -> None:
    """Refuse a .tflite file that ends early or whose parts lie outside it.

    Raises:
        ModelError: it does.
    """
    with open_regular(model) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
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


class FlatBuffer:
    """Follows the offsets of one buffer; anything out of range raises one of `DAMAGED`.

    A table is given by its place, a field by its number in the schema.
    """

    def __init__(self, data: Data) -> None:
        self._data = data

    @property
    def root(self) -> int:
        """The place of the root table."""
        return self.number("I", 0)

    def number(self, kind: str, place: int) -> int:
        """Return the number of a kind, as `struct` calls it, at a place."""
        if place < 0:
            raise IndexError(place)
        value: int = struct.unpack_from(f"<{kind}", self._data, place)[0]
        return value

    def scalar(self, table: int, field: int, kind: str, default: int = 0) -> int:
        """Return a field that is a number; its default where it is left out."""
        place = self.field(table, field)
        return default if place is None else self.number(kind, place)

    def field(self, table: int, field: int) -> int | None:
        """Return where a table keeps a field, or None where it leaves it out."""
        layout = table - self.number("i", table)
        if layout < 0:
            raise IndexError(layout)
        slot = INT + 2 * field
        if slot >= self.number("H", layout):
            return None
        offset = self.number("H", layout + slot)
        return table + offset if offset else None

    def table(self, table: int, field: int) -> int | None:
        """Return the table that a field points at, or None."""
        place = self.field(table, field)
        return None if place is None else self.target(place)

    def tables(self, table: int, field: int) -> Iterator[int]:
        """Yield the places of the tables that a vector points at."""
        start, count = self.vector(table, field, INT)
        for number in range(count):
            yield self.target(start + INT * number)

    def vector(self, table: int, field: int, size: int) -> tuple[int, int]:
        """Return where a vector's elements begin and how many there are; 0 where it is absent."""
        place = self.field(table, field)
        if place is None:
            return 0, 0
        vector = self.target(place)
        start, count = vector + INT, self.number("I", vector)
        if start + count * size > len(self._data):
            raise IndexError(start)
        return start, count

    def content(self, table: int, field: int) -> bytes:
        """Return the bytes of a vector of bytes, or of a text."""
        start, count = self.vector(table, field, 1)
        return bytes(self._data[start : start + count])

    def floats(self, table: int, field: int) -> tuple[float, ...]:
        """Return a vector of float32."""
        start, count = self.vector(table, field, 4)
        return struct.unpack_from(f"<{count}f", self._data, start)

    def target(self, place: int) -> int:
        """Return the place that an offset points at."""
        return place + self.number("I", place)


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
            with open_regular(model) as file:
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
