"""Options of `run` for what stands around a stream: sinks, metrics, dashboard, drift watch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tinysaver_edge.cli.options import Number, options_of
from tinysaver_edge.stream.drift.drift import Action, DriftOptions
from tinysaver_edge.stream.service import ServiceOptions

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)

WRITTEN = "What is written"

_written = options_of(WRITTEN)
_drift = options_of("Drift")
_served = options_of("Metrics and page")

_OPTIONS = (
    _written("--jsonl", type=_FILE, help="Append every decision to this file as JSON."),
    _written(
        "--jsonl-max-mb",
        type=Number(min=0, min_open=True),
        default=64.0,
        show_default=True,
        help="Size at which that file is set aside as FILE.1; three of them stay.",
    ),
    _written("--video", type=_FILE, help="Write every frame and its answer to .mp4 or .avi."),
    _written(
        "--video-fps",
        type=Number(min=0, min_open=True, max=1000),
        default=30.0,
        show_default=True,
        help="Frames a second at which it will be played.",
    ),
    _written("--preview", is_flag=True, help="Show a window; q closes it and ends the stream."),
    _written(
        "--mqtt",
        envvar="TINYSAVER_MQTT",
        show_envvar=True,
        metavar="mqtt://HOST/TOPIC",
        help="Publish every decision; mqtts:// for TLS, USER:PASSWORD@ before HOST, ?qos=1 at "
        "the end.",
    ),
    _written(
        "--sink",
        "sinks",
        multiple=True,
        envvar="TINYSAVER_SINK",
        show_envvar=True,
        metavar="NAME[:ARGUMENT]",
        help="Give every decision to a sink that another package brings. May be given more than "
        "once; parted by spaces in the environment.",
    ),
    _written("--hard-frames", type=_FOLDER, help="Save escalated frames, one a second."),
    _written(
        "--field-frames",
        type=_FOLDER,
        help="Save a random share of all frames, as large as --audit-share: the next calibration "
        "set.",
    ),
    _drift(
        "--audit-share",
        type=Number(min=0, max=1),
        help="Share of accepted frames that the large model is asked about as well, to notice "
        "drift; 0 turns it off.  [default: 0.01 for cameras, 0 for files]",
    ),
    _drift(
        "--drift-level",
        type=Number(min=0, max=1, min_open=True, max_open=True),
        default=0.05,
        show_default=True,
        help="Bound on the probability of ever raising a false alarm.",
    ),
    _drift(
        "--on-drift",
        type=click.Choice([one.value for one in Action]),
        default=Action.RAISE.value,
        show_default=True,
        help="Only warn; raise the threshold; or escalate every frame.",
    ),
    _served(
        "--metrics",
        metavar="HOST:PORT",
        help="Serve /metrics (Prometheus), /healthz and /readyz.",
    ),
    _served("--dashboard", metavar="HOST:PORT", help="Serve a page about the stream."),
    _served(
        "--token",
        envvar="TINYSAVER_TOKEN",
        show_envvar=True,
        help="What the dashboard and /metrics must be asked with; needed for a dashboard that "
        "other machines can reach. On the command line other users can read it.",
    ),
)

AsOptions = Callable[[bool], ServiceOptions]
"""Makes the options, once it is known whether a source is a camera."""


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which gets them as one argument ``service``.

    Example:
        @click.command()
        @service_options
        def run(service: AsOptions) -> None:
            options = service(live=True)
    """

    @functools.wraps(command)
    def gathering(
        *,
        jsonl: Path | None,
        jsonl_max_mb: float,
        video: Path | None,
        video_fps: float,
        preview: bool,
        mqtt: str | None,
        sinks: tuple[str, ...],
        hard_frames: Path | None,
        field_frames: Path | None,
        audit_share: float | None,
        drift_level: float,
        on_drift: str,
        metrics: str | None,
        dashboard: str | None,
        token: str | None,
        **others: Any,  # noqa: ANN401 - the command's own
    ) -> Any:  # noqa: ANN401
        def service(live: bool) -> ServiceOptions:
            share = (0.01 if live else 0.0) if audit_share is None else audit_share
            drift = None
            if share:
                drift = DriftOptions(share=share, level=drift_level, action=Action(on_drift))
            return ServiceOptions(
                jsonl=jsonl,
                jsonl_max_bytes=max(1, int(jsonl_max_mb * 2**20)),
                video=video,
                video_fps=video_fps,
                preview=preview,
                mqtt=mqtt,
                sinks=sinks,
                hard_frames=hard_frames,
                field_frames=field_frames,
                metrics=metrics,
                dashboard=dashboard,
                token=token or None,
                drift=drift,
                must_watch=bool(audit_share),
            )

        return command(service=service, **others)

    for option in reversed(_OPTIONS):
        gathering = option(gathering)
    return gathering
