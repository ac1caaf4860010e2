"""The command line: one file a command, each thin; errors become one line and an exit code."""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from tinysaver_edge._support.packages import silence_onnxruntime
from tinysaver_edge._support.text import for_people
from tinysaver_edge._version import __version__
from tinysaver_edge.cli.options import ProgramAnswer, as_typed_here, give_failure
from tinysaver_edge.errors import TinySaverError

_COMMANDS = MappingProxyType(
    {
        "collect": "Collect frames of cameras or recordings at random moments, to calibrate with.",
        "calibrate": "Choose a saver and a threshold, and write a bundle.",
        "measure": "Run models over images here, to calibrate with elsewhere or later.",
        "evaluate": "Measure a bundle on labelled images it has not seen.",
        "run": "Decide images, videos and cameras with a bundle.",
        "compare": "Set a bundle beside figures that others have published.",
        "verify": "Check that a bundle behaves here as it did where it was calibrated.",
        "bundle": "Name the classes of a finished bundle; sign it.",
        "models": "Find, export, quantise, describe and check models.",
        "devices": "List and describe devices; probe the one at hand.",
        "bench": "Measure a model or a bundle on this device.",
        "plan": "Say how many hosts and how much uplink so many cameras need.",
        "deploy": "Write what Triton, KServe, OVMS or Ray Serve need to serve it.",
        "serve": "Have this machine answer a bundle's large model for devices.",
        "doctor": "Find what is broken here, and the command that mends it.",
        "quickstart": "Make real ImageNet models to start with.",
        "demo": "See it work on a simulated camera: nothing to download.",
    }
)


_KEPT = MappingProxyType(
    dict.fromkeys(
        ("calibrate", "measure"), "; what was measured is kept and the next run goes on from there"
    )
)
"""What an interruption leaves, by command."""


_NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""How click from 8.2 on says that a group was called alone; its message is the help."""


_OF_WINDOWS = re.compile(r"(\w+=)?[A-Za-z]:\\")


class _ReaderGone(Exception):  # noqa: N818 - no error
    """Whoever read stdout has enough, as ``head`` has."""


class _LazyGroup(click.Group):
    """Imports a command only when it is called, so that ``--help`` is quick."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; a slip for one is told with the nearest."""
        name = args[0]
        near = difflib.get_close_matches(name, _COMMANDS, n=1)
        if near and name not in _COMMANDS and not name.startswith("-"):
            ctx.fail(f"No such command '{name}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order a user meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"tinysaver_edge.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        """Run a command; click would make 1 of a reader that has gone, as of any error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGone from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="tinysaver-edge")
def cli() -> None:
    """Let a tiny model answer the easy frames and ask the large one only when it is unsure.

    Start with `tinysaver-edge demo`, then calibrate your own two models:

    \b
        tinysaver-edge calibrate --data images/ --large big.onnx --saver tiny.onnx --out bundle/
        tinysaver-edge run bundle/ --source video.mp4 --json
    """


def main() -> None:
    """Run the command line; the exit code is 0, 2 for bad input, 3 where no choice is possible."""
    _take_closed_places()
    silence_onnxruntime()
    answer = ProgramAnswer()
    try:
        code = cli.main(standalone_mode=False, obj=answer)
    except _NO_ARGUMENTS as error:
        with suppress(OSError):
            click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (BrokenPipeError, _ReaderGone):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (
        click.ClickException,
        click.Abort,
        KeyboardInterrupt,
        TinySaverError,
        OSError,
        MemoryError,
    ) as error:
        message, exit_code = _told(error)
        give_failure(answer, message, exit_code, error)
        with suppress(OSError):  # the exit code says it, too
            click.echo(for_people(f"tinysaver-edge: {message}"), err=True)
        _give_up_stdout()
        sys.exit(exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _told(error: BaseException) -> tuple[str, int]:
    """Return what went wrong in one line, and the exit code."""
    if isinstance(error, click.ClickException):
        message, exit_code = error.format_message(), error.exit_code
    elif isinstance(error, TinySaverError):
        message, exit_code = str(error), error.exit_code
    elif isinstance(error, OSError):
        place = "" if error.filename is None else f"{error.filename}: "
        message, exit_code = f"{place or _nowhere(error)}{error.strerror or error}", 2
    elif isinstance(error, MemoryError):
        message, exit_code = "there is not enough memory for this", 2
    else:
        message, exit_code = f"interrupted{_KEPT.get(_asked_for(), '')}", 130
    said = as_typed_here(" ".join(message.split()))
    if os.name == "posix" and any(_OF_WINDOWS.match(word) for word in sys.argv[1:]):
        said += " (a path of Windows means nothing here: under WSL C:\\ is /mnt/c/)"
    return said, exit_code


def _take_closed_places() -> None:
    """Take the place of standard streams that are closed, or the next file that is opened does.

    What is written to a closed stdout fails, as it should: nobody gets the answer.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the lowest that is free is given out
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):  # a terminal's encoding may lack a class's letters
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _give_up_stdout() -> None:
    """Let what cannot be written go, or Python fails on it once more at the end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _nowhere(error: OSError) -> str:
    """Say what it is about where the system names nothing: stdout, or a current folder's loss."""
    if error.errno == errno.EBADF:
        return "stdout is closed: "
    try:
        Path.cwd()
    except OSError:
        return "the current folder is gone, change to another: "
    return ""


def _asked_for() -> str:
    """Return the command that was given; there are no options with a value before it."""
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "")
