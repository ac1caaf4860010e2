"""`tinysaver-edge run`: decide an image, a folder of images or a video with a bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from tinysaver_edge.cascade import Cascade
from tinysaver_edge.cli import terminal
from tinysaver_edge.decision import Decision
from tinysaver_edge.stream.files import open_frames


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--source",
    required=True,
    type=click.Path(path_type=Path),
    help="An image, a folder of images or a video file.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Processor threads for one inference.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after this many frames.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON line a frame to stdout.")
def run(bundle: Path, source: Path, threads: int | None, limit: int | None, as_json: bool) -> None:
    """Decide an image, a folder of images or a video with a bundle.

    \b
        tinysaver-edge run bundle/ --source photo.jpg
        tinysaver-edge run bundle/ --source video.mp4 --json > decisions.jsonl
    """
    with Cascade.load(bundle, threads=threads) as cascade:
        tally = _Tally()
        for decision in tally.counting(_decisions(cascade, source, limit)):
            click.echo(json.dumps(decision.to_dict()) if as_json else _line(decision))
    tally.show()


def _decisions(cascade: Cascade, source: Path, limit: int | None) -> Iterator[Decision]:
    for number, frame in enumerate(open_frames(source)):
        if limit is not None and number >= limit:
            return
        yield cascade.decide(frame.image, frame_id=frame.frame_id, timestamp_s=frame.timestamp_s)


def _line(decision: Decision) -> str:
    """Write one decision as a row of a table."""
    frame = f"{decision.frame_id.source_id} {decision.frame_id.sequence}"
    return (
        f"{frame:<40} {decision.label:<30} {terminal.percent(decision.confidence):>9} "
        f"{decision.source.value:<8} {decision.timings_ms['total']:8.2f} ms"
        f"{'  ' + decision.degraded if decision.degraded else ''}"
    )


class _Tally:
    """Counts decisions while they pass."""

    def __init__(self) -> None:
        self.frames = 0
        self.escalated = 0
        self.spent_ms = 0.0

    def counting(self, decisions: Iterator[Decision]) -> Iterator[Decision]:
        """Pass decisions on, counted."""
        for decision in decisions:
            self.frames += 1
            self.escalated += decision.escalated
            self.spent_ms += decision.timings_ms["total"]
            yield decision

    def show(self) -> None:
        """Write the sums to stderr."""
        if self.frames:
            terminal.say(
                f"{self.frames} frames, {terminal.percent(self.escalated / self.frames)} "
                f"escalated, {terminal.rate(1e3 * self.frames / self.spent_ms)} deciding"
            )
