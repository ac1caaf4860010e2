"""`tinysaver-edge verify`: does a bundle behave here as it did where it was calibrated?"""

from __future__ import annotations

from pathlib import Path

import click

from tinysaver_edge.bundle import Bundle
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import json_option
from tinysaver_edge.verify import verify as run_verify


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def verify(bundle: Path, as_json: bool) -> None:
    """Check that a bundle behaves here as it did where it was calibrated.

    Compares every file's hash, then runs the golden samples through the engines that are here and
    compares resized pixels, probabilities and decisions. Exits with 2 when something differs.

    \b
        tinysaver-edge verify bundle/
    """
    with Bundle.load(bundle) as opened:
        result = run_verify(opened)
    marks = {True: "ok", False: "DIFFERS", None: "-"}
    terminal.show_table(
        f"{bundle}",
        ("check", "result", "detail"),
        [(check.name, marks[check.passed], check.detail) for check in result.checks],
    )
    if as_json:
        terminal.show_json(result.to_dict())
    result.raise_if_failed()
