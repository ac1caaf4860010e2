"""Options that several commands share."""

from __future__ import annotations

import click

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Write one JSON object to stdout."
)
