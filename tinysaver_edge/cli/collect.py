"""`tinysaver-edge collect`: frames of cameras or recordings at random moments."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.event_lines import Teller
from tinysaver_edge.cli.options import (
    SOURCES,
    GroupedCommand,
    LocalPath,
    Number,
    json_option,
    options_of,
    timeout_option,
)
from tinysaver_edge.cli.run import quieten_libraries
from tinysaver_edge.collect.cameras import collect_live
from tinysaver_edge.collect.draw import Draw
from tinysaver_edge.collect.recordings import call_sources, collect_recorded, recordings_of
from tinysaver_edge.collect.store import Store, lines_about
from tinysaver_edge.data.collection import (
    CollectedUnit,
    CollectionFile,
    Encoding,
    length_of,
    seconds_of,
)
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sources.cut import cut_sources
from tinysaver_edge.stream.sources.live import LiveOptions
from tinysaver_edge.stream.sources.opening import open_source

_source_option = options_of(SOURCES)
_draw_option = options_of("What is drawn")
_write_option = options_of("What is written")


class Length(Number):
    """A length of time: 90s, 30m, 12h, 3d; a number alone is seconds."""

    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Read it as seconds."""
        if isinstance(value, float):
            return value
        try:
            return seconds_of(str(value))
        except InputError as error:
            self.fail(f"{error}.", param, ctx)


LENGTH = Length()


@click.command(cls=GroupedCommand)
@_source_option(
    "--source",
    "sources",
    multiple=True,
    envvar="TINYSAVER_SOURCE",
    show_envvar=True,
    metavar="[NAME=]URI",
    help="A camera, as `run` takes it: its number, /dev/video0, rtsp://, http://, gst:PIPELINE or "
    "demo://. May be given more than once. The folder calls it NAME, else camera1, camera2, …",
)
@_source_option(
    "--from",
    "recordings",
    multiple=True,
    metavar="[NAME=]FILE",
    help="A video, or a folder of images, in place of a camera; may be given more than once.",
)
@timeout_option
@_source_option(
    "--wait-for-source",
    is_flag=True,
    help="Begin the period at once, also where a camera is not there yet.",
)
@_draw_option("--for", "period_s", type=LENGTH, help="The period: 30m, 12h, 3d.")
@_draw_option(
    "--frames",
    "--number",
    "count",
    type=click.IntRange(min=1),
    help="How many frames are drawn, over the period and all sources; with --epochs, epochs.",
)
@_draw_option(
    "--epochs",
    "epoch_s",
    type=LENGTH,
    help="Collect whole stretches of this length, as 10s, in place of single frames.",
)
@_draw_option(
    "--fps",
    type=Number(min=0, min_open=True, max=1000),
    help="Frames a second that an epoch keeps at most.  [default: all that come]",
)
@_draw_option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    help="Decides the moments.  [default: drawn, and written down]",
)
@_write_option(
    "--out",
    type=LocalPath(file_okay=False),
    required=True,
    help="Folder for the frames; one that was begun is gone on with.",
)
@_write_option(
    "--region",
    "regions",
    multiple=True,
    metavar="[NAME=]X,Y,W,H",
    help="Keep this part of each frame only, in pixels.",
)
@_write_option(
    "--mask",
    "masks",
    multiple=True,
    metavar="[NAME=]MASK",
    help="Blank a part before anything is written: a picture of the frames' size (its black is "
    "blanked), X,Y,W,H, or the corners of a polygon, 'X,Y X,Y X,Y'.",
)
@_write_option("--webp", is_flag=True, help="Write lossless WebP in place of PNG: smaller, slower.")
@_write_option("--jpeg", is_flag=True, help="Write JPEG: a tenth of the room, other pixels.")
@json_option
def collect(
    sources: tuple[str, ...],
    recordings: tuple[str, ...],
    timeout_s: float,
    wait_for_source: bool,
    period_s: float | None,
    count: int | None,
    epoch_s: float | None,
    fps: float | None,
    seed: int | None,
    out: Path,
    regions: tuple[str, ...],
    masks: tuple[str, ...],
    webp: bool,
    jpeg: bool,
    as_json: bool,
) -> int:
    """Collect frames of a camera at random moments, for `calibrate --data`.

    Frames at moments drawn at random over a period are independent draws from what the cameras saw
    in it, which a certificate counts on; every so-many-th frame is not. A call that was stopped or
    killed goes on where the same is called again.

    \b
        tinysaver-edge collect --source rtsp://user:password@10.0.0.7/1 --for 3d --frames 5000 \\
            --out frames/
        tinysaver-edge collect --from monday.mp4 --from tuesday.mp4 --frames 2000 --out frames/
        tinysaver-edge collect --source 0 --for 12h --epochs 10s --fps 5 --number 300 --out epochs/
    """
    quieten_libraries()
    if bool(sources) == bool(recordings):
        raise InputError(
            "collect: give cameras with --source and --for, or recordings with --from"
            + (", not both" if sources else "")
        )
    if webp and jpeg:
        raise InputError("--webp and --jpeg: one of them")
    if jpeg:
        terminal.warn(
            [
                "JPEG changes pixels: what is certified on such frames holds for frames that were "
                "JPEG of this quality, not for those that `run` gets from a camera"
            ]
        )
    if bool(sources) and (period_s is None) != (count is None):
        raise InputError(
            "--for and --frames belong together: so many moments of so long a period (neither goes "
            "on with what --out has)"
        )
    if recordings and period_s is not None:
        raise InputError("--for: recordings are as long as they are; leave it out with --from")
    draw = None
    if count is not None:
        encoding: Encoding = "jpg" if jpeg else "webp" if webp else "png"
        seed = secrets.randbits(63) if seed is None else seed
        draw = Draw(count, seed, period_s, epoch_s, fps, encoding)
    stop = threading.Event()
    with terminal.stopping_on_signals(stop.set) as stopped, terminal.progress() as bar:
        store = Store(out, warn=lambda line: terminal.warn([line]), progress=bar)
        with store:

            def begun(file: CollectionFile) -> None:
                left = len(store.open_moments)
                total = left + _settled(store)
                terminal.say(_beginning(file, total))
                bar.start(f"collecting {file.kind.value}", total=total, done=total - left)

            if sources:
                file: CollectionFile | None = _from_cameras(
                    sources,
                    store,
                    draw,
                    options=LiveOptions(
                        open_s=timeout_s,
                        read_s=timeout_s,
                        first_attempts=None if wait_for_source or store.begun else 1,
                    ),
                    wait=wait_for_source,
                    regions=regions,
                    masks=masks,
                    stop=stop,
                    begun=begun,
                )
            else:
                given = recordings_of(recordings, regions=regions, masks=masks)
                file = collect_recorded(
                    given[0],
                    store,
                    draw,
                    wall=time.time,
                    stop=stop,
                    cut=given[1],
                    progress=bar,
                    listener=Teller(),
                    begun=begun,
                )
            bar.finish()
    _show(file, out, as_json=as_json)
    if stopped.signal is None and file is not None and not file.written:
        raise InputError(f"--out {out}: nothing was collected, see above")
    return terminal.exit_code(stopped, complete=True)


