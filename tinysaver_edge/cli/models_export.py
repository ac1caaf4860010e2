"""`tinysaver-edge models export`: a timm model → the files that devices run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tinysaver_edge._support import numbers
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import DataPath, LocalPath, Number, json_option
from tinysaver_edge.data.store import Place
from tinysaver_edge.models.compare.compare import read_pictures
from tinysaver_edge.models.export.export import TOLERANCE, Export, export
from tinysaver_edge.models.export.timm_model import TimmSource
from tinysaver_edge.models.labels import read_labels


@click.command("export")
@click.argument("name")
@click.option(
    "--out",
    "outs",
    multiple=True,
    required=True,
    type=LocalPath(),
    help="File to write: .onnx, .xml (OpenVINO) or .safetensors (torch); repeat it.",
)
@click.option(
    "--checkpoint",
    type=LocalPath(),
    help="Weights from a .safetensors or .pth instead of the hub; nothing in it is run.",
)
@click.option("--random", "random_seed", type=int, metavar="SEED", help="Random weights.")
@click.option("--num-classes", type=click.IntRange(1), help="Classes that the weights are for.")
@click.option("--labels", type=LocalPath(), help="Class names, one a line.")
@click.option("--image-size", type=click.IntRange(1), help="Side of the picture, in pixels.")
@click.option("--batch", type=click.IntRange(1), help="A fixed batch; any number if not given.")
@click.option("--no-merge", is_flag=True, help="Keep the branches that only training needs.")
@click.option(
    "--data",
    type=DataPath(),
    help="Images to compare on: folder of class folders, .zip, .csv, .jsonl, .tar or Parquet.",
)
@click.option(
    "--tolerance",
    type=Number(0, min_open=True),
    default=TOLERANCE,
    show_default=True,
    help="Largest difference of a logit from torch's.",
)
@json_option
def export_command(
    name: str,
    outs: tuple[Path, ...],
    labels: Path | None,
    data: Place | None,
    no_merge: bool,
    as_json: bool,
    **flags: Any,  # noqa: ANN401
) -> None:
    """Export one of timm's models, with its preprocessing in the graph, and check it.

    \b
        tinysaver-edge models export lcnet_050.ra2_in1k --out lcnet.onnx --out lcnet.xml
        tinysaver-edge models export resnet18 --checkpoint best.pth --labels names.txt --out r.onnx
    """
    keys = ("checkpoint", "random_seed", "num_classes", "image_size")
    source = TimmSource(name, **{key: flags[key] for key in keys})
    folder = None if labels is None else labels.parent
    result = export(
        source,
        outs,
        labels=None
        if labels is None or folder is None
        else read_labels(labels.name, (folder,), source=f"model {name}"),
        batch=flags["batch"],
        merge=not no_merge,
        pictures=None if data is None else read_pictures(data),
        tolerance=flags["tolerance"],
    )
    _show(result)
    terminal.next_step(
        f"{terminal.command_line('models', 'check', outs[0], '--data', 'images/')}, on labelled "
        "images of your own; then calibrate with it",
    )
    if as_json:
        terminal.show_json(result.to_dict())


def _show(result: Export) -> None:
    terminal.show_table(
        f"{result.name} against torch, on {result.pictures}",
        ("file", "engine", "largest difference", "largest logit", "same class"),
        [
            (
                str(one.path),
                one.engine,
                f"{one.comparison.max_difference:.2g}",
                f"{one.comparison.largest_logit:.3g}",
                numbers.percent(one.comparison.top1_agreement),
            )
            for one in result.exported
        ],
    )
    merged = ""
    if result.macs != result.macs_as_trained:
        merged = f" ({numbers.macs(result.macs_as_trained)} before its branches were merged)"
    terminal.say(
        f"{result.classes} classes, {numbers.macs(result.macs)}{merged}, "
        f"{result.parameters / 1e6:.2f} M parameters"
    )
