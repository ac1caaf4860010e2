"""`tinysaver-edge measure`: run models over images here, to calibrate with elsewhere or later."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from tinysaver_edge.artefact import Artefact, bundled_artefacts
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate import ImageInput, ModelFile
from tinysaver_edge.calibrate.gathered import measure as run_measuring
from tinysaver_edge.calibrate.planning import images_of, placed
from tinysaver_edge.calibrate.settings import OPTIONS, Settings
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.calibrate import calibrate_options
from tinysaver_edge.cli.options import LocalPath, json_option
from tinysaver_edge.data.files import names_labels
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.errors import InputError
from tinysaver_edge.models.description.description import ModelDescription

_TAKEN = (
    "data",
    "large",
    "large_jpeg",
    "savers",
    "descriptions",
    "engine",
    "output",
    "sizes",
    "precisions",
    "group_column",
    "independent",
    "skip_limit",
    "no_timing",
    "retime",
    "no_golden_frames",
    "no_embed",
)
"""Options of `calibrate` that are about measuring; the others are about the choice, made later."""

_OF_MODELS = ("large", "large_jpeg", "savers", "descriptions", "engine", "output", "sizes",
              "precisions", "no_embed")  # fmt: skip
"""Those that a bundle has said already."""


@click.command()
@click.argument("bundle", type=LocalPath(), required=False)
@calibrate_options(_TAKEN)
@click.option("--out", type=LocalPath(), required=True, help="Folder to write.")
@json_option
def measure(bundle: Path | None, out: Path, as_json: bool, **flags: Any) -> None:  # noqa: ANN401
    """Run models over images on this machine, to calibrate with elsewhere or later.

    What a model answers depends on the machine where it computes with 8 bits, and what it takes
    always does. So measure on the device, and calibrate where there is room: what is written holds
    records, the models as they were run, labels, timings, and samples by which verify knows the
    device again. The models of a bundle, or models of one's own:

    \b
        tinysaver-edge measure bundle/ --data images/ --out records/        # on the device
        tinysaver-edge measure --large L.onnx --saver S.onnx --data images/ --out records/
        tinysaver-edge calibrate --records records/ --max-drop 1 --out bundle/        # elsewhere
    """
    settings = Settings().overridden(flags)
    if settings.data is None:
        raise InputError("nothing to measure on: name --data")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is no folder")
    with ExitStack() as stack:
        if bundle is None:
            given = images_of(settings)
        else:
            if said := [name for name in _OF_MODELS if flags[name]]:
                flag = OPTIONS[said[0]].flag or f"--{said[0].replace('_', '-')}"
                raise InputError(f"bundle {bundle}: names its models itself: leave {flag} out")
            given = _of_bundle(stack.enter_context(Bundle.load(bundle)), settings)
        with terminal.progress() as progress:
            found = run_measuring(given, out=out, progress=progress)
    terminal.warn(found.warnings)
    models = [found.problem.large.name, *(saver.name for saver in found.problem.savers)]
    samples = len(found.problem.labels)
    terminal.say(f"{out}: {', '.join(models)} on {samples} images, {found.processor or 'here'}")
    command = terminal.command_line("calibrate", "--records", out)
    terminal.next_step(f"here or, with the folder, on another machine: {command} --out BUNDLE")
    if as_json:
        terminal.show_json(
            {
                "records": str(out),
                "models": models,
                "samples": samples,
                "processor": found.processor,
                "lost": dict(found.lost),
            }
        )


def _of_bundle(bundle: Bundle, settings: Settings) -> ImageInput:
    """Return a bundle's models and the images that are given."""
    *savers, large = bundled_artefacts(bundle)
    if not savers:
        raise InputError(f"bundle {bundle.path}: has one model only: there is nothing to choose")
    options = placed(settings, "images")
    data = settings.data
    options["labelled"] = isinstance(data, DataSource) or data is None or names_labels(data)
    return ImageInput(
        large=_file(large),
        savers=tuple(_file(saver) for saver in savers),
        large_codec=large.codec,
        embed=False,
        **options,
    )


def _file(artefact: Artefact) -> ModelFile:
    """Return a bundle's model as a file with its description."""
    path = artefact.files[0]
    described = ModelDescription(
        file=path,
        name=artefact.name,
        preprocess=artefact.preprocess,
        output=artefact.output,
        labels=artefact.labels,
        macs=artefact.macs,
        engine=artefact.engine,
        device=artefact.options.device,
        precision=artefact.options.precision,
        fitted_on=artefact.fitted_on,
        source=f"model {artefact.name}",
    )
    # Its files were hashed when the bundle was opened; a worker reads them by their path.
    shipped = replace(artefact, options=replace(artefact.options, sealed=()))
    return ModelFile(path, described, engine=artefact.engine, shipped=shipped)
