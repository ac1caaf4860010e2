"""Which scores there are: the built-in ones and those of installed packages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tinysaver_edge._support.plug_ins import PlugIns
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

PLUG_INS = PlugIns("score", InputError)
"""Scores of other packages, each named as ``my_score = "my_package.module:MyScore"``."""

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
    return (*BUILT_IN, *sorted(PLUG_INS.names() - set(BUILT_IN)))


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
    if name not in PLUG_INS.names():
        raise InputError(f"no score is called {name!r}: there are {', '.join(score_names())}")
    brought = PLUG_INS.load(name)
    if not (isinstance(brought, type) and issubclass(brought, Score)):
        raise InputError(f"{PLUG_INS.told(name)} is no subclass of tinysaver_edge.Score")
    return brought
