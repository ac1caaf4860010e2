"""`tinysaver-edge models check`: description, file and engines against each other."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tinysaver_edge._support import numbers
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import DataPath, LocalPath, Threads, json_option, output_option
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.store import Place
from tinysaver_edge.errors import ModelError
from tinysaver_edge.models.compare.compare import check_model
from tinysaver_edge.models.compare.readings import Readings
from tinysaver_edge.models.description.description import find_description


@click.command("check")
@click.argument("model", type=LocalPath())
@click.option("--descriptions", type=LocalPath(), help="Folder of descriptions (NAME.toml).")
@click.option(
    "--data",
    type=DataPath(),
    help="Labelled images to run it on: class folders, .zip, .csv, .jsonl, .tar or Parquet.",
)
@output_option
@click.option("--threads", type=Threads(), help="Processor threads.")
@json_option
def check_command(
    model: Path,
    descriptions: Path | None,
    data: Place | None,
    output: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Hold a model against its description, and every installed engine against the others.

    With labelled images, all plausible readings of the file are tried as well: scales, colour
    orders, ways to resize, a background class. Exits with 2 when something is wrong, or another
    reading clearly fits better.

    \b
        tinysaver-edge models check lcnet.onnx --data images.zip
    """
    description = find_description(model, descriptions_dir=descriptions, output=output)
    if data is None:
        result = check_model(description, threads=threads)
    else:
        with open_data(data) as images:
            result = check_model(description, data=images, threads=threads)
    marks = {True: "ok", False: "WRONG", None: "-"}
    terminal.show_table(
        str(model),
        ("what", "result", "detail"),
        [(one.name, marks[one.passed], one.detail) for one in result.findings],
    )
    if result.readings is not None:
        _show_readings(result.readings)
    if as_json:
        terminal.show_json(result.to_dict())
    if result.passed:
        terminal.next_step(
            f"{terminal.command_line('calibrate', '--data', 'images/', '--large', 'LARGE.onnx')} "
            f"--saver {shlex.quote(str(model))} --out bundle/",
        )
    else:
        wrong = next(one for one in result.findings if one.passed is False)
        raise ModelError(f"model {model}: {wrong.name}: {wrong.detail}")


def _show_readings(readings: Readings) -> None:
    terminal.say("")
    terminal.show_table(
        "Readings of the file; those that fall clearly behind are given up early",
        ("reading", "images", "accuracy", "against described", "result"),
        [
            (
                one.what,
                str(one.images),
                numbers.percent(one.accuracy, 1),
                numbers.gain(100 * one.difference),
                one.verdict.value,
            )
            for one in readings.tried
        ],
    )
