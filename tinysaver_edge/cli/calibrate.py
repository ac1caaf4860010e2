"""`tinysaver-edge calibrate`: choose a saver and a threshold, and write a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tinysaver_edge.calibrate import Calibration
from tinysaver_edge.calibrate import calibrate as run_calibration
from tinysaver_edge.calibrate.recipe import Settings, load_recipe
from tinysaver_edge.calibrate.targets import Method, Objective
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import json_option
from tinysaver_edge.evaluation import Figures


@click.command()
@click.argument("recipe", required=False)
@click.option(
    "--root", type=click.Path(path_type=Path), help="Folder that a recipe's paths start at."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Labelled images: folder of class folders, .zip, .csv or .jsonl.",
)
@click.option("--large", help="The large model: a file, or a name with a recipe or records.")
@click.option(
    "--saver",
    "savers",
    multiple=True,
    help="A candidate saver; repeat it. 'all' with records: every cheaper model.",
)
@click.option(
    "--descriptions",
    type=click.Path(path_type=Path),
    help="Folder of model descriptions (NAME.toml).",
)
@click.option("--engine", help="Engine for every model, before what its description says.")
@click.option(
    "--records",
    type=click.Path(path_type=Path),
    help="Folder of records (NAME.npz) to calibrate on, without models.",
)
@click.option(
    "--labels", type=click.Path(path_type=Path), help="True classes of the records, .npy."
)
@click.option(
    "--macs", type=click.Path(path_type=Path), help="Table with columns name and macs, for records."
)
@click.option(
    "--max-drop",
    type=float,
    help="Points that may be lost; 0.5 where neither it nor a budget is given.",
)
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    metavar="NAME=NUMBER",
    help="A limit: mean_macs, mean_flops (= 2 × MACs) or escalation_rate; repeat it.",
)
@click.option(
    "--method", type=click.Choice([one.value for one in Method]), help="How the threshold is found."
)
@click.option(
    "--objective",
    type=click.Choice([one.value for one in Objective]),
    help="What is best among those that keep the limits.",
)
@click.option("--holdout", type=float, help="Share of the samples to set aside, 0..1.")
@click.option("--seed", type=int, help="Decides everything that is drawn.")
@click.option("--group-column", help="Column of a table that names each file's clip or scene.")
@click.option(
    "--skip-limit", type=float, help="Share of images that may be unreadable; 0.01 by default."
)
@click.option(
    "--work-dir",
    type=click.Path(path_type=Path),
    help="Where measured records are kept; OUT.records by default.",
)
@click.option("--no-golden-frames", is_flag=True, help="Put none of the images into the bundle.")
@click.option(
    "--no-embed", is_flag=True, help="Leave the models' graphs as they are; scale in numpy."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder or .zip for the bundle.")
@json_option
def calibrate(recipe: str | None, as_json: bool, **flags: Any) -> None:  # noqa: ANN401
    """Choose a saver and a threshold on labelled images, and write a bundle.

    \b
    Two models and a folder of class folders:
        tinysaver-edge calibrate --data images/ --large resnet56.onnx \\
            --saver resnet8.tflite --saver resnet20.onnx --max-drop 0.5 --out bundle/
    A recipe, by name or path; flags override it:
        tinysaver-edge calibrate cifar10 --root ../data/cifar10 --out bundle/
    Records that are there already:
        tinysaver-edge calibrate --records DIR --labels labels.npy --macs models.csv \\
            --large NAME --saver all --out bundle/
    """
    settings = Settings() if recipe is None else load_recipe(recipe, root=flags["root"])
    plan = settings.overridden(flags).plan()
    with terminal.progress() as progress:
        result = run_calibration(plan, out=flags["out"], progress=progress)
    terminal.warn(result.warnings)
    show(result)
    if as_json:
        terminal.show_json(result.to_dict())


def show(result: Calibration) -> None:
    """Write the candidates and the choice to stderr."""
    terminal.show_table(
        "Candidates",
        ("saver", "κ", "accuracy", "threshold", "accepted", "drop", "cost", "why"),
        [
            (
                row.saver,
                terminal.ratio(row.kappa),
                terminal.percent(row.accuracy_saver),
                terminal.score(row.threshold),
                terminal.percent(row.accept_rate),
                terminal.points(row.drop_points),
                terminal.ratio(row.cost_macs_ratio),
                row.why,
            )
            for row in result.candidates
        ],
    )
    sets = [("calibration", result.calibration), ("hold-out", result.holdout)]
    show_figures([(name, figures) for name, figures in sets if figures is not None])
    stage = result.policy.stages[0]
    if stage.score is not None:
        terminal.say(
            f"{stage.model} answers where its {stage.score.name} is at least "
            f"{terminal.score(stage.threshold)}, else {result.policy.stages[-1].model} does "
            f"(method: {result.method.value})"
        )
    if result.bundle is not None:
        terminal.say(f"bundle: {result.bundle}")


def show_figures(sets: list[tuple[str, Figures]]) -> None:
    """Write the seven figures of one or more sets of samples to stderr."""
    terminal.show_table(
        "The cascade",
        ("samples", "number", "saver alone", "large alone", "cascade", "drop", "accepted", "cost"),
        [
            (
                name,
                str(figures.samples),
                terminal.percent(figures.accuracy_saver),
                terminal.percent(figures.accuracy_large),
                terminal.percent(figures.accuracy_cascade),
                terminal.points(figures.drop_points),
                terminal.percent(figures.accept_rate),
                terminal.ratio(figures.cost_macs_ratio),
            )
            for name, figures in sets
        ],
    )
