"""Options of `run` for what stands around a stream: sinks, metrics, dashboard, drift watch."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click

from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.bundle.signature import Trust
from tinysaver_edge.bundle.store import BundleStore
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import LocalPath, Number, options_of
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.drift.drift import Action, DriftOptions
from tinysaver_edge.stream.service import ServiceOptions
from tinysaver_edge.stream.sinks.forward import ForwardOptions
from tinysaver_edge.verify.follow import FollowOptions, begin

_FILE = LocalPath(dir_okay=False)
_FOLDER = LocalPath(file_okay=False)

WRITTEN = "What is written"
REPEATED = "What holds still"

_written = options_of(WRITTEN)
_announced = options_of(REPEATED)
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
    _written(
        "--forward",
        envvar="TINYSAVER_FORWARD",
        show_envvar=True,
        metavar="TARGET",
        help="Send hard and audited frames on for labels: to a folder, or by PUT to "
        "http(s)://HOST/PATH. Through an outage they wait on disk.",
    ),
    _written("--forward-queue", type=_FOLDER, help="Where they wait.  [default: forward-queue]"),
    _written(
        "--forward-mb",
        type=Number(min=0, min_open=True),
        default=256.0,
        show_default=True,
        help="What may wait; the oldest give way, and are counted.",
    ),
    _written(
        "--forward-share",
        type=Number(min=0, max=1, min_open=True),
        default=0.25,
        show_default=True,
        help="Share of the time that sending may take: the rest of it the uplink is left alone.",
    ),
    _announced(
        "--hold",
        type=click.IntRange(min=1),
        help="Tell when a source shows another class: once so many frames agree on it, or one is "
        "sure.  [default: never; 3 or 5 with --for]",
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


_followed = options_of("The bundle")

_FOLLOWED = (
    _followed(
        "--follow",
        metavar="TARGET:TAG",
        help="Fetch what is pushed under a tag (`bundle push`), try it, keep it or roll it back.",
    ),
    _followed(
        "--store",
        type=_FOLDER,
        help="Where --follow keeps bundles, which of them decides, and history.jsonl.",
    ),
    _followed(
        "--poll-s",
        type=Number(min=0, min_open=True),
        default=60.0,
        show_default=True,
        help="How often it looks at the tag, a fifth more or less.",
    ),
    _followed(
        "--trial-s",
        type=Number(min=0, min_open=True),
        default=600.0,
        show_default=True,
        help="How long a new bundle is watched, and rolled back where it fails.",
    ),
    _followed(
        "--retry-refused", is_flag=True, help="Try again what was refused or rolled back before."
    ),
)


@dataclass(frozen=True, slots=True)
class Followed:
    """What `run` is told of a tag to follow.

    Attributes:
        tag: ``TARGET:TAG``.
        opened: the store, to be entered.
        options: how often, and how long.
        retry: whether what was refused is tried again.
    """

    tag: str
    opened: BundleStore
    options: FollowOptions
    retry: bool

    def first(
        self, given: Path | None, trust: Trust | None, proof: dict[str, Any], stack: ExitStack
    ) -> Bundle:
        """Open the store, and what decides at first; see `follow.begin`."""
        store = stack.enter_context(self.opened)
        if self.retry:
            store.forgive()
        opened = begin(store, given, self.tag, trust=trust, proof=proof, options=self.options)
        if opened.path != given:
            terminal.say(f"begins with {opened.identity} of {store.folder}")
        return opened


def follow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which gets them as one argument ``followed``, or None."""

    @functools.wraps(command)
    def gathering(
        *,
        follow: str | None,
        store: Path | None,
        poll_s: float,
        trial_s: float,
        retry_refused: bool,
        **others: Any,  # noqa: ANN401 - the command's own
    ) -> Any:  # noqa: ANN401
        if (follow is None) != (store is None):
            raise InputError("--follow TARGET:TAG and --store FOLDER go together")
        followed = None
        if follow is not None and store is not None:
            how = FollowOptions(poll_s=poll_s, trial_s=trial_s)
            followed = Followed(follow, BundleStore(store, wall=time.time), how, retry_refused)
        return command(followed=followed, **others)

    for option in reversed(_FOLLOWED):
        gathering = option(gathering)
    return gathering


class AsOptions(Protocol):
    """Makes the options, once it is known whether a source is a camera."""

    def __call__(self, live: bool, hold_else: int | None = None) -> ServiceOptions:
        """Return them; where nobody has said how many frames must agree, so many must."""


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
        forward: str | None,
        forward_queue: Path | None,
        forward_mb: float,
        forward_share: float,
        hold: int | None,
        audit_share: float | None,
        drift_level: float,
        on_drift: str,
        metrics: str | None,
        dashboard: str | None,
        token: str | None,
        **others: Any,  # noqa: ANN401 - the command's own
    ) -> Any:  # noqa: ANN401
        def service(live: bool, hold_else: int | None = None) -> ServiceOptions:
            share = (0.01 if live else 0.0) if audit_share is None else audit_share
            drift = None
            if share:
                drift = DriftOptions(share=share, level=drift_level, action=Action(on_drift))
            if forward_queue is not None and not forward:
                raise InputError("--forward-queue is where frames wait: say --forward TARGET too")
            onward = None
            if forward:
                onward = ForwardOptions(
                    forward,
                    forward_queue or Path("forward-queue"),
                    most_bytes=max(1, int(forward_mb * 2**20)),
                    share=forward_share,
                )
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
                forward=onward,
                metrics=metrics,
                dashboard=dashboard,
                token=token or None,
                drift=drift,
                must_watch=bool(audit_share),
                hold=hold_else if hold is None else hold,
            )

        return command(service=service, **others)

    for option in reversed(_OPTIONS):
        gathering = option(gathering)
    return gathering
