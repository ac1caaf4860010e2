"""A bundle as `calibrate` makes them: the models take a frame's own pixels, uint8 NHWC BGR."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.colours import DESCRIPTION, LARGE, SAVER, colour_folders, colour_model
from tests.small_bundle import small_bundle
from tinysaver_edge.artefact import Artefact, combined_sha256
from tinysaver_edge.calibrate import ImageInput, ModelFile, Plan, Targets, calibrate
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.models.description.description import find_description
from tinysaver_edge.models.embed.embed import embed


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


def jpeg_bundle(target: Path, codec: Jpeg) -> Path:
    """Have one calibrated through JPEG, certified, beside the models and images that made it."""
    for name, kind in (("large", LARGE), ("saver", SAVER)):
        colour_model(target.parent / f"{name}.onnx", kind)
        (target.parent / f"{name}.toml").write_text(DESCRIPTION)

    def named(name: str) -> ModelFile:
        path = target.parent / f"{name}.onnx"
        return ModelFile(path, find_description(path))

    images = ImageInput(
        data=colour_folders(target.parent / "images", each=40),
        large=named("large"),
        savers=(named("saver"),),
        large_codec=codec,
        isolate=False,
        timing=False,
    )
    calibrate(Plan(images, Targets(max_drop_points=5.0), report=False), out=target)
    return target
