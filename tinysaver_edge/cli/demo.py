"""`tinysaver-edge demo`: see it work on a simulated camera."""

from __future__ import annotations

from pathlib import Path

import click

from tinysaver_edge._support import numbers
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import LocalPath, Number, json_option
from tinysaver_edge.cli.show import show_calibration
from tinysaver_edge.demo.show import FRAMES, calibrate_demo, race


@click.command()
@click.option(
    "--out",
    type=LocalPath(),
    default=Path("demo-bundle"),
    show_default=True,
    help="Folder or .zip for the bundle.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 999_999),
    default=0,
    show_default=True,
    help="Which simulated camera.",
)
@click.option(
    "--seconds",
    type=Number(min=0.1),
    default=10.0,
    show_default=True,
    help="How much of the camera's stream to decide.",
)
@click.option(
    "--max-drop", type=float, help="Points that may be lost; the recipe's where it is not given."
)
@json_option
def demo(out: Path, seed: int, seconds: float, max_drop: float | None, as_json: bool) -> None:
    """See it work on a simulated camera over a conveyor belt: nothing to download.

    Calibrates three small models on freshly drawn frames, writes a bundle, then streams the camera
    through the cascade and through the large model alone.

    \b
        tinysaver-edge demo
    """
    terminal.say(f"Calibrating on {FRAMES} frames of a simulated camera; half are held out.")
    with terminal.progress() as progress:
        result = calibrate_demo(out, seed=seed, max_drop_points=max_drop, progress=progress)
    terminal.warn(result.warnings)
    show_calibration(result, labelled=True)
    terminal.say(f"\nStreaming {seconds:g} s of the camera, drawn beforehand, as fast as it goes:")
    outcome = race(out, seconds=seconds, seed=seed + 1)
    terminal.show_table(
        "",
        ("", "rate", "right", "reach the large model"),
        [
            (
                "cascade",
                numbers.rate(outcome.cascade_fps),
                numbers.percent(outcome.cascade_accuracy),
                numbers.percent(outcome.escalation_rate),
            ),
            (
                "large model alone",
                numbers.rate(outcome.large_fps),
                numbers.percent(outcome.large_accuracy),
                numbers.percent(1.0),
            ),
        ],
    )
    faster = outcome.cascade_fps / outcome.large_fps
    terminal.say(f"The cascade is {faster:.1f} × as fast on the same {outcome.frames} frames.")
    terminal.next_step(
        f"{terminal.command_line('run', out, '--source', 'demo://', '--limit', '5')}; then your "
        "own two models: tinysaver-edge models describe MODEL"
    )
    if as_json:
        terminal.show_json({**result.to_dict(), "race": outcome.to_dict()})
