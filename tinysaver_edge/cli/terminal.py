"""What people read on a terminal: results on stdout, all else on stderr; and how they stop it."""

from __future__ import annotations

import atexit
import json
import logging
import os
import select
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from tinysaver_edge._support.text import for_people, without_logins
from tinysaver_edge.cli.options import ProgramAnswer, as_typed_here


def console(*, stderr: bool = True) -> Console:
    """Return a console, wide enough for tables where it is no terminal."""
    plain = Console(stderr=stderr, highlight=False)
    if plain.is_terminal:
        return plain
    return Console(stderr=stderr, highlight=False, width=150)


def columns() -> int:
    """Return how many signs a line of a table may have."""
    return console(stderr=_stdout_is_taken()).width


STOPPING = (signal.SIGINT, signal.SIGTERM)

NUDGE = signal.SIGURG
"""Has a thread that is in the middle of a write begin it anew; nothing else heeds it."""

AGAIN_S = 1.0
"""A signal that follows sooner is the same one, passed on by a shell, `timeout` or a runner."""


UNREAD_S = 3.0
"""Once it is to stop, a command waits so long for whoever reads what it writes."""


@dataclass(slots=True)
class Stop:
    """Whether a signal came, and which.

    Attributes:
        signal: the first that came, or None.
    """

    signal: signal.Signals | None = None


@contextmanager
def stopping_on_signals(close: Callable[[], None]) -> Iterator[Stop]:
    """Call a function when a signal to stop comes, instead of being interrupted anywhere.

    It is called in a thread of its own: a handler runs in the middle of whatever the main thread
    does, which may hold the very lock that is needed. What is written to a terminal or a pipe that
    nobody reads is lost from then on, or the command would wait for a reader to the end of time.
    """
    stop, first_s = Stop(), 0.0
    before = {number: signal.getsignal(number) for number in STOPPING}

    def stopped(number: int, _: FrameType | None) -> None:
        nonlocal first_s
        if stop.signal is None:
            stop.signal, first_s = signal.Signals(number), time.monotonic()
            threading.Thread(target=close, name="stopping", daemon=True).start()
            threading.Thread(target=_give_up_unread, name="unread", daemon=True).start()
        elif time.monotonic() - first_s >= AGAIN_S:
            for each, handler in before.items():
                signal.signal(each, handler)
            signal.raise_signal(number)

    def deaf() -> None:
        if stop.signal is not None:  # Python takes its handlers down: the last moment is not safe
            for each in STOPPING:
                signal.signal(each, signal.SIG_IGN)

    try:
        for number in STOPPING:
            signal.signal(number, stopped)
        signal.signal(NUDGE, lambda *_: None)
        atexit.register(deaf)
    except ValueError:  # not the main thread: whoever is will be told of signals
        yield stop
        return
    try:
        yield stop
    finally:
        if stop.signal is None:  # else the same signal may still come once more, before the end
            for number, handler in before.items():
                signal.signal(number, handler)


def _give_up_unread() -> None:
    """Let what is written to stdout and stderr go, once nobody has read there for a while."""
    full_s = dict.fromkeys((1, 2), 0.0)
    while full_s:
        time.sleep(UNREAD_S / 10)
        for output in list(full_s):
            full_s[output] += UNREAD_S / 10
            try:
                if select.select([], [output], [], 0)[1]:
                    full_s[output] = 0.0
            except (OSError, ValueError):  # it is closed
                del full_s[output]
                continue
            if full_s[output] >= UNREAD_S:
                os.dup2(os.open(os.devnull, os.O_WRONLY), output)
                del full_s[output]
                for thread in threading.enumerate():
                    # Of a library's own threads Python does not hear when they end.
                    if thread.ident is not None and not isinstance(thread, threading._DummyThread):
                        signal.pthread_kill(thread.ident, NUDGE)


def exit_code(stop: Stop, *, complete: bool) -> int:
    """Return 0 only where every decision went where it was to go: programs wait for that."""
    if stop.signal is None:
        return 0 if complete else 2
    say(f"tinysaver-edge: stopped by {stop.signal.name}")
    return 128 + stop.signal


