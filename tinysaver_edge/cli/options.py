"""Options that several commands share, and the one JSON object that programs get."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from tinysaver_edge._support.text import for_people


@dataclass(slots=True)
class ProgramAnswer:
    """What a call has written to stdout for programs so far.

    Attributes:
        given: whether its object is out already, as that of a bundle that `verify` finds changed.
    """

    given: bool = False

    @classmethod
    def note_given(cls) -> None:
        """Remember that the command at work writes its object."""
        context = click.get_current_context(silent=True)
        answer = None if context is None else context.find_object(cls)
        if answer is not None:
            answer.given = True


def give_failure(answer: ProgramAnswer, message: str, exit_code: int, error: BaseException) -> None:
    """Write why there is no other object, where one was asked for and none is out.

    Those who calibrate find what each saver would do in it.
    """
    words = sys.argv[1:]
    words = words[: words.index("--")] if "--" in words else words
    if "--json" not in words or answer.given:
        return
    said: dict[str, Any] = {"error": for_people(message), "exit_code": exit_code}
    # click makes an error of its own of Ctrl-C; what came of the work hangs on the first.
    known = next((one for one in (error, error.__cause__) if hasattr(one, "candidates")), None)
    if known is not None or "calibrate" in words[:1]:
        said["candidates"] = [one.to_dict() for one in getattr(known, "candidates", ())]
    lines = "run" in words[:1]  # whose decisions before this are a line each
    if lines:
        said["frame_id"] = None  # this one is about no frame
    try:
        click.echo(json.dumps(said, indent=None if lines else 2, allow_nan=False))
    except OSError:  # stdout is what failed: the line on stderr has to do
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_CALLS = re.compile(r"(?<![\w/.-])(?:tinysaver-edge (?=([a-z]+))|pip (?=((?:un)?install)\b))")


def as_typed_here(text: str) -> str:
    """Return a text in which this program and its pip are called as the user's shell finds them.

    Who runs ``.venv/bin/tinysaver-edge`` without having activated that environment has neither, or
    those of another.
    """

    def called(found: re.Match[str]) -> str:
        if found[2]:
            return f"{_own('pip', Path(sys.prefix, 'bin', 'pip'))} "
        is_command = Path(__file__).with_name(f"{found[1]}.py").is_file()
        return f"{_own('tinysaver-edge', Path(sys.argv[0]))} " if is_command else found[0]

    return _CALLS.sub(called, text)


def _own(name: str, path: Path) -> str:
    """Return how a shell here calls a program of this environment."""
    found = shutil.which(name)
    try:
        known = found is not None and path.samefile(found)
        if path.name != name or known or not path.is_file():
            return name
        path = path.absolute()
        here = Path.cwd()
    except OSError:  # not there, or the current folder is gone
        return name
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Write one JSON object to stdout."
)

output_option = click.option(
    "--output",
    metavar="NAME",
    help="Output that holds the classes, where the file has several; before the description's.",
)

MOST_THREADS = 8
"""For each core. Far more take minutes to start, and the command seems to hang."""


class LocalPath(click.Path):
    """A path on this machine. An address is none: it would name a folder ``s3:`` below this one."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - what `click.Path` takes
        super().__init__(path_type=Path, **settings)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Read it."""
        from tinysaver_edge.data.store import DataPlace

        place = DataPlace.of(value)
        if isinstance(place, str) and not os.path.lexists(place):
            scheme = place.partition("://")[0]
            why = "an address, and this takes a path on this machine."
            self.fail(f"{scheme}://… is {why}", param, ctx)
        return super().convert(place, param, ctx)


class DataPath(click.Path):
    """Where data lies: a path on this machine, or a URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Read it."""
        from tinysaver_edge.data.store import DataPlace

        return DataPlace.of(value)


class Number(click.FloatRange):
    """A number within a range; nan, which click takes for one, and infinity are none."""

    def _describe_range(self) -> str:
        """Say nothing in the help where there is no range."""
        unlimited = self.min is None and self.max is None
        return "" if unlimited else super()._describe_range()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Read it."""
        if isinstance(value, str) and not _is_number(value):
            self.fail(
                f"'{value}' is no number: digits with a decimal point and no unit, as 0.5.",
                param,
                ctx,
            )
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number.", param, ctx)
        return number


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Threads(click.IntRange):
    """How many threads one inference has: from 1 to a few for each core of this machine."""

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Read it."""
        threads, cores = super().convert(value, param, ctx), os.cpu_count() or 1
        if threads > MOST_THREADS * cores:
            self.fail(
                f"{threads} is too many for {cores} cores: more than one for each gain nothing.",
                param,
                ctx,
            )
        return threads


class GroupedOption(click.Option):
    """An option that the help lists under a heading of its own.

    Args:
        group: the heading; empty for what every command has.
    """

    def __init__(self, *arguments: Any, group: str = "", **settings: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **settings)
        self.group = group


def options_of(group: str) -> Callable[..., Callable[[Command], Command]]:
    """Return what stands for `click.option` within one group of a command's help.

    Example:
        source_option = options_of("Sources")

        @click.command(cls=GroupedCommand)
        @source_option("--source", help="A camera.")
        def run(source: str) -> None: ...
    """
    return functools.partial(click.option, cls=GroupedOption, group=group)


class GroupedCommand(click.Command):
    """A command whose help lists its options in groups, in the order in which they first come."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group under its heading; what has none comes last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            row = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if row is not None:
                groups.setdefault(getattr(option, "group", ""), []).append(row)
        others = groups.pop("", [])
        for heading, rows in (*groups.items(), ("Other options", others)):
            with formatter.section(heading):
                formatter.write_dl(rows)


trusted_option = options_of("The bundle")(
    "--trusted",
    type=LocalPath(),
    metavar="KEYS",
    help="Folder of public keys (*.pem): refuse a bundle that none of them signed. "
    "TINYSAVER_TRUSTED_KEYS sets it for a whole device.",
)

SOURCES = "Sources"

timeout_option = options_of(SOURCES)(
    "--timeout-s",
    type=Number(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="How long a camera may take to open, or to give a frame.",
)
