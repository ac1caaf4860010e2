"""`tinysaver-edge models list`: timm's published models, by cost and accuracy."""

from __future__ import annotations

import click

from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import Number, json_option
from tinysaver_edge.models.export.catalogue import read_catalogue, select


@click.command("list")
@click.argument("pattern", required=False)
@click.option("--max-gmacs", type=Number(0, min_open=True), help="In 10⁹ MACs.")
@click.option("--min-top1", type=Number(0, 100), help="ImageNet top-1, in percent.")
@click.option("--max-params", type=Number(0, min_open=True), help="In millions.")
@click.option("--pareto", is_flag=True, help="Only those that no other beats in both.")
@json_option
def list_models(
    pattern: str | None,
    max_gmacs: float | None,
    min_top1: float | None,
    max_params: float | None,
    pareto: bool,
    as_json: bool,
) -> None:
    """List timm's models with what is published of them.

    \b
        tinysaver-edge models list --max-gmacs 0.3 --min-top1 70
        tinysaver-edge models list 'mobilenetv4*' --pareto --json
    """
    found = select(
        read_catalogue(),
        pattern=pattern,
        max_gmacs=max_gmacs,
        min_top1_percent=min_top1,
        max_params_millions=max_params,
        pareto=pareto,
    )
    terminal.show_table(
        f"{len(found)} models, as timm publishes them (GMACs as trained, before merging)",
        ("model", "picture", "top-1", "GMACs", "parameters"),
        [
            (
                one.model,
                str(one.image_size),
                f"{one.top1_percent:.2f} %",
                f"{one.gmacs:.2f}",
                f"{one.params_millions:.2f} M",
            )
            for one in found
        ],
    )
    terminal.next_step(
        terminal.command_line("models", "export", found[0].model, "--out", f"{found[0].model}.onnx")
        if found
        else "tinysaver-edge models list with a wider limit: none is within these"
    )
    if as_json:
        terminal.show_json({"models": [one.to_dict() for one in found]})
