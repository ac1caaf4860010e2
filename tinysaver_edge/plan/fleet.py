"""What a fleet is: cameras, devices, uplink and hosts, with the times that `bench` has measured."""

from __future__ import annotations

import difflib
import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tinysaver_edge.artefact import Artefact, bundled_artefacts
from tinysaver_edge.bench.frames import golden_frames
from tinysaver_edge.bench.report import (
    MeasuredReport,
    MeasuredStage,
    read_report,
    report_path,
    runs_as,
)
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.bundle.manifest import Manifest
from tinysaver_edge.engines.batching import worth_it
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.host.listening import Listening
from tinysaver_edge.latency import LatencySamples
from tinysaver_edge.outputs import FloatArray
from tinysaver_edge.preprocess import Preprocessor
from tinysaver_edge.stream.options import LIVE_DEADLINE_MS, StreamOptions

_UNITS = MappingProxyType({"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9})

MOST = MappingProxyType({"cameras": 10_000, "fps": 1000.0, "hosts": 1000})
"""Beyond this, a slip is more likely than a fleet."""

LEAST_FPS, MOST_FRAMES_PER_S = 1e-4, 100_000

MOST_REQUESTS = Listening().max_requests
"""What `serve` takes in at once where nothing else is said."""

LIMITS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "mean_latency_ms": ("milliseconds", "200"),
        "p50_latency_ms": ("milliseconds", "50"),
        "p95_latency_ms": ("milliseconds", "300"),
        "p99_latency_ms": ("milliseconds", "500"),
        "degraded": ("a share of the frames", "0.5%"),
        "host_load": ("a share of the hosts' time", "70%"),
        "uplink_load": ("a share of the uplink", "80%"),
        "mean_energy_mj": ("millijoules a frame", "15"),
        "uplink_kbit": ("kilobits a frame", "40"),
    }
)
"""What a plan may be limited by: the unit, and an example."""

SHARES = ("degraded", "host_load", "uplink_load")


def parse_rate(text: str) -> float:
    """Read how much an uplink carries, in bits a second: ``20mbit``, ``512 kbit/s``, or ``none``.

    Raises:
        InputError: it has no such unit, or is not above 0.
    """
    if text == "none":
        return math.inf
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([a-zA-Z/]*)\s*", text)
    units = ", ".join(_UNITS)
    unit = "" if match is None else match[2].lower().removesuffix("/s")
    if match is None or unit not in _UNITS:
        raise InputError(
            f"--uplink {text!r}: a number and one of {units} (a second), as 20mbit; none for one "
            "that nothing fills"
        )
    try:
        rate = float(match[1]) * _UNITS[unit]
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise InputError(f"--uplink {text!r}: {match[1]} is no number above 0")
    return rate


def say_rate(bits_per_s: float) -> str:
    """Write how much an uplink carries, as `parse_rate` reads it: ``20 Mbit/s``."""
    if math.isinf(bits_per_s):
        return "unlimited"
    for size, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bits_per_s >= size:
            return f"{bits_per_s / size:.3g} {unit}"
    return f"{bits_per_s:.3g} bit/s"


