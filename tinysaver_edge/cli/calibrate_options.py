"""The options of `tinysaver-edge calibrate`, made of the table of its settings."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import click

from tinysaver_edge.calibrate.settings import OPTIONS, Option
from tinysaver_edge.cli.options import Command, Number, options_of


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
