"""What a folder's docstring says of its files is true: each it names is there, none is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import tinysaver_edge

PACKAGE = Path(tinysaver_edge.__file__).parent
ROW = re.compile(r"^ *(\w+/?(?:, \w+/?)*)  +\S")


def told(folder: Path) -> str:
    return ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""


def rows(folder: Path) -> list[str]:
    """Return the files that a folder's docstring sets before a gap, as a table does."""
    found = (ROW.match(line) for line in told(folder).splitlines())
    return [name for row in found if row is not None for name in row[1].split(", ")]


TABLES = [path.parent for path in sorted(PACKAGE.rglob("*/__init__.py")) if rows(path.parent)]


def test_the_larger_folders_have_a_table() -> None:
    names = {folder.relative_to(PACKAGE).as_posix() for folder in TABLES}
    assert names >= {"stream", "stream/sinks", "stream/sources", "engines", "hardware", "deciding"}


@pytest.mark.parametrize("folder", TABLES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_folder_names_its_files(folder: Path) -> None:
    for name in rows(folder):
        assert (folder / (name if name.endswith("/") else f"{name}.py")).exists(), name
    held = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {name for name in held if not re.search(rf"\b{name}\b", told(folder))} == set()