@dataclass(frozen=True, slots=True)
class FleetLimits:
    """Limits that a fleet is to keep; None where there is none. Shares are 0..1.

    Attributes:
        mean_latency_ms: mean time from a frame to its final decision.
        p50_latency_ms: time within which half of the frames are decided.
        p95_latency_ms: … 95 % of them.
        p99_latency_ms: … 99 % of them.
        degraded: share of the frames that the saver answers for want of the large model.
        host_load: share of the time that the hosts' models are busy.
        uplink_load: share of the uplink that is used.
        mean_energy_mj: energy of a frame on device and hosts, on average.
        uplink_kbit: what is sent of a frame, on average.
    """

    mean_latency_ms: float | None = None
    p50_latency_ms: float | None = None
    p95_latency_ms: float | None = None
    p99_latency_ms: float | None = None
    degraded: float | None = None
    host_load: float | None = None
    uplink_load: float | None = None
    mean_energy_mj: float | None = None
    uplink_kbit: float | None = None

    @classmethod
    def parse(cls, texts: Sequence[str]) -> FleetLimits:
        """Read ``NAME=NUMBER`` as the command line gives it; shares also as ``0.5%``.

        Raises:
            InputError: the name is unknown or named twice, or the number is none.
        """
        values: dict[str, float] = {}
        for text in texts:
            name, _, number = (part.strip() for part in text.partition("="))
            if name not in LIMITS:
                near = difflib.get_close_matches(name, LIMITS, n=1)
                hint = f"did you mean {near[0]}? T" if near else "t"
                raise InputError(f"budget {name!r} is unknown: {hint}here are {', '.join(LIMITS)}")
            if name in values:
                raise InputError(f"budget {name} is given twice")
            share = name in SHARES
            try:
                percent = share and number.endswith("%")
                value = float(number.removesuffix("%")) / 100 if percent else float(number)
            except ValueError:
                value = math.nan
            if not 0 < value < math.inf or (share and value > 1):
                unit, example = LIMITS[name]
                raise InputError(f"budget {text!r}: expected {unit}, as {name}={example}")
            values[name] = value
        return cls(**values)

    @property
    def set(self) -> dict[str, float]:
        """The limits that there are, by name."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    def check(self, times: Times) -> None:
        """Refuse a limit on what nobody has measured.

        Raises:
            InputError: there is one.
        """
        if self.mean_energy_mj is not None and not times.counts_energy:
            raise InputError(
                "budget mean_energy_mj: nobody knows what a frame takes of energy: bench where a "
                "counter of it tells, or name power with --device and --host-device"
            )


@dataclass(frozen=True, slots=True)
class Times:
    """What was measured of the models, and what is sent of a frame.

    Attributes:
        accepted_ms: how long the device takes a frame that it settles, samples.
        escalated_ms: how long it takes until it escalates one.
        batch_ms: how long a host's model takes so many frames at once, samples of each size.
        sent_bytes: what is sent of a frame.
        saver_mj: energy of a frame on the device, on average; None where nobody told.
        large_mj: energy of a frame on a host, one at a time.
        said: where all of it is from, a line each.
        assumed: what of it nobody has measured, a line each.
    """

    accepted_ms: FloatArray
    escalated_ms: FloatArray
    batch_ms: Mapping[int, FloatArray]
    sent_bytes: float
    saver_mj: float | None = None
    large_mj: float | None = None
    said: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def counts_energy(self) -> bool:
        """Whether it is known what a frame takes, on the device and on a host."""
        return self.saver_mj is not None and self.large_mj is not None

    @property
    def at_once(self) -> int:
        """Frames that a host runs at once at most, as `serve` would choose."""
        return worth_it({size: float(np.median(ms)) / size for size, ms in self.batch_ms.items()})


@dataclass(frozen=True, slots=True)
class Fleet:
    """Cameras, what decides their frames, and what lies between.

    Attributes:
        cameras: how many.
        fps: frames a second of each.
        devices: how many devices they share, evenly; each has a saver and a stream of its own.
        hosts: hosts of the large model.
        uplink_bps: bits a second that all devices share on their way to the hosts.
        rtt_ms: what an answer takes besides sending, waiting and the model itself: the network's
            round trip and what both sides spend on the protocol.
        deadline_ms: when the saver's answer goes out for the large model's.
        max_in_flight: frames of one device that wait for the large model at once.
        max_requests: requests that a host takes in at once; beyond it they are refused.

    Raises:
        InputError: a figure is out of range.
    """

    cameras: int
    fps: float
    devices: int
    hosts: int = 1
    uplink_bps: float = math.inf
    rtt_ms: float = 0.0
    deadline_ms: float = LIVE_DEADLINE_MS
    max_in_flight: int = StreamOptions().max_in_flight
    max_requests: int = MOST_REQUESTS

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value = getattr(self, name)
            if not 0 < value <= most:
                raise InputError(f"--{name} {value:g}: must be above 0, and at most {most:g}")
        if self.fps < LEAST_FPS:
            raise InputError(f"--fps {self.fps:g}: at least {LEAST_FPS:g}, a frame in some hours")
        if self.cameras * self.fps > MOST_FRAMES_PER_S:
            raise InputError(
                f"--cameras {self.cameras} --fps {self.fps:g}: {self.cameras * self.fps:,.0f} "
                f"frames a second; plan a part of them, at most {MOST_FRAMES_PER_S:,} together"
            )
        if not 1 <= self.devices <= self.cameras:
            raise InputError(
                f"--devices {self.devices}: from 1 to the number of cameras, {self.cameras}"
            )
        if not 0 < self.deadline_ms <= 60_000:
            raise InputError(f"--deadline-ms {self.deadline_ms:g}: above 0, and at most 60000")
        if not 0 <= self.rtt_ms <= 60_000:
            raise InputError(f"--rtt-ms {self.rtt_ms:g}: from 0 to 60000")
        if self.max_in_flight < 1 or self.max_requests < 1:
            raise InputError("--max-in-flight and --max-requests: at least 1")

    def with_saver(self, times: Times, asked: float) -> tuple[Fleet, str | None]:
        """Return the fleet at the rate that its savers keep up with, and what is to be said of it.

        Args:
            times: what was measured.
            asked: share of the frames that the saver is asked about.
        """
        each_s = float(times.accepted_ms.mean()) / 1e3 * asked
        most = BUSIEST / max(each_s * math.ceil(self.cameras / self.devices), 1e-12)
        if most >= self.fps:
            return self, None
        return replace(self, fps=most), (
            f"the saver takes {1e3 * each_s:.3g} ms a frame: a device with "
            f"{math.ceil(self.cameras / self.devices)} cameras decides {most:.3g} of the "
            f"{self.fps:g} frames/s of each; the others are dropped at the camera, and all figures "
            "are of those that are decided"
        )


BUSIEST = 0.98
"""Share of a device's time that its saver may take; a live camera's frames beyond are dropped."""


def read_times(
    bundle: Bundle,
    *,
    bench: Path | None = None,
    host_bench: Path | None = None,
    sent_bytes: float | None = None,
) -> Times:
    """Return what was measured of a bundle's models.

    Args:
        bundle: an open bundle.
        bench: report of `bench` on a device; None takes the one beside the bundle.
        host_bench: report of `bench` on a host; None takes the device's.
        sent_bytes: what is sent of a frame; None goes by the bundle's preprocessing and codec.

    Raises:
        InputError: there is no report, it does not have a model as the bundle runs it, or nobody
            knows how large a frame is.
        BundleError: the bundle holds no models.
    """
    models = bundled_artefacts(bundle, elsewhere=True)
    if len(models) < 2:
        raise InputError(f"bundle {bundle.path}: has one model, and nothing to escalate to")
    path = bench or report_path(bundle.path)
    if bench is None and not path.is_file():
        raise InputError(
            f"bundle {bundle.path}: nobody has measured how long its models take: run "
            f"tinysaver-edge bench {bundle.path} on the device, or name a report with --bench"
        )
    here = read_report(path)
    there = here if host_bench is None else read_report(host_bench)
    early = [_stage(here, model) for model in models[:-1]]
    large = there.stages.get(runs_as(models[-1])) or _by_hash(there, models[-1])
    if large is None:
        raise InputError(
            f"bench report {there.path}: has no {models[-1].name} of this bundle: bench the "
            "bundle, or its large model, on a host"
        )
    accepted, escalated = _device_ms([one.latency for one in early], bundle.manifest)
    batches = {size: one.samples_ms for size, one in large.batch_ms.items()}
    said = [f"device: {here.processor}, {here.measured_at} ({here.path.name})"]
    if host_bench is not None:
        said.append(f"hosts: {there.processor}, {there.measured_at} ({there.path.name})")
    if not batches:
        batches = {1: large.latency.samples_ms}
        said.append("hosts are taken to run one frame at a time: their report times no batches")
    size, how = _sent(bundle, models[-1]) if sent_bytes is None else (sent_bytes, "as given")
    saver_mj = _device_mj(early, bundle.manifest)
    counters = {(mj, one.energy_by) for mj, one in ((saver_mj, early[0]), (large.energy_mj, large))}
    said += sorted({f"energy is counted by {by}" for mj, by in counters if mj is not None})
    return Times(
        accepted,
        escalated,
        batches,
        size,
        saver_mj=saver_mj,
        large_mj=large.energy_mj,
        said=(*said, f"a frame is sent as {size:,.0f} bytes: {how}"),
        assumed=(
            *(("hosts are as fast as the device: no --host-bench",) if host_bench is None else ()),
            "what HTTP, TLS and IP add to a frame's bytes is not counted",
        ),
    )


def _stage(report: MeasuredReport, model: Artefact) -> MeasuredStage:
    found = report.stages.get(runs_as(model))
    if found is None:
        raise InputError(
            f"bench report {report.path}: has no latency of {model.name} as this bundle runs it "
            f"({' '.join(runs_as(model)[1:])}): bench the bundle on the device"
        )
    return found


def _by_hash(report: MeasuredReport, model: Artefact) -> MeasuredStage | None:
    """Return the large model as a host runs it, which may have another device."""
    return next((one for key, one in report.stages.items() if key[0] == model.sha256), None)


def _device_ms(
    stages: Sequence[LatencySamples], manifest: Manifest
) -> tuple[FloatArray, FloatArray]:
    """Return what the device takes a frame it settles, and one it escalates, all stages in turn."""
    ways = [stages[0]]
    for stage in stages[1:]:
        ways.append(ways[-1].plus(stage))
    settled = manifest.calibration.settled
    shares = np.array(settled[: len(ways)] if settled is not None else [1.0] + [0.0] * 9)
    shares = shares[: len(ways)]
    if len(ways) == 1 or not shares.sum():
        return ways[0].samples_ms, ways[-1].samples_ms
    counts = np.round(SAMPLES * shares / shares.sum()).astype(int)
    parts = [
        np.quantile(way.samples_ms, (np.arange(count) + 0.5) / count)
        for way, count in zip(ways, counts, strict=True)
        if count
    ]
    return np.concatenate(parts), ways[-1].samples_ms


def _device_mj(stages: Sequence[MeasuredStage], manifest: Manifest) -> float | None:
    """Return the energy of a frame on the device, each stage by the share that reaches it."""
    settled = manifest.calibration.settled
    reached, total = 1.0, 0.0
    for place, stage in enumerate(stages):
        if stage.energy_mj is None:
            return None
        total += reached * stage.energy_mj
        if settled is not None and place < len(settled):
            reached -= settled[place]
    return total


SAMPLES = 2000
"""Durations that stand for several ways through the early stages, in their shares."""


def _sent(bundle: Bundle, large: Artefact) -> tuple[float, str]:
    preprocess = large.preprocess
    if large.codec is None:
        size = np.dtype(preprocess.format.dtype).itemsize * math.prod(preprocess.shape(1))
        return float(size), "pixels, as the bundle sends them"
    frames = golden_frames(bundle)
    if not frames:
        raise InputError(
            f"bundle {bundle.path}: sends {large.codec} and holds no golden frames to encode: say "
            "how large a frame is with --frame-bytes"
        )
    convert = Preprocessor(preprocess)
    try:
        files = [large.codec.encode(convert.batch([one.decode()]))[0] for one in frames]
    except EngineError as error:
        raise InputError(f"bundle {bundle.path}: {error}; say --frame-bytes") from error
    return float(np.mean([len(one) for one in files])), (
        f"{large.codec}, the mean of {len(files)} golden frames"
    )


# What it does


class Link:
    """An uplink that all that is under way shares evenly.

    All take it for equally long by itself, so they leave in the order in which they came. How much
    of it each of them has had is counted since it was last free (Kleinrock's virtual time).

    Args:
        send_s: how long it takes one request by itself.
    """

    def __init__(self, send_s: float) -> None:
        self._send_s = send_s
        self._had_s = self._at_s = 0.0
        self.under_way: deque[tuple[float, Any]] = deque()

    def until(self, now_s: float) -> float:
        """Go on until a moment, by which none is through; return how long it was in use."""
        spent_s = now_s - self._at_s
        self._at_s = now_s
        if not self.under_way:
            return 0.0
        self._had_s += spent_s / len(self.under_way)
        return spent_s

    def enter(self, what: object) -> None:
        """Begin with one at the moment until which it went on."""
        if not self.under_way:
            self._had_s = 0.0
        self.under_way.append((self._had_s + self._send_s, what))

    def next_s(self) -> float:
        """Return when the next is through, if nothing else comes."""
        return self._at_s + max(0.0, self.under_way[0][0] - self._had_s) * len(self.under_way)

    def all_through(self, asked_s: list[float]) -> list[float]:
        """Return when requests are through that are sent at rising moments."""
        through = []
        for now_s in [*asked_s, math.inf]:
            while self.under_way and (end_s := self.next_s()) <= now_s:
                self.until(end_s)
                self.under_way.popleft()
                through.append(end_s)
            if now_s < math.inf:
                self.until(now_s)
                self.enter(None)
        return through


class Draws:
    """Durations drawn from samples for ever; it can begin again at any of them."""

    def __init__(self, samples: FloatArray, chance: np.random.Generator) -> None:
        self._samples, self._chance = samples, chance
        self._drawn, self._at = list[float](), 0

    def __next__(self) -> float:
        if self._at == len(self._drawn):
            self._drawn += self._chance.choice(self._samples, 4096).tolist()
        self._at += 1
        return self._drawn[self._at - 1]

    def begin(self, at: int) -> None:
        """Go on with the one of this number, which has been drawn, or is the next to be."""
        self._at = at
