"""Mutants of files and texts, the same for the same seed."""

from __future__ import annotations

import json
import random
from typing import Any

ODD_NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 65535, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 63)

ODD_TEXTS = (
    b"", b"\0", b"-1", b"nan", b"inf", b"1e999", b"-0.0", b"9" * 30, b"true", b"null", b"[]", b"{}",
    b"[[[[", b'"', b"'", b",", b"\n", b"\r\n", b";", b"\t", b"../../etc/passwd", b"/etc/passwd",
    b"%00", b"%s%n", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", "é\u0301\u202e".encode(),
    b"a" * 5000, b"[::1", b"]:99999", b"@", b"://", b"?", b"#", b"\x1b[31m", b"$(id)", b"\\",
    b"[" * 3000, b'{"a":' * 3000, b"[x." * 500,
)  # fmt: skip

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "\0", "a" * 5000, "../x", "/etc/passwd", "\ud800", "\u202e", "nan", [], {},
    [[]], {"": None}, [1, "a", None], {"a": {"b": []}},
)  # fmt: skip


class Mutator:
    """Changes what it is given, a little or a lot.

    Args:
        seed: the same gives the same mutants in the same order.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def mutant(self, seeds: list[bytes]) -> bytes:
        """Return a mutant of one of some samples."""
        data = self._random.choice(seeds)
        if data[:1] == b"{" and self._random.random() < 0.7:
            changed = self._changed_json(data)
            if changed is not None:
                return changed
        for _ in range(self._random.choice((1, 1, 1, 2, 4, 16))):
            data = self._changed(data, seeds)
        return data

    def _changed(self, data: bytes, seeds: list[bytes]) -> bytes:
        draw = self._random
        if not data:
            return draw.choice(ODD_TEXTS)
        place = draw.randrange(len(data))
        end = min(len(data), place + draw.choice((1, 2, 4, 8, 64, 1024)))
        match draw.randrange(9):
            case 0:  # a bit
                return (
                    data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
                )
            case 1:  # a byte
                return data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :]
            case 2:  # a number of some width
                width, order = draw.choice((1, 2, 4, 8)), draw.choice(("little", "big"))
                odd = draw.choice(ODD_NUMBERS) & (1 << 8 * width) - 1
                return data[:place] + odd.to_bytes(width, order) + data[place + width :]
            case 3:  # cut off
                return data[:place]
            case 4:  # cut out
                return data[:place] + data[end:]
            case 5:  # repeat
                return data[:end] + data[place:end] * draw.choice((1, 2, 50)) + data[end:]
            case 6:  # join two
                return data[:place] + draw.choice(seeds)[place:]
            case _:  # a word
                return data[:place] + draw.choice(ODD_TEXTS) + data[draw.choice((place, end)) :]

    def _changed_json(self, data: bytes) -> bytes | None:
        """Return a document with some values, names or branches changed."""
        try:
            document = json.loads(data)
        except ValueError:
            return None
        for _ in range(self._random.choice((1, 1, 2, 5))):
            document = self._changed_value(document)
        return json.dumps(document).encode("utf-8", "surrogatepass")

    def _changed_value(self, value: Any) -> Any:
        draw = self._random
        if isinstance(value, dict) and value and draw.random() < 0.9:
            key = draw.choice(sorted(value))
            if draw.random() < 0.1:
                return {name: one for name, one in value.items() if name != key}
            if draw.random() < 0.05:
                return {**value, draw.choice(("", "x", "schema_version")): draw.choice(ODD_VALUES)}
            return {**value, key: self._changed_value(value[key])}
        if isinstance(value, list) and value and draw.random() < 0.8:
            place = draw.randrange(len(value))
            changed = [*value]
            if draw.random() < 0.2:
                changed *= draw.choice((0, 2, 100))
                return changed
            changed[place] = self._changed_value(value[place])
            return changed
        return draw.choice(ODD_VALUES)
