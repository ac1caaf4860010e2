"""Read a FlatBuffer by the places of its fields, without its schema's code."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, TypeAlias

Data: TypeAlias = Any  # bytes, or an mmap of a file

INT = 4
"""Bytes of an offset and of a vector's length."""

DAMAGED = (struct.error, IndexError, UnicodeDecodeError)
"""What following the offsets of a damaged buffer raises."""


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
