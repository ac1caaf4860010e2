"""TOML as Python values, whichever reader this Python has; imports nothing heavy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def parse_toml(text: str) -> dict[str, Any]:
    """Return what a TOML text holds.

    Raises:
        ValueError: it is no valid TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no valid TOML, or no UTF-8.
    """
    return parse_toml(path.read_text(encoding="utf-8"))
