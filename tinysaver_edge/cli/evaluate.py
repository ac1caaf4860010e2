"""`tinysaver-edge evaluate`: measure a bundle on labelled samples it has not seen."""

from __future__ import annotations

from pathlib import Path

import click

from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import json_option
from tinysaver_edge.cli.show import show_figures
from tinysaver_edge.errors import InputError
from tinysaver_edge.records.evaluation import evaluate_images, evaluate_records


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Labelled images: folder of class folders, .zip, .csv or .jsonl.",
)
@click.option(
    "--records",
    type=click.Path(path_type=Path),
    help="Folder of records (NAME.npz), instead of images.",
)
@click.option(
    "--labels", type=click.Path(path_type=Path), help="True classes of the records, .npy."
)
@click.option(
    "--skip-limit",
    type=float,
    default=0.01,
    show_default=True,
    help="Share of images that may be unreadable.",
)
@json_option
def evaluate(
    bundle: Path,
    data: Path | None,
    records: Path | None,
    labels: Path | None,
    skip_limit: float,
    as_json: bool,
) -> None:
    """Measure a bundle on labelled images it has not seen.

    \b
        tinysaver-edge evaluate bundle/ --data more.zip
        tinysaver-edge evaluate bundle/ --records DIR --labels labels.npy --json
    """
    with Bundle.load(bundle) as opened:
        if data is not None and records is None and labels is None:
            with terminal.progress() as progress:
                result = evaluate_images(opened, data, skip_limit=skip_limit, progress=progress)
        elif records is not None and labels is not None and data is None:
            result = evaluate_records(opened, records, labels)
        else:
            raise InputError("give either --data, or --records together with --labels")
        entry = opened.manifest.certificate
        stated = f"{entry.statement}{entry.given}" if entry is not None and entry.stated else None
    terminal.warn(result.warnings)
    seen = f" ({result.seen} seen before)" if result.seen else ""
    show_figures([(f"{data or records}{seen}", result.figures)])
    if stated:
        terminal.say(f"certificate: {stated}")
    if as_json:
        terminal.show_json(result.to_dict())
