"""A package's public names, each imported when it is first asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def lazy_exports(
    package: str, places: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``.

    Type checkers do not see them: the package names the same imports under ``TYPE_CHECKING`` and
    in ``__all__``, and calls this where that is not set, so that a wrong name is an error to them.

    Args:
        package: the package's name.
        places: names by the module, within the package or written out, that they stand in; a
            module without any is exported itself.
    """
    modules = {name: place for place, names in places.items() for name in names or (place,)}

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place = modules[name]
        inside = "" if place.startswith(f"{package.partition('.')[0]}.") else f"{package}."
        module = import_module(f"{inside}{place}")
        value: object = getattr(module, name) if places[place] else module
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        listed: list[str] = sys.modules[package].__all__
        return sorted(listed)

    return load, names
