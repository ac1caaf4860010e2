"""`tinysaver-edge compare`: set a finished bundle beside published figures."""

from __future__ import annotations

from pathlib import Path

import click

from tinysaver_edge._support import numbers
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate.chosen.published import CascadeFigures, read_published, set_beside
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import LocalPath, json_option


@click.command()
@click.argument("bundle", type=LocalPath())
@click.option(
    "--published",
    type=LocalPath(),
    help="Table of figures to compare with; those that come with this package by default.",
)
@json_option
def compare(bundle: Path, published: Path | None, as_json: bool) -> None:
    """Set a finished bundle beside figures that others have published.

    Those of the same large model where there are any, else all; each with its source. Only figures
    on the same images are comparable.

    \b
        tinysaver-edge compare bundle/
        tinysaver-edge compare bundle/ --published mine.csv --json
    """
    with Bundle.load(bundle) as opened:
        found = set_beside(opened.manifest, read_published(published))
    if not found.same_large:
        large = found.own[0].large
        terminal.tell(f"no published figure is of {large}: all there are follow")
    terminal.show_table(
        f"{bundle} beside published figures",
        ("whose", "on", "large", "saver", "allowed", "right", "drop", "GMACs", "cost", "detail"),
        [_row(one) for one in (*found.own, *found.published)],
    )
    terminal.next_step(
        f"{terminal.command_line('evaluate', bundle, '--data', 'images/')}, which measures it on "
        "images of yours"
    )
    if as_json:
        terminal.show_json(found.to_dict())


def _row(one: CascadeFigures) -> tuple[str, ...]:
    return (
        one.system,
        one.data,
        one.large,
        one.saver or "",
        "" if one.max_drop_points is None else f"{one.max_drop_points:g} pt",
        "" if one.top1_percent is None else numbers.percent(one.top1_percent / 100),
        "" if one.drop_points is None else numbers.points(one.drop_points),
        "" if one.mean_gmacs is None else f"{one.mean_gmacs:.2f}",
        "" if one.cost_macs_ratio is None else numbers.ratio(one.cost_macs_ratio),
        one.source,
    )