def _settled(store: Store) -> int:
    return store.drawn - len(store.open_moments)


def _from_cameras(
    texts: Sequence[str],
    store: Store,
    draw: Draw | None,
    *,
    options: LiveOptions,
    wait: bool,
    regions: Sequence[str],
    masks: Sequence[str],
    stop: threading.Event,
    begun: Any,  # noqa: ANN401
) -> CollectionFile:
    opened = [open_source(text, options=options) for text in texts]
    for one in opened:
        if not one.live:
            raise InputError(
                f"--source {one.source_id}: a recording, no camera: say --from, without --for"
            )
    call_sources(opened, "camera")
    given, cut = cut_sources(opened, regions=regions, masks=masks)
    return collect_live(
        given,
        store,
        draw,
        clock=time.monotonic,
        wall=time.time,
        stop=stop,
        cut=cut,
        patience_s=options.read_s,
        wait_for_sources=wait,
        listener=Teller(),
        begun=begun,
    )


def _beginning(file: CollectionFile, total: int) -> str:
    what = (
        "frames"
        if file.kind is CollectedUnit.FRAMES
        else f"epochs of {length_of(file.epoch_s or 0)}"
    )
    names = ", ".join(one.name for one in file.sources)
    if file.recorded:
        return f"{total} {what} at random moments of {length_of(file.period_s)} of {names}"
    return (
        f"{total} {what} of {names} at random moments of {length_of(file.period_s)}, until "
        f"{file.end:%Y-%m-%d %H:%M:%S} UTC; Ctrl-C ends it, the same command goes on"
    )


def _show(file: CollectionFile | None, out: Path, *, as_json: bool) -> None:
    if file is None:
        terminal.say(f"{out}: stopped")
        terminal.next_step("the same command again, which goes on where this one was")
        return
    for line in lines_about(file):
        terminal.say(line)
    if as_json:
        terminal.show_json(file.model_dump(mode="json"))
    models = ("--large", "BIG.onnx", "--saver", "TINY.onnx")
    if not file.written:
        terminal.next_step("look at the reasons above: nothing was collected, there is no sample")
    elif file.kind is CollectedUnit.FRAMES:
        words = terminal.command_line("calibrate", "--data", out, *models)
        terminal.next_step(f"{words}, which says what can be certified")
    else:
        words = terminal.command_line("calibrate", "--epochs", out, *models)
        terminal.next_step(f"{words} --reference large --out bundle/")
