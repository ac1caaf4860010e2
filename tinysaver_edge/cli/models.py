"""`tinysaver-edge models`: describe and profile model files; the group's rest lies beside it."""

from __future__ import annotations

import difflib
import importlib
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from tinysaver_edge._support import numbers
from tinysaver_edge._support.files import check_file_target, read_toml, write_text
from tinysaver_edge._support.text import for_people
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import LocalPath, Number, json_option, output_option
from tinysaver_edge.errors import InputError
from tinysaver_edge.models.description.describe import KnownAlready
from tinysaver_edge.models.description.describe import describe as describe_model
from tinysaver_edge.models.description.description import parse_description
from tinysaver_edge.models.description.schema import unfilled
from tinysaver_edge.models.graph.macs import ModelProfile
from tinysaver_edge.models.graph.macs import profile as profile_model
from tinysaver_edge.output_format import MULTI_LABEL
from tinysaver_edge.preprocess import ColorOrder, ResizePolicy


class Later(NamedTuple):
    """A command that is not imported yet.

    Attributes:
        module: where it is.
        attribute: what it is called there.
        help: its first sentence.
    """

    module: str
    attribute: str
    help: str


class LazyGroup(click.Group):
    """A group with commands of its own and others in files that ``--help`` does not read."""

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401
        later: Mapping[str, Later],
        **settings: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*arguments, **settings)
        self._later = later

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands, in alphabetical order."""
        return sorted({*super().list_commands(ctx), *self._later})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command, imported where need be."""
        if cmd_name not in self._later:
            return super().get_command(ctx, cmd_name)
        place = self._later[cmd_name]
        command: click.Command = getattr(importlib.import_module(place.module), place.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; a slip for one is told with the nearest."""
        name, known = args[0], self.list_commands(ctx)
        near = difflib.get_close_matches(name, known, n=1)
        if near and name not in known and not name.startswith("-"):
            ctx.fail(f"No such command '{name}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        rows = []
        for name in self.list_commands(ctx):
            if name in self._later:
                rows.append((name, self._later[name].help))
            elif (command := super().get_command(ctx, name)) is not None:
                rows.append((name, command.get_short_help_str(limit=80)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


_PLACE = "tinysaver_edge.cli.models_"
_LATER = {
    "list": Later(f"{_PLACE}list", "list_models", "List timm's models by cost and accuracy."),
    "export": Later(f"{_PLACE}export", "export_command", "Export one of timm's models."),
    "quantize": Later(f"{_PLACE}quantize", "quantize_command", "Write it in INT8, FP16 or BF16."),
    "check": Later(f"{_PLACE}check", "check_command", "Compare description, file and engines."),
}


@click.group(cls=LazyGroup, later=_LATER)
def models() -> None:
    """Find, export, quantise, describe and check models."""


@models.command()
@click.argument("model", type=LocalPath())
@click.option("--out", type=LocalPath(), help="File to write instead of stdout.")
@click.option("--force", is_flag=True, help="Write over a description that is there already.")
@click.option(
    "--color",
    type=click.Choice([one.value for one in ColorOrder], case_sensitive=False),
    help="Order of the channels that the model expects.",
)
@click.option(
    "--scale", help="imagenet, half (-1..1), unit (0..1), raw (0..255), quantized, or a TOML table."
)
@click.option("--labels", help="File of class names, beside the model or the description.")
@click.option("--resize", type=click.Choice([one.value for one in ResizePolicy]))
@click.option("--crop-ratio", type=Number(0, 1, min_open=True))
@output_option
@json_option
def describe(
    model: Path,
    out: Path | None,
    force: bool,
    color: str | None,
    scale: str | None,
    labels: str | None,
    resize: str | None,
    crop_ratio: float | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Write what a model's file tells, with "?" where only you know.

    \b
        tinysaver-edge models describe resnet56.onnx --out resnet56.toml
        tinysaver-edge models describe resnet56.onnx --color RGB --scale imagenet
    """
    if out is not None:
        check_file_target(out)
    if out is not None and out.is_file():
        _check_replaced(out, force=force)
    answers = KnownAlready(
        color=ColorOrder(color) if color else None,
        scale=scale,
        labels=_names_file(labels, model, out),
        resize=ResizePolicy(resize) if resize else None,
        crop_ratio=crop_ratio,
        output=output,
    )
    text = describe_model(model, answers)
    said = parse_description(text, str(model))
    still_open = unfilled(said)
    if out is not None:
        write_text(out, text)
        terminal.say(f"wrote {out}")
    if as_json:
        terminal.show_json({"description": said, "to_fill_in": list(still_open)})
    elif out is None:
        click.echo(for_people(text, None), nl=False)
    if MULTI_LABEL in text:
        terminal.warn([f"{model}: {MULTI_LABEL}"])
    if still_open:
        terminal.say(f'still to be filled in, where it says "?": {", ".join(still_open)}')
    terminal.next_step(_after_describing(model, out, still_open=bool(still_open)))


def _check_replaced(out: Path, *, force: bool) -> None:
    if not force:
        raise InputError(f"{out} is there already: choose another name, or give --force")
    try:
        read_toml(out)
    except (OSError, ValueError):
        raise InputError(f"{out} is no description: choose another name") from None


def _names_file(labels: str | None, model: Path, out: Path | None) -> str | None:
    """Return how a description at `out` names the file of class names that the user named."""
    if labels is None or out is None:
        return labels
    if any((folder / labels).is_file() for folder in (out.parent, model.parent)):
        return labels
    if not Path(labels).is_file():
        raise InputError(f"--labels {labels}: no such file, here, beside {model} or beside {out}")
    return Path(os.path.relpath(labels, out.parent)).as_posix()


def _after_describing(model: Path, out: Path | None, *, still_open: bool) -> str:
    check = terminal.command_line("models", "check", model, "--data", "images/")
    if out is None:
        place = shlex.quote(str(model.with_suffix(".toml")))
        return f"keep it with --out {place}, then {check}"
    return f'put answers for "?" into {out}, then {check}' if still_open else check


@models.command()
@click.argument("model", type=LocalPath())
@click.option(
    "--size",
    type=click.IntRange(1),
    nargs=2,
    metavar="HEIGHT WIDTH",
    help="Size of the picture, where the file leaves it open.",
)
@output_option
@json_option
def profile(model: Path, size: tuple[int, int] | None, output: str | None, as_json: bool) -> None:
    """Count a model's multiply-accumulates, parameters and bytes.

    \b
        tinysaver-edge models profile resnet56.onnx
        tinysaver-edge models profile any-size.onnx --size 224 224 --json
    """
    found = profile_model(model, size, output=output)
    if found.cost.uncounted:
        terminal.warn([f"not counted: {', '.join(found.cost.uncounted)}"])
    terminal.show_table(str(model), ("what", "value"), _rows(found))
    terminal.next_step(f"{terminal.command_line('bench', model)} for the time that it takes here")
    if as_json:
        terminal.show_json(found.to_dict())


def _rows(found: ModelProfile) -> list[tuple[str, str]]:
    cost, signature = found.cost, found.signature
    return [
        ("multiply-accumulates (MACs)", numbers.macs(cost.macs)),
        ("FLOPs (2 x MACs)", f"{cost.flops:,}"),
        ("parameters", f"{cost.parameters:,}"),
        ("size of the parameters", f"{cost.parameter_bytes / 1e6:.2f} MB"),
        ("size of the files", f"{found.size_bytes / 1e6:.2f} MB"),
        ("input", _tensor(signature.input_name, signature.input_dtype, signature.input_shape)),
        ("output", _tensor(signature.output_name, signature.output_dtype, signature.output_shape)),
    ]


def _tensor(name: str, dtype: str, shape: tuple[int | None, ...]) -> str:
    return f"{name} {dtype} ({', '.join('n' if one is None else str(one) for one in shape)})"
