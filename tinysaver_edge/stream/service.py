"""All that stands around a stream that runs for days: sinks, metrics, health, page, drift watch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tinysaver_edge._support.doors import WrongTokens, short_turns
from tinysaver_edge._support.urls import ListenAddress
from tinysaver_edge.errors import InputError
from tinysaver_edge.hardware.energy import Meters, open_meters
from tinysaver_edge.stream.dashboard import Dashboard, DashboardState
from tinysaver_edge.stream.drift.drift import (
    DEFAULT_DRIFT,
    DriftOptions,
    DriftWatch,
    calibrated_disagreement,
    counts_repeated,
)
from tinysaver_edge.stream.drift.watch import NO_WATCH, Watch
from tinysaver_edge.stream.sinks.base import ChangeSink, Sink, open_sink
from tinysaver_edge.stream.sinks.forward import Forwarding, ForwardOptions
from tinysaver_edge.stream.sinks.jsonl import JsonlSink
from tinysaver_edge.stream.sinks.mqtt import MqttAddress, MqttSink
from tinysaver_edge.stream.sinks.queued import Queued
from tinysaver_edge.stream.sinks.saved_frames import (
    CalibrationSetSink,
    HardFramesSink,
    RandomShare,
)
from tinysaver_edge.stream.sinks.video import PreviewSink, VideoSink, may_write
from tinysaver_edge.stream.telemetry.events import Denied, Listener, Listeners
from tinysaver_edge.stream.telemetry.health import Health
from tinysaver_edge.stream.telemetry.hosts import host_readings
from tinysaver_edge.stream.telemetry.logs import EventLog
from tinysaver_edge.stream.telemetry.metrics import (
    AllMetrics,
    Counter,
    Reading,
    Tally,
    reading,
)
from tinysaver_edge.stream.telemetry.monitor import Monitor
from tinysaver_edge.stream.telemetry.prometheus import PrometheusMetrics
from tinysaver_edge.stream.telemetry.promise import Kept, Promise, promise_readings

if TYPE_CHECKING:
    from typing_extensions import Self

    from tinysaver_edge.bundle.manifest import Manifest
    from tinysaver_edge.engines.remote.engine import RemoteEngine
    from tinysaver_edge.reuse import ReuseRule
    from tinysaver_edge.stream.sources.source import Source


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What there shall be around a stream.

    Attributes:
        jsonl: file for one line a decision.
        jsonl_max_bytes: size at which it is rotated.
        video: file for the annotated video.
        video_fps: frames a second at which it will be played.
        preview: whether to open a window.
        mqtt: broker to publish to; see `MqttAddress.parse`.
        sinks: those of other packages; see `open_sink`.
        hard_frames: folder for escalated frames.
        field_frames: folder for the next calibration set: as large a share of the frames as is
            audited, drawn at random.
        forward: what is sent on of hard and audited frames, through outages; None for nothing.
        metrics: ``HOST:PORT`` of /metrics, /healthz and /readyz.
        dashboard: ``HOST:PORT`` of the page.
        token: what the page must be asked with, and /metrics.
        drift: how to watch for drift; None watches not.
        must_watch: whether a bundle that cannot be watched is an error.
        seed: decides which frames are saved for the next set.
        hold: frames that must agree before another class is announced, as a `Changed`; None
            announces none.
    """

    jsonl: Path | None = None
    jsonl_max_bytes: int = 64 << 20
    video: Path | None = None
    video_fps: float = 30.0
    preview: bool = False
    mqtt: str | None = field(default=None, repr=False)
    sinks: tuple[str, ...] = field(default=(), repr=False)
    hard_frames: Path | None = None
    field_frames: Path | None = None
    forward: ForwardOptions | None = None
    metrics: str | None = None
    dashboard: str | None = None
    token: str | None = field(default=None, repr=False)
    drift: DriftOptions | None = DEFAULT_DRIFT
    must_watch: bool = False
    seed: int = 0
    hold: int | None = None

    def check(self, sources: Iterable[Source] = ()) -> None:
        """Refuse what can only go wrong, before a model is loaded for its sake.

        Args:
            sources: what is going to be read.

        Raises:
            InputError: an address is none, a video would be written over one that is read, or two
                outputs have one place; names the option.
        """
        given = list(sources)
        for source in given:
            for file in source.files:
                if self.video is not None and may_write(self.video, file, by_source=len(given) > 1):
                    raise InputError(
                        f"--video {self.video}: is written over {file}, which source "
                        f"{source.source_id} reads and would be lost: name another file"
                    )
        self._check_apart()
        if self.mqtt is not None:
            MqttAddress.parse(self.mqtt)
        for option, address in (("--metrics", self.metrics), ("--dashboard", self.dashboard)):
            if address is not None:
                ListenAddress.parse(address, option=option).check_token(self.token)

    def _check_apart(self) -> None:
        """Refuse one place for two outputs, which would spoil each other."""
        places = {
            "--jsonl": self.jsonl,
            "--video": self.video,
            "--hard-frames": self.hard_frames,
            "--field-frames": self.field_frames,
            "--forward-queue": None if self.forward is None else self.forward.queue,
            "--forward": None if self.forward is None else Path(self.forward.target),
        }
        taken: dict[str, str] = {}
        for option, place in places.items():
            if place is not None:
                other = taken.setdefault(os.path.realpath(place), option)
                if other != option:
                    raise InputError(f"{other} and {option}: both name {place}; name two places")