_LOGGER = "tinysaver_edge.cli"


def log_json() -> None:
    """Have all that the command says from here on written to stderr as lines of JSON, as events."""
    from tinysaver_edge.stream.telemetry.logs import LogWriter

    context = click.get_current_context()
    context.with_resource(LogWriter(sys.stderr, as_json=True))
    context.meta[_LOGGER] = True


def _logs() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and _LOGGER in context.meta


def say(message: str) -> None:
    """Write a line to stderr; where nobody takes it, the command's work is done all the same."""
    if _logs():
        logging.getLogger(_LOGGER).info(message)
    else:
        with suppress(OSError):
            click.echo(for_people(as_typed_here(message)), err=True)


def tell(message: str) -> None:
    """Write a line of what the command was asked for: to stdout, unless JSON goes there."""
    if _stdout_is_taken():
        say(message)
    else:
        click.echo(for_people(as_typed_here(message)))


def _stdout_is_taken() -> bool:
    """Whether stdout is for programs in this command."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.params.get("as_json"))


def explain(words: str) -> None:
    """Write to stderr what the words of a table mean; nothing where a program reads along."""
    if not _stdout_is_taken():
        say(words)


def next_step(step: str) -> None:
    """Write the next useful step to stderr, in a line; nothing where a program reads along."""
    explain(f"Next: {step}")


def command_line(*words: str | Path) -> str:
    """Return a call of this program to be copied into a shell."""
    return shlex.join(["tinysaver-edge", *map(str, words)])


def warn(warnings: Iterable[str]) -> None:
    """Write warnings to stderr."""
    for warning in warnings:
        if _logs():
            logging.getLogger(_LOGGER).warning(warning)
        else:
            say(f"warning: {warning}")


def show_json(values: dict[str, Any]) -> None:
    """Write one JSON object to stdout; addresses in it have no logins."""
    ProgramAnswer.note_given()
    click.echo(json.dumps(_without_logins(values), indent=2, allow_nan=False))


def _without_logins(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, str):
        return without_logins(value)
    if isinstance(value, dict):
        return {key: _without_logins(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_logins(one) for one in value]
    return value


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table as `tell` does; all but the first column and a last one of words lean right."""
    # As text: a cell like tinysaver-edge[cpu], or a file of such a name, is no markup.
    called = Text(for_people(title), style="table.title")
    table = Table(title=called, title_justify="left", box=None, pad_edge=False, header_style="bold")
    rows = list(rows)
    for place, column in enumerate(columns):
        words = place == 0 or column in ("why", "promise", "detail", "result")
        # Figures that have their interval below them give way last where there is little room.
        paired = not words and any("\n" in row[place] for row in rows)
        justify: Literal["left", "right"] = "left" if words else "right"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=paired)
    for row in rows:
        table.add_row(*(Text(for_people(as_typed_here(cell))) for cell in row))
    shown = console(stderr=_stdout_is_taken())
    with suppress(*((OSError,) if shown.stderr else ())):
        shown.print(table)


class _RateColumn(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """Return the rate, once there is one."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f}/s")


class Bar:
    """Shows progress as a bar with rate and time left; plain lines where there is no terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def start(self, what: str, *, total: int, done: int = 0) -> None:
        """Show a new bar."""
        if not self._progress.console.is_terminal:
            say(f"{what}: {total - done} of {total} to go")
        self._task = self._progress.add_task(escape(for_people(what)), total=total, completed=done)

    def advance(self, steps: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.advance(self._task, steps)

    def finish(self) -> None:
        """Leave the bar as it is."""
        self._task = None

    def note(self, message: str) -> None:
        """Write a line above the bars."""
        self._progress.console.print(Text(for_people(message)), highlight=False)


@contextmanager
def progress() -> Iterator[Bar]:
    """Show progress on stderr while the block runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    shown = console()
    with Progress(*columns, console=shown, disable=not shown.is_terminal) as bars:
        yield Bar(bars)
