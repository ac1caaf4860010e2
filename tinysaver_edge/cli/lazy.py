"""Groups of commands that are imported only when they are called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click


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
