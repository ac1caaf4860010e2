"""Let a tiny model answer the easy frames and ask the large one only when it is unsure.

from tinysaver_edge import Cascade

with Cascade.load("bundle/") as cascade:
    decision = cascade.decide(frame)        # a BGR uint8 array, as OpenCV gives it

What other programs may import, and all of it:

    tinysaver_edge             load a bundle, decide frames, tell every error
    tinysaver_edge.stream      sources, sinks, events, metrics, the drift watch
    tinysaver_edge.engines     the contract of an engine, and what it takes and gives
    tinysaver_edge.calibrate   from two models and data to a bundle: `calibrate.calibrate(plan)`
    tinysaver_edge.testing     fakes for tests

Each lists its names in ``__all__``. Every other module is internal: it may move or change in any
release. ``tinysaver_edge.calibrate`` is the package, as ``import tinysaver_edge.calibrate`` would
make it in any case; the function of that name stands in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinysaver_edge._support.packages import lazy_exports
from tinysaver_edge._version import __version__

__all__ = [
    "AnswerSource",
    "Bundle",
    "BundleError",
    "BundleIdentity",
    "Cascade",
    "DataError",
    "Decision",
    "DescriptionError",
    "EngineError",
    "Escalation",
    "FrameId",
    "Fusion",
    "InfeasibleError",
    "InputError",
    "Likeness",
    "LoadOptions",
    "Manifest",
    "MissingDependencyError",
    "ModelDescription",
    "ModelError",
    "ModelIdentity",
    "Outputs",
    "Reason",
    "RecipeError",
    "RecordError",
    "RemoteModel",
    "ReuseRegion",
    "ReuseRule",
    "Reused",
    "Score",
    "SourceError",
    "Stage",
    "StagePolicy",
    "StageRef",
    "TinySaverError",
    "Tls",
    "Token",
    "TooSlowError",
    "Track",
    "TransferError",
    "Trust",
    "VerificationError",
    "__version__",
    "calibrate",
    "engines",
    "find_description",
    "get_fusion",
    "get_score",
    "stream",
    "testing",
]

if TYPE_CHECKING:
    from tinysaver_edge import calibrate, engines, stream, testing
    from tinysaver_edge.bundle.bundle import Bundle
    from tinysaver_edge.bundle.manifest import Manifest
    from tinysaver_edge.bundle.signature import Trust
    from tinysaver_edge.cascade import Cascade, Track
    from tinysaver_edge.deciding.loading import LoadOptions
    from tinysaver_edge.deciding.policy import StagePolicy
    from tinysaver_edge.deciding.stage import Stage
    from tinysaver_edge.decision import (
        AnswerSource,
        BundleIdentity,
        Decision,
        FrameId,
        Likeness,
        ModelIdentity,
        Reason,
        Reused,
        StageRef,
    )
    from tinysaver_edge.engines.remote.model import RemoteModel, Tls, Token
    from tinysaver_edge.errors import (
        BundleError,
        DataError,
        DescriptionError,
        EngineError,
        InfeasibleError,
        InputError,
        MissingDependencyError,
        ModelError,
        RecipeError,
        RecordError,
        SourceError,
        TinySaverError,
        TooSlowError,
        TransferError,
        VerificationError,
    )
    from tinysaver_edge.fusion import Fusion, get_fusion
    from tinysaver_edge.models.description.description import ModelDescription, find_description
    from tinysaver_edge.outputs import Outputs
    from tinysaver_edge.reuse import ReuseRegion, ReuseRule
    from tinysaver_edge.score import Score, get_score
    from tinysaver_edge.stream.options import Escalation
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "bundle.bundle": ("Bundle",),
            "bundle.manifest": ("Manifest",),
            "bundle.signature": ("Trust",),
            "cascade": ("Cascade", "Track"),
            "deciding.loading": ("LoadOptions",),
            "deciding.policy": ("StagePolicy",),
            "deciding.stage": ("Stage",),
            "decision": (
                "Likeness",
                "AnswerSource",
                "BundleIdentity",
                "Decision",
                "FrameId",
                "ModelIdentity",
                "Reason",
                "Reused",
                "StageRef",
            ),
            "engines.remote.model": ("RemoteModel", "Tls", "Token"),
            "errors": (
                "BundleError",
                "DataError",
                "DescriptionError",
                "EngineError",
                "InfeasibleError",
                "InputError",
                "MissingDependencyError",
                "ModelError",
                "RecipeError",
                "RecordError",
                "SourceError",
                "TinySaverError",
                "TooSlowError",
                "TransferError",
                "VerificationError",
            ),
            "fusion": ("Fusion", "get_fusion"),
            "models.description.description": ("ModelDescription", "find_description"),
            "outputs": ("Outputs",),
            "reuse": ("ReuseRegion", "ReuseRule"),
            "score": ("Score", "get_score"),
            "stream.options": ("Escalation",),
            "calibrate": (),
            "engines": (),
            "stream": (),
            "testing": (),
        },
    )
