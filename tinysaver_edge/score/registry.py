"""Which scores there are: the built-in ones and those of installed packages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tinysaver_edge.errors import InputError
from tinysaver_edge.score.base import Score
from tinysaver_edge.score.head import Head
from tinysaver_edge.score.simple import (
    Doctor,
    Entropy,
    Margin,
    MaxLogitPNorm,
    MaxSoftmax,
    TemperatureScaled,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "tinysaver_edge.scores"
"""Where another package names its scores: ``my_score = "my_package.module:MyScore"``."""

BUILT_IN: Mapping[str, type[Score]] = MappingProxyType(
    {
        score.name: score
        for score in (
            MaxSoftmax,
            Margin,
            Entropy,
            Doctor,
            MaxLogitPNorm,
            TemperatureScaled,
            Head,
        )
    }
)


def score_names() -> tuple[str, ...]:
    """Names of all scores there are, the built-in ones first."""
    others = sorted({entry.name for entry in _entry_points()} - set(BUILT_IN))
    return (*BUILT_IN, *others)


def get_score(name: str, parameters: Mapping[str, Any] | None = None) -> Score:
    """Make a score from its name and stored parameters, as a bundle holds them.

    Args:
        name: one of `score_names()`.
        parameters: what the score's `parameters` gave; None for none.

    Raises:
        InputError: no score has this name, its package cannot be loaded, or a parameter is wrong.
    """
    return _score_class(name).from_parameters(parameters or {})


def _score_class(name: str) -> type[Score]:
    if name in BUILT_IN:
        return BUILT_IN[name]
    found = [entry for entry in _entry_points() if entry.name == name]
    if not found:
        raise InputError(f"no score is called {name!r}: there are {', '.join(score_names())}")
    return _load(found[0])


def _load(entry: EntryPoint) -> type[Score]:
    try:
        loaded = entry.load()
    except Exception as error:  # whatever another package's import raises
        raise InputError(
            f"score {entry.name!r} ({entry.value}) cannot be loaded: {error}"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Score)):
        raise InputError(
            f"score {entry.name!r} ({entry.value}) is no subclass of tinysaver_edge.score.Score"
        )
    return loaded


def _entry_points() -> tuple[EntryPoint, ...]:
    from importlib.metadata import entry_points  # 25 ms, and only other packages' scores need it

    return tuple(entry_points(group=ENTRY_POINT_GROUP))
