"""Fused answers: after an escalation both models' outputs are known, and both count."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion.kinds import (
    Candidates,
    ConditionalLogit,
    Fusion,
    LinearFusion,
    NoFusion,
    logit_features,
)

__all__ = [
    "FUSIONS",
    "Candidates",
    "ConditionalLogit",
    "Fusion",
    "LinearFusion",
    "NoFusion",
    "fusion_names",
    "get_fusion",
    "logit_features",
]

FUSIONS: Mapping[str, type[Fusion]] = MappingProxyType(
    {fusion.name: fusion for fusion in (NoFusion, LinearFusion, ConditionalLogit)}
)


def fusion_names() -> tuple[str, ...]:
    """Names of all fusions there are."""
    return tuple(FUSIONS)


def get_fusion(name: str, parameters: Mapping[str, Any] | None = None) -> Fusion:
    """Make a fusion from its name and stored parameters, as a bundle holds them.

    Raises:
        InputError: no fusion has this name, or a parameter is wrong.
    """
    if name not in FUSIONS:
        raise InputError(f"no fusion is called {name!r}: there are {', '.join(FUSIONS)}")
    return FUSIONS[name].from_parameters(parameters or {})
