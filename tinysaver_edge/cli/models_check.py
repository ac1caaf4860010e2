"""`tinysaver-edge models check`: description, file and engines against each other."""

from __future__ import annotations

from pathlib import Path

import click

from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import Threads, json_option
from tinysaver_edge.errors import ModelError
from tinysaver_edge.models.compare.check import check_model
from tinysaver_edge.models.compare.pictures import read_pictures
from tinysaver_edge.models.description.description import find_description


@click.command("check")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--descriptions", type=click.Path(path_type=Path), help="Folder of descriptions (NAME.toml)."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Images to run it on: folder of class folders, .zip, .csv or .jsonl.",
)
@click.option("--threads", type=Threads(), help="Processor threads.")
@json_option
def check_command(
    model: Path, descriptions: Path | None, data: Path | None, threads: int | None, as_json: bool
) -> None:
    """Hold a model against its description, and every installed engine against the others.

    Exits with 2 when something is wrong.

    \b
        tinysaver-edge models check lcnet.onnx --data images.zip
    """
    description = find_description(model, descriptions_dir=descriptions)
    pictures = None if data is None else read_pictures(data)
    result = check_model(description, pictures, threads=threads)
    marks = {True: "ok", False: "WRONG", None: "-"}
    terminal.show_table(
        str(model),
        ("what", "result", "detail"),
        [(one.name, marks[one.passed], one.detail) for one in result.findings],
    )
    if as_json:
        terminal.show_json(result.to_dict())
    if not result.passed:
        wrong = next(one for one in result.findings if one.passed is False)
        raise ModelError(f"model {model}: {wrong.name}: {wrong.detail}")
