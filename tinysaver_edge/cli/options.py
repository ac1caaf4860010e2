"""Options that several commands share, and the numbers they take."""

from __future__ import annotations

import math
import os
from typing import Any

import click

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


class Number(click.FloatRange):
    """A number within a range; nan, which click takes for one, and infinity are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Read it."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number.", param, ctx)
        return number


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
