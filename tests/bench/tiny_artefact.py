"""A tiny classifier as an artefact."""

from __future__ import annotations

from pathlib import Path

from tests.model_zoo import Form
from tinysaver_edge.artefact import Artefact, combined_sha256
from tinysaver_edge.engines.base import EngineOptions

LABELS = ("a", "b", "c", "d", "e")


def artefact(path: Path, form: Form, name: str, *, engine: str = "onnxruntime") -> Artefact:
    """A model file as an artefact, its preprocessing done in numpy."""
    digest = combined_sha256((path,))
    return Artefact(
        name=name,
        files=(path,),
        sha256=digest,
        source_sha256=digest,
        preprocess=form.preprocess,
        output=form.output,
        engine=engine,
        options=EngineOptions(threads=1),
        macs=1e3,
        parameters=None,
        classes=form.outputs,
        labels=LABELS,
    )
