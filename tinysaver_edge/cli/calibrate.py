"""`tinysaver-edge calibrate`: choose a saver and a threshold, and write a bundle."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

import click

from tinysaver_edge.calibrate import Calibration
from tinysaver_edge.calibrate import calibrate as run_calibration
from tinysaver_edge.calibrate.options import Option
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.calibrate.settings import OPTIONS, Settings
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import Command, GroupedCommand, Number, json_option, options_of
from tinysaver_edge.cli.show import show_calibration, show_candidates
from tinysaver_edge.errors import InfeasibleError


def calibrate_options(command: Command) -> Command:
    """Give a command all of them."""
    for name, option in reversed(list(OPTIONS.items())):
        flag = option.flag or f"--{name.replace('_', '-')}"
        made = options_of(option.group.value)(
            flag,
            name,
            type=_type(option),
            is_flag=option.kind is bool or None,  # False lets a value be left out
            multiple=option.many,
            metavar=option.metavar,
            help=option.help,
        )
        command = made(command)
    return command


def _type(option: Option) -> Any:  # noqa: ANN401
    """Return what reads a value, in click's terms."""
    if option.span is not None:
        return click.IntRange(*option.span)
    if issubclass(option.kind, Path):
        return click.Path(path_type=Path)
    if issubclass(option.kind, Enum):
        return click.Choice([str(one.value) for one in option.kind])
    return Number() if option.kind is float else option.kind


@click.command(cls=GroupedCommand)
@click.argument("recipe", required=False)
@calibrate_options
@json_option
def calibrate(recipe: str | None, as_json: bool, **flags: Any) -> None:  # noqa: ANN401
    """Choose a saver and a threshold on labelled images, and write a bundle.

    \b
    Two models and a folder of class folders:
        tinysaver-edge calibrate --data images/ --large resnet56.onnx \\
            --saver resnet8.tflite --saver resnet20.onnx --max-drop 0.5 --out bundle/
    A recipe, by name or path; flags override it:
        tinysaver-edge calibrate cifar10 --root ../data/cifar10 --out bundle/
    Records that are there already:
        tinysaver-edge calibrate --records DIR --labels labels.npy --macs models.csv \\
            --large NAME --saver all --out bundle/
    The most accurate cascade that fits:
        tinysaver-edge calibrate cifar10 --no-max-drop --budget p95_latency_ms=5 --out bundle/
    """
    settings = Settings() if recipe is None else load_recipe(recipe, root=flags["root"])
    settings = settings.overridden(flags)
    try:
        result = _calibrated(settings)
    except InfeasibleError as error:  # what each saver would do, before the line that says why
        terminal.warn(error.warnings)
        show_candidates(error.candidates)
        raise
    terminal.warn(result.warnings)
    show_calibration(result)
    terminal.next_step(_next_step(result, settings))
    if as_json:
        terminal.show_json(result.to_dict())


def _calibrated(settings: Settings) -> Calibration:
    plan = settings.plan()
    with terminal.progress() as progress:
        return run_calibration(
            plan,
            out=settings.out,
            progress=progress,
            command=shlex.join(["tinysaver-edge", *sys.argv[1:]]),
            created=datetime.now(timezone.utc),
        )


def _next_step(result: Calibration, settings: Settings) -> str:
    if result.policy.stages[0].threshold is None:
        return (
            "try other savers, more labelled samples or a larger --max-drop: here every frame "
            "goes to the large model"
        )
    if result.bundle is None:
        return "add --out bundle/, which writes what a device needs"
    if settings.records is not None:
        return (
            f"{terminal.command_line('evaluate', result.bundle)} --records DIR --labels FILE.npy, "
            "on samples that it has not seen; to run, a bundle needs models: calibrate --data"
        )
    return (
        f"on the device {terminal.command_line('verify', result.bundle)}, then "
        f"{terminal.command_line('run', result.bundle, '--source', '0')}"
    )
