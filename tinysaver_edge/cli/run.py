"""`tinysaver-edge run`: decide images, videos and cameras with a bundle."""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from tinysaver_edge._support import numbers
from tinysaver_edge._support.packages import frozen_heap
from tinysaver_edge._support.text import for_people
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.bundle.signature import Trust
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.event_lines import Teller
from tinysaver_edge.cli.large_options import large_from, large_options
from tinysaver_edge.cli.options import (
    SOURCES,
    GroupedCommand,
    LocalPath,
    Number,
    Threads,
    options_of,
    timeout_option,
    trusted_option,
)
from tinysaver_edge.cli.run_summary import Doubts, Rates, losses, show_end, show_traffic
from tinysaver_edge.cli.service_options import (
    REPEATED,
    WRITTEN,
    AsOptions,
    Followed,
    follow_options,
    service_options,
)
from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import InputError, TinySaverError
from tinysaver_edge.reuse import ReuseRule
from tinysaver_edge.stream.drift.watch import Watch
from tinysaver_edge.stream.options import PRESETS, CameraPreset, Escalation
from tinysaver_edge.stream.service import Service, ServiceOptions
from tinysaver_edge.stream.sinks.base import CallbackSink
from tinysaver_edge.stream.sources.cut import cut_sources
from tinysaver_edge.stream.sources.live import LiveOptions
from tinysaver_edge.stream.sources.opening import open_source
from tinysaver_edge.stream.sources.source import limited, paced
from tinysaver_edge.stream.telemetry.events import Drift, Event, Listener
from tinysaver_edge.stream.telemetry.hosts import hosts_of
from tinysaver_edge.verify.follow import Follower, Running
from tinysaver_edge.verify.golden import other_processor

_source_option = options_of(SOURCES)
_escalation_option = options_of("Escalation")
_repeated_option = options_of(REPEATED)
_output_option = options_of(WRITTEN)


