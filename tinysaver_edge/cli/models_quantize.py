"""`tinysaver-edge models quantize`: a smaller, quicker form of a model, and what it costs."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tinysaver_edge._support import numbers
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import DataPath, LocalPath, json_option, output_option
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.store import Place
from tinysaver_edge.deciding.figures import interval_of
from tinysaver_edge.hardware.cpu import read_cpu
from tinysaver_edge.models.description.description import find_description
from tinysaver_edge.models.quantize.quantize import (
    CALIBRATION_SAMPLES,
    EVALUATION_SAMPLES,
    Form,
    Quantized,
    quantize,
)


@click.command("quantize")
@click.argument("model", type=LocalPath())
@click.option(
    "--out",
    required=True,
    type=LocalPath(),
    help="File to write: .onnx (onnxruntime's tools) or .xml (NNCF, OpenVINO).",
)
@click.option(
    "--data",
    required=True,
    type=DataPath(),
    help="Labelled images: folder of class folders, .zip, .csv, .jsonl, .tar or Parquet.",
)
@click.option(
    "--to",
    "form",
    type=click.Choice([one.value for one in Form]),
    default=Form.INT8.value,
    show_default=True,
    help="What the numbers become.",
)
@click.option("--descriptions", type=LocalPath(), help="Folder of descriptions (NAME.toml).")
@output_option
@click.option(
    "--calibration-samples",
    type=click.IntRange(1),
    default=CALIBRATION_SAMPLES,
    show_default=True,
    help="Images to find the ranges of activations on.",
)
@click.option(
    "--evaluation-samples",
    type=click.IntRange(1),
    default=EVALUATION_SAMPLES,
    show_default=True,
    help="Other images, to measure accuracy on.",
)
@click.option(
    "--reduce-range", is_flag=True, help="Weights of 7 bits, for processors without VNNI (.onnx)."
)
@click.option("--seed", type=int, default=0, help="Decides which images are taken for what.")
@json_option
def quantize_command(
    model: Path,
    out: Path,
    data: Place,
    form: str,
    descriptions: Path | None,
    output: str | None,
    calibration_samples: int,
    evaluation_samples: int,
    reduce_range: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Write a model in INT8, FP16 or BF16 and measure it before and after.

    Calibrate the cascade on the new file: a threshold found on the old one is not valid for it.

    \b
        tinysaver-edge models quantize resnet20.onnx --data images.zip --out resnet20-int8.xml
    """
    description = find_description(model, descriptions_dir=descriptions, output=output)
    with open_data(data) as images, terminal.progress() as progress:
        terminal.warn(images.left_out.lines)
        result = quantize(
            description,
            out,
            images,
            form=Form(form),
            calibration_samples=calibration_samples,
            evaluation_samples=evaluation_samples,
            reduce_range=reduce_range,
            seed=seed,
            progress=progress,
        )
    _show(model, result)
    terminal.next_step(
        f"{terminal.command_line('calibrate', '--data', 'images/', '--large', 'LARGE.onnx')} "
        f"--saver {shlex.quote(str(result.files[0]))} --out bundle/; a threshold found on "
        f"{model.name} is not valid for it",
    )
    if as_json:
        terminal.show_json({**result.to_dict(), "drop_interval_points": _interval(result)})


def _show(model: Path, result: Quantized) -> None:
    terminal.show_table(
        f"{result.form.value} on {result.evaluation_samples} images",
        ("model", "engine", "accuracy", "size"),
        [
            _row(model, result.engine_before, result.accuracy_before, result.bytes_before),
            _row(result.files[0], result.engine_after, result.accuracy_after, result.bytes_after),
        ],
    )
    if result.form is Form.INT8 and (cpu := read_cpu()) is not None:
        terminal.say(
            f"measured on {cpu.family}: INT8 answers a little otherwise on another kind of "
            "processor, and a threshold holds for the kind it was found on: run "
            "`tinysaver-edge measure` on the device and calibrate --records on what it wrote"
        )
    found = _interval(result)
    within = "" if found is None else f" (95 % interval {found[0]:+.2f} to {found[1]:+.2f})"
    terminal.say(
        f"{result.files[0].name} {numbers.loss(result.drop_points)}{within} and names the same "
        f"class on {numbers.percent(result.top1_agreement)} of the images"
    )


def _interval(result: Quantized) -> tuple[float, float] | None:
    return interval_of(result.lost, result.gained, result.evaluation_samples)


def _row(path: Path, engine: str, accuracy: float, size: int) -> tuple[str, ...]:
    return (str(path), engine, numbers.percent(accuracy), f"{size / 1e6:.2f} MB")
