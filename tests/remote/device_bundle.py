"""A bundle as `calibrate` makes them: the models take a frame's own pixels, uint8 NHWC BGR."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.colours import DESCRIPTION
from tests.small_bundle import small_bundle
from tinysaver_edge.artefact import Artefact, combined_sha256
from tinysaver_edge.models.description import find_description
from tinysaver_edge.models.embed import embed


def _embedded(made: Artefact) -> Artefact:
    path = made.files[0]
    path.with_suffix(".toml").write_text(DESCRIPTION)
    shipped = embed(path, find_description(path), path.parent / "embedded")
    assert shipped.reason is None
    digest = combined_sha256(shipped.files)
    return replace(
        made,
        files=shipped.files,
        preprocess=shipped.preprocess,
        output=shipped.output,
        sha256=digest,
        source_sha256=digest,
    )


def device_bundle(target: Path) -> Path:
    """Write one."""
    return small_bundle(target, shipped=_embedded)
