"""Is a .tflite file whole? Asked before OpenVINO reads it: older releases crash where it is not.

A TFLite model is a FlatBuffer: tables and vectors that point at each other by relative offsets. All
that the graph hangs on is visited once; the first offset that leaves the file shows it is damaged.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from tinysaver_edge.errors import ModelError

# Places of the fields in their tables, by the schema of TensorFlow Lite.
_MODEL_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS = 1, 2, 4
_GRAPH_TENSORS, _GRAPH_INPUTS, _GRAPH_OUTPUTS, _GRAPH_OPERATORS = 0, 1, 2, 3
_TENSOR_SHAPE, _TENSOR_NAME, _TENSOR_QUANTIZATION = 0, 3, 4
_OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 1, 2
_INT = 4


def check_whole(model: Path) -> None:
    """Refuse a .tflite file that ends early or whose parts lie outside it.

    Raises:
        ModelError: it does.
    """
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _Reader(data).visit()
        except (struct.error, IndexError) as error:
            raise ModelError(
                f"model {model}: the file ends early or is damaged: fetch or export it again"
            ) from error


class _Reader:
    """Follows the offsets of one file; anything out of range raises."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data

    def visit(self) -> None:
        """Visit the model's operators, tensors and buffers."""
        root = self._number("I", 0)
        self._vector(root, _MODEL_CODES, _INT)
        for buffer in self._tables(root, _MODEL_BUFFERS):
            self._vector(buffer, 0, 1)
        for graph in self._tables(root, _MODEL_SUBGRAPHS):
            self._vector(graph, _GRAPH_INPUTS, _INT)
            self._vector(graph, _GRAPH_OUTPUTS, _INT)
            for tensor in self._tables(graph, _GRAPH_TENSORS):
                self._visit_tensor(tensor)
            for operator in self._tables(graph, _GRAPH_OPERATORS):
                self._vector(operator, _OPERATOR_INPUTS, _INT)
                self._vector(operator, _OPERATOR_OUTPUTS, _INT)

    def _visit_tensor(self, tensor: int) -> None:
        self._vector(tensor, _TENSOR_SHAPE, _INT)
        self._vector(tensor, _TENSOR_NAME, 1)
        place = self._field(tensor, _TENSOR_QUANTIZATION)
        if place is not None:
            quantization = self._target(place)
            for field, size in ((0, 4), (1, 4), (2, 4), (3, 8)):  # min, max, scale, zero point
                self._vector(quantization, field, size)

    def _tables(self, table: int, field: int) -> Iterator[int]:
        """Yield the places of the tables that a vector points at."""
        start, count = self._vector(table, field, _INT)
        for number in range(count):
            yield self._target(start + _INT * number)

    def _vector(self, table: int, field: int, size: int) -> tuple[int, int]:
        """Return where a vector's elements begin and how many there are; 0 where it is absent."""
        place = self._field(table, field)
        if place is None:
            return 0, 0
        vector = self._target(place)
        start, count = vector + _INT, self._number("I", vector)
        if start + count * size > len(self._data):
            raise IndexError(start)
        return start, count

    def _field(self, table: int, field: int) -> int | None:
        """Return where a table keeps a field, or None where it leaves it out."""
        layout = table - self._number("i", table)
        if layout < 0:
            raise IndexError(layout)
        slot = _INT + 2 * field
        if slot >= self._number("H", layout):
            return None
        offset = self._number("H", layout + slot)
        return table + offset if offset else None

    def _target(self, place: int) -> int:
        return place + self._number("I", place)

    def _number(self, kind: str, place: int) -> int:
        value: int = struct.unpack_from(f"<{kind}", self._data, place)[0]
        return value