FILE_PATIENCE_S = 10.0
"""How long a stream of files waits for a sink, so that every frame is written."""

ENERGY = "Energy that the machine has taken since the stream began, all else that it does included"

WRONG_TOKENS = "Wrong tokens that the page or the metrics were asked with"


class Service:
    """Sinks, listener, metrics and watch for one stream, and the servers that tell of it.

        hosts = hosts_of(cascade.stages)
        with Service(options, cascade_manifest, clock=…, wall=…, hosts=hosts) as service:
            stream = cascade.stream(
                source,
                sinks=service.sinks,
                listener=service.listener,
                metrics=service.metrics,
                watch=service.watch,
            )
            service.runs(stream.close)
            …

    A context manager: the servers listen from before the stream starts until after it has ended.
    The sinks are the stream's to open and to close.

    Args:
        options: what there shall be.
        manifest: of the bundle that decides.
        clock: seconds; the stream's.
        wall: seconds since 1970, for the names of files.
        sources: how many sources there are.
        live: whether one of them is a camera, which must not be held up: its frames are then
            dropped rather than waited for. Files are waited for, so that none is left out.
        listener: hears of every event, besides the log and the page.
        reuse: when the stream repeats earlier answers; None where it repeats none.
        hosts: asks the hosts of the large model (`telemetry.hosts.hosts_of`); None where it runs
            here.

    Attributes:
        sinks: for the stream.
        listener: for the stream.
        metrics: for the stream.
        watch: for the stream.
        tally: every counter, in memory.
        promise: what the bundle promises.
        notes: where the servers listen, once it has been entered.
        warnings: what the user should know once the stream runs.

    Raises:
        InputError: an option cannot be used; the message names it.
        MissingDependencyError: an extra is not installed; the message names it.
    """

    def __init__(
        self,
        options: ServiceOptions,
        manifest: Manifest,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        sources: int = 1,
        live: bool = True,
        listener: Listener | None = None,
        reuse: ReuseRule | None = None,
        hosts: RemoteEngine | None = None,
    ) -> None:
        self.promise, self._hosts, self._reuse = Promise.of(manifest, reuse=reuse), hosts, reuse
        self._options, self._clock, self._wall = options, clock, wall
        self._sources = sources
        self._patience_s = 0.0 if live else FILE_PATIENCE_S
        self._stop: Callable[[], object] = lambda: None
        self._stack = ExitStack()
        self.health = Health(clock=clock)
        self.tally = Tally()
        self.listener = Listeners(EventLog(), self.health)
        self.metrics = AllMetrics(self.tally, self.health)
        if listener is not None:
            self.listener.add(listener)
        self.notes: list[str] = []
        self._no_energy: list[str] = []
        self.warnings: list[str] = []
        self._read: list[Callable[[], Iterable[Reading]]] = []
        self.forwarding = self._make_forwarding()
        self.sinks: list[Sink] = self._make_sinks()
        if options.field_frames is not None:
            self.sinks.append(self._field_frames(options.field_frames, self._audited_share))
        self.watch = self._make_watch(manifest)
        self._tries = WrongTokens(self._tell_denied)
        self._servers = [one for one in (self._monitor(), self._dashboard()) if one is not None]

    @property
    def kept(self) -> Kept | None:
        """What is left of the promise over the answers so far; None before the first."""
        return self.promise.kept(
            answers=self.tally.total(Counter.DECISIONS),
            certified=self.tally.total(Counter.CERTIFIED),
            fallbacks=self.tally.total(Counter.STOOD_IN),
        )

    def switched(
        self,
        manifest: Manifest,
        *,
        reuse: ReuseRule | None = None,
        hosts: RemoteEngine | None = None,
        watch: Watch | None = None,
    ) -> Watch:
        """Tell of another bundle from now on, and return a watch for it.

        Args:
            manifest: of the bundle that is about to decide.
            reuse: as for the constructor.
            hosts: as for the constructor.
            watch: of a bundle that decides again, whose alarms stand; None begins anew.

        Raises:
            InputError: it must be watched, and cannot be.
        """
        former, self._reuse = self._reuse, reuse
        try:
            self.watch = watch or self._make_watch(manifest)
        except InputError:
            self._reuse = former
            raise
        self.promise, self._hosts = self.promise.joined(Promise.of(manifest, reuse=reuse)), hosts
        return self.watch

    def tells(self, read: Callable[[], Iterable[Reading]]) -> None:
        """Publish further figures among the metrics, read whenever somebody asks."""
        self._read.append(read)

    def runs(self, stop: Callable[[], object]) -> None:
        """Say that the models are loaded and the stream is about to run.

        Args:
            stop: ends it; called when the user closes the preview.
        """
        self._stop = stop
        self.health.started()

    def __enter__(self) -> Self:
        """Listen.

        Raises:
            InputError: a port cannot be had.
        """
        try:
            if self.forwarding is not None:
                self._stack.enter_context(self.forwarding)
            if self._servers:
                self._stack.enter_context(short_turns())
            for name, server in self._servers:
                self._stack.enter_context(server)
                self.notes.append(f"{name}: {server.url}")
            self.notes += self._no_energy
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop listening."""
        self.health.stopped()
        self._stack.close()

    @property
    def field_frames(self) -> Path | None:
        """Folder of the next calibration set, where frames are saved for it."""
        return self._options.field_frames

    # What is made of the options

    def _queued(self, sink: Sink) -> Queued:
        return Queued(
            sink,
            clock=self._clock,
            listener=self.listener,
            metrics=self.metrics,
            patience_s=self._patience_s,
        )

    def _make_sinks(self) -> list[Sink]:
        options = self._options
        made: list[Sink] = []
        if options.jsonl is not None:
            made.append(JsonlSink(options.jsonl, max_bytes=options.jsonl_max_bytes))
        if options.video is not None:
            made.append(
                VideoSink(options.video, fps=options.video_fps, by_source=self._sources > 1)
            )
        if options.preview:
            made.append(PreviewSink(on_quit=lambda: self._stop()))
        if options.mqtt is not None:
            broker = MqttAddress.parse(options.mqtt)
            made.append(MqttSink(broker))
            if broker.exposed:
                what = "decisions" if broker.user is None else "user, password and decisions"
                self.warnings.append(
                    f"{made[-1].name}: {what} cross the network in plain text; use mqtts://"
                )
        if options.hard_frames is not None:
            made.append(HardFramesSink(options.hard_frames, clock=self._clock, wall=self._wall))
        made.extend(map(open_sink, options.sinks))
        queued: list[Sink] = [self._queued(one) for one in made]
        if self.forwarding is not None:
            queued.append(self.forwarding.sink)
        if options.hold is not None:
            queued.append(ChangeSink(options.hold, listener=self.listener, clock=self._clock))
        return queued

    def _make_forwarding(self) -> Forwarding | None:
        if self._options.forward is None:
            return None
        made = Forwarding(
            self._options.forward, clock=self._clock, wall=self._wall,
            listener=self.listener, metrics=self.metrics,
        )  # fmt: skip
        self.tells(made.readings)
        return made

    @property
    def _audited_share(self) -> float:
        if self._options.drift is None:
            raise InputError(
                "--field-frames saves as large a share of the frames as is audited: say "
                "--audit-share"
            )
        return self._options.drift.share

    def _make_watch(self, manifest: Manifest) -> Watch:
        options = self._options
        if options.drift is None:
            return NO_WATCH
        try:
            return DriftWatch(
                calibrated_disagreement(manifest, self._reuse),
                options.drift,
                clock=self._clock,
                sources=self._sources,
                listener=self.listener,
                metrics=self.metrics,
                keep=None if self.forwarding is None else self.forwarding.keep,
                repeated=counts_repeated(manifest, self._reuse),
            )
        except InputError as error:
            if options.must_watch:
                raise
            self.warnings.append(f"drift is not watched: {error}")
            return NO_WATCH

    def _field_frames(self, folder: Path, share: float) -> RandomShare:
        saved = CalibrationSetSink(folder, wall=self._wall)
        return RandomShare(
            self._queued(saved),
            folder=folder,
            written=lambda: saved.written,
            share=share,
            seed=self._options.seed,
            wall=self._wall,
        )

    def _tell_denied(self, tries: int, address: str) -> None:
        self.listener(Denied("", self._clock(), tries, address))

    def _monitor(self) -> tuple[str, Monitor] | None:
        if self._options.metrics is None:
            return None
        address = ListenAddress.parse(self._options.metrics, option="--metrics")
        published = PrometheusMetrics()
        published.add(lambda: promise_readings(self.promise, self.kept))
        published.add(lambda: [one for read in self._read for one in read()])
        if self._hosts is not None:
            published.add(lambda: [] if self._hosts is None else host_readings(self._hosts))
        self.metrics.add(published)
        published.add(self._energy())
        published.add(
            lambda: [reading("wrong_tokens", WRONG_TOKENS, self._tries.count, counts=True)]
        )
        made = Monitor(
            address, self.health, published, token=self._options.token, tries=self._tries
        )
        self.warnings += made.warnings
        return "metrics and health", made

    def _energy(self) -> Callable[[], list[Reading]]:
        """Return what reads the machine's counters of energy; say so where it has none."""
        meters = self._stack.enter_context(open_meters())
        if not meters.found:
            self._no_energy.append(f"energy is not told: {meters.why_none}")
        return energy_readings(meters)

    def _dashboard(self) -> tuple[str, Dashboard] | None:
        if self._options.dashboard is None:
            return None
        address = ListenAddress.parse(self._options.dashboard, option="--dashboard")
        state = DashboardState(
            clock=self._clock,
            health=self.health,
            drift=lambda: self.watch.state if isinstance(self.watch, DriftWatch) else None,
            promise=lambda: self.promise,
            hosts=self._hosts,
        )
        made = Dashboard(state, address, token=self._options.token, tries=self._tries)
        self.metrics.add(state)
        self.listener.add(state)
        self.sinks.append(state)
        return "dashboard", made


def energy_readings(meters: Meters) -> Callable[[], list[Reading]]:
    """Return what tells what each counter of energy has counted since now, for the metrics."""
    begun = {meter.source: meter.joules() for meter in meters.found}

    def read() -> list[Reading]:
        samples = []
        for meter in meters.found:
            with suppress(OSError):  # a counter that has gone leaves a gap, and no wrong figure
                samples.append(((meter.source,), meter.joules() - begun[meter.source]))
        return [Reading("energy_joules", ENERGY, tuple(samples), ("counter",), counts=True)]

    return read
