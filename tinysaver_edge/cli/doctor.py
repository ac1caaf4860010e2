"""`tinysaver-edge doctor`: what is broken here, and the command that mends it."""

from __future__ import annotations

import sys

import click

from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import json_option
from tinysaver_edge.hardware.doctor import Standing, examine

_MARKS = {Standing.OK: "ok", Standing.NOTE: "-", Standing.BROKEN: "BROKEN"}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Find what is broken here, and the command that mends it.

    Looks at Python and its packages, at OpenCV, at every engine and every device that it lists, at
    drivers, cameras and folders. Exits with 2 when something is broken.
    """
    diagnosis = examine()
    terminal.show_table(
        "doctor",
        ("check", "result", "detail"),
        [(check.name, _MARKS[check.state], check.detail) for check in diagnosis.checks],
    )
    to_mend = [check for check in diagnosis.checks if check.mend]
    if to_mend:
        terminal.tell("")
    for check in sorted(to_mend, key=lambda one: one.state is not Standing.BROKEN):
        what = "mend" if check.state is Standing.BROKEN else "could be had"
        terminal.tell(f"{what}: {check.name}\n    {check.mend}")
    count = len(diagnosis.broken)
    terminal.tell(f"\n{count} broken" if count else "\nnothing is broken")
    terminal.next_step(
        "the first command above, then tinysaver-edge doctor again"
        if count
        else "tinysaver-edge demo; with a bundle, tinysaver-edge verify BUNDLE"
    )
    if as_json:
        terminal.show_json(diagnosis.to_dict())
    if not diagnosis.healthy:
        sys.exit(2)
