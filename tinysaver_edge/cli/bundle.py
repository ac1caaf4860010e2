"""`tinysaver-edge bundle`: small changes to a finished bundle."""

from __future__ import annotations

from pathlib import Path

import click

from tinysaver_edge.cli import terminal
from tinysaver_edge.deciding.naming import name_classes


@click.group()
def bundle() -> None:
    """Change what a certificate does not speak of in a finished bundle."""


@bundle.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("names", type=click.Path(path_type=Path))
def labels(bundle: Path, names: Path) -> None:
    """Give the classes of a bundle names, from a file with one a line.

    Models, threshold, golden samples and certificate stay what they are.

    \b
        tinysaver-edge bundle labels bundle/ names.txt
    """
    found = name_classes(bundle, names)
    more = ", …" if len(found) > 5 else ""
    terminal.say(f"named {len(found)} classes in {bundle}: {', '.join(found[:5])}{more}")
