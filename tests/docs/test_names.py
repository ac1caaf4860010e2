"""Every public name says what it is: types, units, errors; the site has an entry for each."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tinysaver_edge import errors

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))
import generated  # noqa: E402

ERRORS = {
    name
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.TinySaverError)
}
UNIT = re.compile(r"_(s|ms|mb|bytes|points|w|hz|fps|macs)$")


def names() -> Iterator[tuple[str, str, Any]]:
    for place in generated.PLACES:
        module = importlib.import_module(place)
        for name in module.__all__:
            value = getattr(module, name)
            if not (isinstance(value, ModuleType) or name.startswith("__")):
                yield place, name, value


NAMES = list(names())


def functions(name: str, value: Any) -> Iterator[tuple[str, Any, str]]:
    """Each function that a user may call, and all that is written of it."""
    if inspect.isfunction(value):
        yield name, value, inspect.getdoc(value) or ""
    if not inspect.isclass(value) or issubclass(value, BaseException):
        return
    for key, one in vars(value).items():
        found = one.fget if isinstance(one, property) else getattr(one, "__func__", one)
        mine = inspect.isfunction(found) and "tinysaver_edge/" in found.__code__.co_filename
        if not mine or (key.startswith("_") and key not in ("__init__", "__post_init__")):
            continue
        written = [inspect.getdoc(kind) or "" for kind in value.__mro__[:-1]]
        written += [inspect.getdoc(getattr(kind, key, None)) or "" for kind in value.__mro__[:-1]]
        yield f"{name}.{key}", found, "\n".join([inspect.getdoc(found) or "", *written])


@pytest.mark.parametrize("place", generated.PLACES)
def test_every_name_tells_types_units_and_errors(place):
    untold = []
    for where, name, value in NAMES:
        if where != place:
            continue
        if (inspect.isclass(value) or inspect.isfunction(value)) and not inspect.getdoc(value):
            untold.append(f"{name}: no docstring")
        for called, function, written in functions(name, value):
            untold += [f"{called}: {one}" for one in lacks(function, written)]
    assert untold == []


def lacks(function: Any, written: str) -> Iterator[str]:
    """What somebody who calls a function is not told."""
    for one in inspect.signature(function).parameters.values():
        if one.name in ("self", "cls"):
            continue
        if one.annotation is inspect.Parameter.empty:
            yield f"no type of {one.name}"
        number = re.fullmatch(r"(int|float)( \| None)?", str(one.annotation).strip("'"))
        if number and not UNIT.search(one.name) and not re.search(rf"\b{one.name}\b", written):
            yield f"{one.name} is a number of what?"
    for error in sorted(raised(function)):
        if error not in written:
            yield f"raises {error}, and does not say so"


def raised(function: Any) -> set[str]:
    """Our errors that stand in a function's own `raise`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [one.exc for one in ast.walk(tree) if isinstance(one, ast.Raise)]
    raised = [one.func if isinstance(one, ast.Call) else one for one in calls]
    return {getattr(one, "id", getattr(one, "attr", "")) for one in raised} & ERRORS


def test_the_page_of_python_has_an_entry_for_each():
    page = generated._python()
    for place, name, _ in NAMES:
        assert re.search(rf"^\.\. (auto\w+|py:data):: {place}\.{name}$", page, re.M), name


def test_what_is_not_told_is_found():
    def careless(size: float, other) -> None:
        raise errors.InputError("no")

    assert list(lacks(careless, "")) == [
        "size is a number of what?",
        "no type of other",
        "raises InputError, and does not say so",
    ]
