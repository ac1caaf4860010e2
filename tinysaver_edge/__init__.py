"""Let a tiny model answer the easy frames and ask the large one only when it is unsure.

from tinysaver_edge import Cascade

with Cascade.load("bundle/") as cascade:
    decision = cascade.decide(frame)        # a BGR uint8 array, as OpenCV gives it
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tinysaver_edge._version import __version__

if TYPE_CHECKING:
    from tinysaver_edge.bundle.bundle import Bundle
    from tinysaver_edge.cascade import Cascade
    from tinysaver_edge.decision import AnswerSource, Decision, FrameId, StageRef
    from tinysaver_edge.errors import TinySaverError

__all__ = [
    "AnswerSource",
    "Bundle",
    "Cascade",
    "Decision",
    "FrameId",
    "StageRef",
    "TinySaverError",
    "__version__",
]

# Loaded when they are first asked for: numpy alone takes longer than all of this package.
_PLACES = {
    "Bundle": "bundle",
    "Cascade": "cascade",
    "Decision": "decision",
    "FrameId": "decision",
    "AnswerSource": "decision",
    "StageRef": "decision",
    "TinySaverError": "errors",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
