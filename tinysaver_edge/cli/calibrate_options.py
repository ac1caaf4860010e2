"""The options of `tinysaver-edge calibrate`, grouped as a user meets them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tinysaver_edge.calibrate.targets import Budgets, Method, Objective, Reference
from tinysaver_edge.engines.base import Precision

Command = TypeVar("Command", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)


def _words(vocabulary: type[Method] | type[Objective] | type[Reference]) -> click.Choice[str]:
    return click.Choice([str(one.value) for one in vocabulary])


_BUDGET_NAMES = ", ".join((*Budgets.__dataclass_fields__, "mean_flops (= 2 × MACs)"))

_OPTIONS = (
    click.option("--root", type=_PATH, help="Folder that a recipe's paths start at."),
    click.option(
        "--data",
        type=_PATH,
        help="Labelled images: folder of class folders, .zip of it, .csv or .jsonl.",
    ),
    click.option("--large", help="The large model: a file, or a name with a recipe or records."),
    click.option(
        "--large-jpeg",
        type=click.IntRange(1, 100),
        metavar="QUALITY",
        help="Show the large model frames as JPEG of this quality, as a device sends them to "
        "another machine: threshold and certificate then hold for that. It is measured on pixels "
        "as well, to say what JPEG costs it.",
    ),
    click.option(
        "--saver",
        "savers",
        multiple=True,
        help="A candidate saver; repeat it. 'all' with records: every cheaper model.",
    ),
    click.option("--descriptions", type=_PATH, help="Folder of model descriptions (NAME.toml)."),
    click.option(
        "--engine",
        help="Engine for every model, before what its description says. 'auto' measures those that "
        "the --device lists, or this machine has, and takes the fastest that agrees.",
    ),
    click.option(
        "--output",
        metavar="NAME",
        help="Output that holds the classes, in each of the models; where they call it "
        "differently, output.name in their descriptions tells.",
    ),
    click.option(
        "--size",
        "sizes",
        multiple=True,
        metavar="PIXELS",
        help="Try the savers at this input size, as 160 or 120x160 (height, width); repeat it.",
    ),
    click.option(
        "--precision",
        "precisions",
        multiple=True,
        type=click.Choice([one.value for one in Precision]),
        help="Try the savers in this arithmetic; repeat it.",
    ),
    click.option(
        "--records",
        type=_PATH,
        help="Folder of records (NAME.npz) to calibrate on, without models.",
    ),
    click.option("--labels", type=_PATH, help="True classes of the records, .npy."),
    click.option(
        "--groups", type=_PATH, help="Clip or scene of each of the records' samples, .npy."
    ),
    click.option("--macs", type=_PATH, help="Table with columns name and macs, for records."),
    click.option(
        "--max-drop",
        type=float,
        help="Points of accuracy that may be lost; 0.5 where neither it nor a budget is given.",
    ),
    click.option(
        "--no-max-drop",
        is_flag=True,
        help="Take a recipe's --max-drop away: budgets alone decide, the certificate states what "
        "can be signed there.",
    ),
    click.option(
        "--confidence", type=float, help="How surely the drop keeps its bound; 0.9 by default."
    ),
    click.option(
        "--budget",
        "budgets",
        multiple=True,
        metavar="NAME=NUMBER",
        help=f"A limit; repeat it. Names: {_BUDGET_NAMES}.",
    ),
    click.option("--device", help="Device profile, by name or path; its limits hold as well."),
    click.option(
        "--objective",
        type=_words(Objective),
        help="What is best among those that keep the limits; accuracy where there are budgets, "
        "else macs.",
    ),
    click.option(
        "--method", type=_words(Method), help="How the threshold is found; certified by default."
    ),
    click.option(
        "--reference",
        type=_words(Reference),
        help="Whose answer is right: the labels', or the large model's where there are none.",
    ),
    click.option(
        "--score", help="Deferral score, by default the method's (margin); 'all' tries every one."
    ),
    click.option(
        "--fusion",
        help="Fusion after an escalation; 'none' for the large model's answer alone, 'all' tries "
        "every one.",
    ),
    click.option(
        "--compare-methods", is_flag=True, help="Show what every method would have chosen."
    ),
    click.option("--holdout", type=float, help="Share of the samples to set aside, 0..1."),
    click.option("--seed", type=int, help="Decides everything that is drawn."),
    click.option("--group-column", help="Column of a table that names each file's clip or scene."),
    click.option(
        "--skip-limit", type=float, help="Share of images that may be unreadable; 0.01 by default."
    ),
    click.option(
        "--time-budget",
        type=float,
        help="After so many seconds start no more savers, and stop the one under way. The large "
        "model is measured first, whatever it takes.",
    ),
    click.option(
        "--work-dir", type=_PATH, help="Where measured records are kept; OUT.records by default."
    ),
    click.option(
        "--bench",
        multiple=True,
        type=_PATH,
        help="Report of bench, perhaps from the device: its latencies count; repeat it.",
    ),
    click.option("--no-timing", is_flag=True, help="Do not time the models on this machine."),
    click.option(
        "--no-golden-frames", is_flag=True, help="Put none of the images into the bundle."
    ),
    click.option(
        "--no-embed", is_flag=True, help="Leave the models' graphs as they are; scale in numpy."
    ),
    click.option("--no-report", is_flag=True, help="Write no report.html beside the bundle."),
    click.option("--out", type=_PATH, help="Folder or .zip for the bundle."),
)


def calibrate_options(command: Command) -> Command:
    """Give a command all of them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