@click.command(cls=GroupedCommand)
@click.argument("bundle", type=LocalPath(), required=False)
@_source_option(
    "--source",
    "sources",
    required=True,
    multiple=True,
    envvar="TINYSAVER_SOURCE",
    show_envvar=True,
    metavar="[NAME=]URI",
    help="An image, a folder of images, *.png, a video, a camera's number, /dev/video0, rtsp://, "
    "http:// (MJPEG), gst:PIPELINE or demo://. May be given more than once; parted by spaces in "
    "the environment, where other users cannot read its passwords.",
)
@timeout_option
@_source_option(
    "--wait-for-source",
    is_flag=True,
    help="Go on trying where a camera is not there at the start; one that is lost later is "
    "always tried again.",
)
@_source_option(
    "--region",
    "regions",
    multiple=True,
    metavar="[NAME=]X,Y,W,H",
    help="Decide this part of each frame only, in pixels; as it was collected.",
)
@_source_option(
    "--mask",
    "masks",
    multiple=True,
    metavar="[NAME=]MASK",
    help="Blank a part of each frame, as `collect` does; as it was collected.",
)
@_source_option(
    "--fps",
    type=Number(min=0, min_open=True, max=1000),
    help="Frames a second to take of each source at most, as `collect --epochs` does.  "
    "[default: all that come]",
)
@_source_option("--limit", type=click.IntRange(min=1), help="Stop after this many frames.")
@_escalation_option(
    "--escalation",
    type=click.Choice([one.value for one in Escalation]),
    default=Escalation.WAIT.value,
    show_default=True,
    help="A frame that the saver is unsure about is escalated to the large model: one final "
    "decision a frame; or the saver's at once and a revision; or no large model.",
)
@_escalation_option(
    "--deadline-ms",
    type=Number(min=0, min_open=True),
    help="When the saver's answer goes out instead of the large model's. [default: 1000 for "
    "cameras, none for files]",
)
@_escalation_option(
    "--max-in-flight",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Frames that wait for the large model at once.",
)
@_escalation_option(
    "--min-time-between-escalations-s",
    type=Number(min=0),
    default=0.0,
    help="Of one source; frames that come sooner get the saver's answer, degraded.",
)
@_escalation_option(
    "--escalations-per-minute",
    type=click.IntRange(min=1),
    help="Of one source, audits included; frames beyond get the saver's answer, degraded.",
)
@_repeated_option(
    "--reuse",
    metavar="LIMITS",
    help="When a frame is answered as an earlier one that looks like it: still=2 (grey levels), "
    "same=0.1 (of the saver's probability), epoch_s, max_age_s, region=LEFT:TOP:WIDTH:HEIGHT, "
    "parted by commas; or off.  [default: as calibrated, else off]",
)
@_repeated_option(
    "--for",
    "preset",
    type=click.Choice(sorted(PRESETS)),
    help="Take --reuse, where the bundle has none, and --hold as they suit such a camera; what is "
    "repeated is then not certified.",
)
@_escalation_option(
    "--large-worker",
    is_flag=True,
    help="Run the large model in a process of its own, started again when it dies.",
)
@_escalation_option(
    "--threads",
    type=Threads(),
    help="Processor threads for one inference. [default: half the cores, since reading and the "
    "other model go on meanwhile]",
)
@large_options
@_output_option("--json", "as_json", is_flag=True, help="Write one JSON line a decision to stdout.")
@_output_option("--quiet", is_flag=True, help="Write no decisions to stdout.")
@_output_option(
    "--log-json",
    is_flag=True,
    help="Write events, and all else that it says, to stderr as JSON lines.",
)
@service_options
@trusted_option
@follow_options
def run(
    bundle: Path | None,
    trusted: Path | None,
    followed: Followed | None,
    sources: tuple[str, ...],
    escalation: str,
    deadline_ms: float | None,
    max_in_flight: int,
    min_time_between_escalations_s: float,
    escalations_per_minute: int | None,
    reuse: str | None,
    preset: str | None,
    timeout_s: float,
    wait_for_source: bool,
    regions: tuple[str, ...],
    masks: tuple[str, ...],
    threads: int | None,
    fps: float | None,
    limit: int | None,
    as_json: bool,
    large_worker: bool,
    quiet: bool,
    log_json: bool,
    service: AsOptions,
    **large_settings: Any,  # noqa: ANN401 - what `large_options` adds
) -> int:
    """Decide images, videos and cameras with a bundle.

    \b
        tinysaver-edge run bundle/ --source photo.jpg
        tinysaver-edge run bundle/ --source video.mp4 --json > decisions.jsonl
        tinysaver-edge run bundle/ --source door=rtsp://user:password@10.0.0.7/1 --source yard=0
        tinysaver-edge run bundle/ --source 0 --quiet --jsonl out.jsonl --dashboard 127.0.0.1:8080
        tinysaver-edge run bundle/ --source 0 --large grpcs://host:8001/large --large-ca ca.pem
        tinysaver-edge run --follow oci://host/belt:stable --store store/ --trusted keys/ --source 0
    """
    if bundle is None and followed is None:
        raise click.UsageError("Missing argument 'BUNDLE'.")
    quieten_libraries()
    options = LiveOptions(
        open_s=timeout_s, read_s=timeout_s, first_attempts=None if wait_for_source else 1
    )
    large = large_from(**large_settings, max_in_flight=max_in_flight, deadline_ms=deadline_ms)
    if large is not None:
        terminal.warn(large.warnings)
    threads = threads or max(1, (os.cpu_count() or 1) // 2)
    if log_json:
        terminal.log_json()
    whole = [open_source(source, options=options) for source in sources]
    given, cut = cut_sources(whole, regions=regions, masks=masks)
    if fps is not None:
        given = paced(given, fps)
    if limit is not None:
        given = limited(given, limit)
    live = any(source.live for source in given)
    suited = None if preset is None else PRESETS[preset]
    hold = None if suited is None else suited.hold
    asked = _watchful(service(live and escalation != Escalation.LOCAL.value, hold), escalation)
    asked.check(whole)
    with ExitStack() as stack:
        local = escalation == Escalation.LOCAL.value
        proof, trust = {"large": large, "absent": local}, Trust.of(trusted)
        if followed is None:
            opened = stack.enter_context(Bundle.load(str(bundle), trusted=trusted))
        else:
            opened = stack.enter_context(followed.first(bundle, trust, proof, stack))
        load = functools.partial(
            Cascade.from_bundle,
            cut=cut,
            threads=threads,
            large=large,
            large_worker=large_worker,
            allow_absent=local,
        )
        cascade = stack.enter_context(load(opened))
        tally = Rates(
            asks=not local,
            models=[stage.policy.model for stage in cascade.stages],
        )
        repeats = _repeats(reuse, cascade.reuse, suited)
        doubts = Doubts(cascade, repeats)
        doubts.tell()
        told = opened.manifest
        elsewhere = [other_processor(told, stage.model) for stage in told.stages]
        terminal.warn([why for why in elsewhere if why is not None])
        if repeats is not None and cascade.reuse is None:
            terminal.warn(["what is repeated is not certified: no limits were calibrated"])
        certificate = opened.manifest.certificate
        if cut and certificate is not None and certificate.cut is None:
            terminal.warn(
                ["frames are cut: certified is what was calibrated on frames cut alike, no other"]
            )
        if repeats is not None and repeats == cascade.reuse and repeats.frames_per_s:
            terminal.say(
                f"certified are cameras of about {repeats.frames_per_s:g} frames a second, as the "
                "epochs had, and no others: --fps takes so many of one that is faster"
            )
        around = Service(
            asked,
            opened.manifest,
            clock=time.monotonic,
            wall=time.time,
            sources=len(given),
            live=live,
            listener=None if log_json else Teller(),
            reuse=repeats,
            hosts=hosts_of(cascade.stages),
        )
        stack.enter_context(around)
        for note in around.notes:
            terminal.say(note)
        follower = None
        if followed is not None:

            def take_over(running: Running) -> tuple[Watch, threading.Event]:
                rule = _repeats(reuse, running.cascade.reuse, suited)
                hosts = hosts_of(running.cascade.stages)
                watch = around.switched(
                    running.bundle.manifest, reuse=rule, hosts=hosts, watch=running.watch
                )
                doubts.about(running.cascade, rule)
                return watch, running.cascade.take_over(stream, watch=watch, reuse=rule)

            follower = Follower(
                followed.tag,
                followed.opened,
                Running(opened, cascade, around.watch),
                take_over,
                load=load,
                trust=trust,
                options=followed.options,
                proof=proof,
                listener=around.listener,
                metrics=around.metrics,
            )
            stack.callback(lambda: follower.running.close())
            around.listener.add(follower.heard)
            around.tells(follower.readings)
        stack.enter_context(frozen_heap())
        stream = cascade.stream(
            *given,
            escalation=escalation,
            deadline_ms=deadline_ms,
            max_in_flight=max_in_flight,
            sinks=[*around.sinks, *([] if follower is None else [CallbackSink(follower.saw)])],
            listener=around.listener,
            metrics=around.metrics,
            watch=around.watch,
            reuse=repeats,
            min_time_between_escalations_s=min_time_between_escalations_s,
            escalations_per_minute=escalations_per_minute,
        )
        around.listener.add(_advice(opened.path, around.field_frames))
        around.runs(stream.close)
        stop = stack.enter_context(terminal.stopping_on_signals(stream.close))
        stack.enter_context(stream)
        if follower is not None:
            stack.enter_context(follower)
        try:
            for decision in tally.counting(iter(stream)):
                doubts.tell()
                while around.warnings:
                    terminal.warn([around.warnings.pop()])
                if not quiet:
                    click.echo(
                        json.dumps(decision.to_dict()) if as_json else for_people(_line(decision))
                    )
        except TinySaverError:  # one source may fail for good when others have run for days
            stream.close()
            show_end(tally, around, stream.source_ids)
            raise
        deciding = cascade if follower is None else follower.running.cascade
        show_traffic(hosts_of(deciding.stages))
    show_end(tally, around, stream.source_ids)
    if as_json and stop.signal is None and (lost := losses(around)):
        click.echo(json.dumps({"error": "; ".join(lost), "exit_code": 2, "frame_id": None}))
    if stop.signal is None and not quiet and not log_json:
        terminal.next_step(_next_step(opened.path, live=live))
    return terminal.exit_code(stop, complete=not losses(around))


def _repeats(
    given: str | None, calibrated: ReuseRule | None, preset: CameraPreset | None
) -> ReuseRule | None:
    """Return when earlier answers are repeated: as told, else as calibrated, else as it suits."""
    if given == "off":
        return None
    if given is not None:
        return ReuseRule.parse(given)
    return calibrated if calibrated is not None or preset is None else preset.reuse


def _advice(bundle: Path, field_frames: Path | None) -> Listener:
    """Return what says, at the first drift alarm, what is to be done about it."""
    told = False

    def advise(event: Event) -> None:
        nonlocal told
        if told or not isinstance(event, Drift):
            return
        told = True
        again = bundle.with_name(f"{bundle.name.removesuffix('.zip')}-2")
        words = ("calibrate", bundle, "--data", field_frames or "frames/", "--reference", "large")
        calibrate = terminal.command_line(*words, "--out", again)
        if field_frames is not None:
            terminal.say(f"What now: stop this run, then {calibrate}")
        else:
            collect = "tinysaver-edge collect --source … --for 1d --frames 2000 --out frames/"
            terminal.say(f"What now: {collect}, then {calibrate}")

    return advise


def _next_step(bundle: Path, *, live: bool) -> str:
    if live:
        return (
            "--jsonl FILE keeps every decision, --dashboard 127.0.0.1:8080 serves a page about it"
        )
    camera = terminal.command_line("run", bundle, "--source", "0")
    return f"{camera} for a camera; --dashboard 127.0.0.1:8080 serves a page about it"


def _watchful(options: ServiceOptions, escalation: str) -> ServiceOptions:
    if options.must_watch and escalation == Escalation.LOCAL.value:
        raise InputError(
            "--audit-share asks the large model about accepted frames, which --escalation local "
            "never does: leave one of them out"
        )
    return options


def quieten_libraries() -> None:
    """Keep OpenCV, FFmpeg and gRPC from writing to stderr what comes out as an event anyway."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")  # of the preview's fonts
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def _line(decision: Decision) -> str:
    """Write one decision as a row of a table."""
    frame = f"{decision.frame_id.source_id} {decision.frame_id.sequence}"
    return (
        f"{frame:<40} {decision.label:<30} {numbers.percent(decision.confidence):>9} "
        f"{decision.source.value:<8} {decision.timings_ms['total']:8.2f} ms"
        f"{'  revised' if decision.revision else ''}"
        f"{'  ' + decision.degraded if decision.degraded else ''}"
    )
