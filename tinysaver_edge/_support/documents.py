"""JSON and TOML that others have written: what is wrong with it is always a ValueError."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_DEEP = "nested too deeply"


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - whatever it holds
    """Read a JSON document.

    Raises:
        ValueError: it is none, or nested beyond what a parser follows.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(_DEEP) from None


def parse_toml(text: str) -> dict[str, Any]:
    """Read a TOML document.

    Raises:
        ValueError: it is none, or nested beyond what a parser follows.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError(_DEEP) from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no TOML, or no UTF-8.
    """
    return parse_toml(path.read_text(encoding="utf-8"))
