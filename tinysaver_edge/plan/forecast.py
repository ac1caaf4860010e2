"""What a fleet will do, with intervals; the least that keeps limits; and what-if curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinysaver_edge._support.numbers import percent
from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.plan.escalating import Escalating, Traced
from tinysaver_edge.plan.exchange import End
from tinysaver_edge.plan.fleet import (
    LEAST_FPS,
    MOST,
    MOST_FRAMES_PER_S,
    SHARES,
    Fleet,
    FleetLimits,
    Times,
    say_rate,
)
from tinysaver_edge.plan.simulation import (
    STRETCH_S,
    Figure,
    Formula,
    Resampled,
    Stretch,
    formula_of,
    of_bin,
    simulate_stretch,
)

DAY_S = 86_400.0

MOST_ESCALATIONS = 8_000_000
"""So many are followed event by event at most; of a longer time, so long a one stands for all."""

FEW_ESCALATIONS = 60_000
"""So many are simulated for each point of a curve, and of a search."""

CALM = 6
"""So many that meet no limit are simulated in the time of one that is followed event by event."""

LEAST_STRETCHES = 8
LEAST_FRAMES = 4
"""So many frames of a camera a stretch holds, however seldom they come."""

MOST_FRAMES = 4_000_000
"""So many frames a stretch holds at most, if it is longer than a minute: they take memory."""

SHORTEST_STRETCH_S, MINUTE_S = 4.0, 60.0

LEAST_FOR_P99 = 367
"""Of so many, the largest lies above the 99th percentile all but 2.5 % of the times: 0.99^367."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a fleet does.

    Attributes:
        fleet: the fleet.
        figures: by name, shares from 0 to 1. ``escalations_per_s``, its p99 over seconds and over
            minutes, ``uplink_bps``, ``uplink_load`` and ``uplink_kbit`` (of a frame),
            ``host_load``, ``host_queue`` (frames left waiting when a host begins a run), mean and
            quantiles of final decisions, ``answer_ms`` (of the large model's answers, from the
            saver's on), ``degraded`` and its parts, ``mean_energy_mj``, ``energy_wh_day``.
        simulated_s: how long a time.
        asked_s: of how long a time.
        formula: the check.
    """

    fleet: Fleet
    figures: Mapping[str, Figure]
    simulated_s: float
    asked_s: float
    formula: Formula

    def keeps(self, limits: FleetLimits) -> bool:
        """Whether every limit is kept, by the upper end of its figure's interval."""
        return not self.broken(limits)

    def broken(self, limits: FleetLimits) -> list[str]:
        """Name the limits that are not kept."""
        found = self.figures
        return [
            name for name, most in limits.set.items() if name in found and found[name].most > most
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        fleet = {name: getattr(self.fleet, name) for name in Fleet.__slots__}
        if math.isinf(self.fleet.uplink_bps):
            fleet["uplink_bps"] = None
        return {
            "fleet": fleet,
            "simulated_s": self.simulated_s,
            "asked_s": self.asked_s,
            "figures": {name: one.to_dict() for name, one in self.figures.items()},
            "formula": {name: getattr(self.formula, name) for name in Formula.__slots__},
        }


@dataclass(frozen=True, slots=True)
class Planner:
    """Forecasts one fleet and others like it.

    Attributes:
        times: what was measured.
        escalating: which frames are escalated.
        seed: of everything that is drawn; fleets are compared on the same draws.
    """

    times: Times
    escalating: Escalating
    seed: int = 0

    def forecast(
        self,
        fleet: Fleet,
        *,
        seconds: float,
        escalating: Escalating | None = None,
        most: int = MOST_ESCALATIONS,
        stretch_s: float = STRETCH_S,
        progress: Progress = SILENT,
    ) -> Forecast:
        """Simulate a fleet.

        Args:
            fleet: the fleet.
            seconds: of how long a time.
            escalating: other escalations than one's own.
            most: escalations that are followed event by event at most.
            stretch_s: how long a stretch is.
            progress: hears of each stretch.
        """
        flow = escalating or self.escalating
        fits_s = max(MOST_FRAMES / (fleet.cameras * fleet.fps), MINUTE_S)
        length_s = max(min(stretch_s, seconds, fits_s), LEAST_FRAMES / fleet.fps)
        wanted = max(1, math.ceil(seconds / length_s))
        stretches, spent = list[Stretch](), 0.0
        progress.start("simulating", total=wanted)
        for seed in np.random.SeedSequence(self.seed).spawn(wanted):
            if len(stretches) >= LEAST_STRETCHES and spent >= most:
                break
            one = simulate_stretch(fleet, self.times, flow, seed=seed, seconds=length_s)
            stretches.append(one)
            spent += one.followed + max(one.escalated - one.followed, 0) / CALM
            progress.advance(1)
        progress.finish()
        figures = _figures(fleet, self.times, flow, stretches)
        return Forecast(
            fleet,
            figures,
            len(stretches) * length_s,
            wanted * length_s,
            formula_of(fleet, self.times, share=flow.rate, dispersion=flow.dispersion(fleet.fps)),
        )

    def quickly(self, fleet: Fleet, escalating: Escalating | None = None) -> Forecast:
        """Simulate a fleet for as long as a point of a curve needs."""
        each = fleet.cameras * fleet.fps * (escalating or self.escalating).rate
        stretch_s = FEW_ESCALATIONS / max(each, 1e-9) / LEAST_STRETCHES
        stretch_s = min(max(stretch_s, SHORTEST_STRETCH_S), STRETCH_S)
        stretch_s = max(stretch_s, LEAST_FRAMES / fleet.fps)
        return self.forecast(
            fleet,
            seconds=LEAST_STRETCHES * stretch_s,
            escalating=escalating,
            most=FEW_ESCALATIONS,
            stretch_s=stretch_s,
        )


def _figures(
    fleet: Fleet, times: Times, flow: Escalating, stretches: Sequence[Stretch]
) -> dict[str, Figure]:
    """Add stretches up, and say how sure the sums are."""
    resample = Resampled(stretches)
    seconds = resample.summed(lambda one: one.seconds)
    frames = resample.summed(lambda one: one.frames)
    ends = {end: resample.summed(_ended(end)) for end in End}
    hosts_s = seconds * fleet.hosts
    lost = ends[End.DEADLINE] + ends[End.IN_FLIGHT] + ends[End.FAILED]
    found = {
        "escalations_per_s": resample.summed(lambda one: one.escalated) / seconds,
        "escalations_p99_second": resample.quantile_of(lambda one: one.a_second, 0.99),
        "escalations_p99_minute": resample.quantile_of(lambda one: one.a_minute, 0.99) / 60,
        "uplink_bps": 8 * resample.summed(lambda one: one.sent_bytes) / seconds,
        "uplink_load": np.minimum(resample.summed(lambda one: one.sent_s) / seconds, 1.0),
        "uplink_kbit": 8e-3 * resample.summed(lambda one: one.sent_bytes) / frames,
        "host_load": np.minimum(resample.summed(lambda one: one.busy_s) / hosts_s, 1.0),
        "host_queue": resample.summed(lambda one: one.waiting)
        / np.maximum(resample.summed(lambda one: one.runs), 1),
        "mean_latency_ms": resample.summed(lambda one: one.sum_ms) / frames,
        **{
            f"p{q}_latency_ms": of_bin(resample.quantile(lambda one: one.latency_ms, q / 100))
            for q in (50, 95, 99)
        },
        "answer_ms": resample.summed(lambda one: one.answer_ms) / np.maximum(ends[End.ANSWERED], 1),
        "degraded": lost / frames,
        "degraded_deadline": ends[End.DEADLINE] / frames,
        "degraded_in_flight": ends[End.IN_FLIGHT] / frames,
        "degraded_failed": ends[End.FAILED] / frames,
    }
    if times.saver_mj is not None and times.large_mj is not None:
        run = resample.summed(lambda one: one.run)
        mj = times.saver_mj * flow.asked * frames + times.large_mj * run
        found["mean_energy_mj"] = mj / frames
        found["energy_wh_day"] = mj / seconds * DAY_S / 3.6e6
    if not len(stretches[0].a_minute):  # stretches may be shorter than a minute
        del found["escalations_p99_minute"]
    if math.isinf(fleet.uplink_bps):
        del found["uplink_load"]
    if not ends[End.ANSWERED][0]:  # 0 ms would be as quick as can be
        del found["answer_ms"]
    told = {
        name: resample.figure(values, most=1.0 if name.startswith(SHARES) else math.inf)
        for name, values in found.items()
    }
    counted = {
        "escalations_p99_second": sum(len(one.a_second) for one in stretches),
        "escalations_p99_minute": sum(len(one.a_minute) for one in stretches),
    }
    for name, count in counted.items():
        if name in told and count < LEAST_FOR_P99:
            told[name] = replace(told[name], high=None)
    return told


def _ended(end: End) -> Callable[[Stretch], float]:
    return lambda one: float(one.ends[end])


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing that may be changed, the others kept.

    Attributes:
        what: hosts, uplink, deadline, threshold, or hosts and uplink.
        value: the least that keeps every limit; None where none of those tried does.
        said: in words.
        certified: False of a threshold that the bundle's certificate does not cover.
    """

    what: str
    value: float | None
    said: str
    certified: bool = True


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point of a what-if curve."""

    x: float
    label: str
    forecast: Forecast
    now: bool = False


HOSTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1000)
LEAST_MOST_HOSTS = 64
MOST_TRIED = 50
DEADLINES_MS = (50, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000)
_STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


@dataclass(slots=True)
class WhatIf:
    """Fleets like one: what keeps the limits, and curves.

    Attributes:
        planner: forecasts them.
        fleet: the one that was asked about.
        limits: to be kept.
        found: what was found of that one already, at length.
        progress: hears of each fleet that was simulated.
    """

    planner: Planner
    fleet: Fleet
    limits: FleetLimits
    found: Forecast | None = None
    progress: Progress = SILENT
    _known: dict[object, Forecast] = field(default_factory=dict)

    def _at(self, fleet: Fleet, threshold: float | None = None) -> Forecast:
        flow = self.planner.escalating
        if isinstance(flow, Traced) and threshold == flow.threshold:
            threshold = None
        if self.found is not None and fleet == self.fleet and threshold is None:
            return self.found
        key = (*(getattr(fleet, name) for name in Fleet.__slots__), threshold)
        if key not in self._known:
            if threshold is not None and isinstance(flow, Traced):
                flow = flow.at_threshold(threshold)
            able, _ = fleet.with_saver(self.planner.times, flow.asked)
            self._known[key] = self.planner.quickly(able, flow)
            self.progress.advance(1)
        return self._known[key]

    def _least(
        self, tried: Sequence[float], make: Callable[[float], Fleet], some: Sequence[float] = ()
    ) -> float | None:
        """Return one that keeps the limits while the one before it does not; None where none does.

        Looked for by halves, as if more were never worse; before none is said to, all are tried,
        or `some`: where the uplink is full, more hosts send more of it in vain.
        """
        low, high = 0, len(tried)
        while low < high:
            middle = (low + high) // 2
            if self._at(make(tried[middle])).keeps(self.limits):
                high = middle
            else:
                low = middle + 1
        if low < len(tried):
            return tried[low]
        return next((one for one in some or tried if self._at(make(one)).keeps(self.limits)), None)

    @property
    def most_hosts(self) -> int:
        """So many hosts are tried at most: twice of what would be busy all the time, one by one."""
        each_s = float(self.planner.times.batch_ms[1].mean()) / 1e3
        busy = self.fleet.cameras * self.fleet.fps * self.planner.escalating.rate * each_s
        most = max(LEAST_MOST_HOSTS, 2 * busy, self.fleet.hosts)
        return next((one for one in HOSTS if one >= most), HOSTS[-1])

    def _hosts(self, fleet: Fleet) -> float | None:
        most = self.most_hosts
        return self._least(
            range(1, most + 1),
            lambda count: replace(fleet, hosts=int(count)),
            [one for one in HOSTS if one <= most],
        )

    def remedies(self) -> list[Remedy]:
        """Return the least of each that keeps the limits, all else as it is."""
        fleet = self.fleet
        self.progress.start("looking for what keeps the limits: fleets, at most", total=MOST_TRIED)
        hosts = self._hosts(fleet)
        rates = self.uplinks()
        uplink = self._least(rates, lambda rate: replace(fleet, uplink_bps=rate), rates[::3])
        found = [
            Remedy("hosts", hosts, _keeps(hosts, "hosts", self.most_hosts)),
            Remedy("uplink", uplink, _keeps(uplink, "uplink", rates[-1], say_rate)),
        ]
        if hosts is None and uplink is None:
            found.append(self._both())
        kept = (
            one
            for one in DEADLINES_MS
            if self._at(replace(fleet, deadline_ms=float(one))).keeps(self.limits)
        )
        shortest = next(kept, None)
        found.append(
            Remedy(
                "deadline",
                shortest,
                f"no deadline from {DEADLINES_MS[0]} to {DEADLINES_MS[-1]} ms keeps them"
                if shortest is None
                else f"of the deadlines tried, {shortest} ms is the shortest that keeps them",
            )
        )
        return [*found, self._threshold()]

    def _both(self) -> Remedy:
        free = replace(self.fleet, uplink_bps=math.inf)
        hosts = self._hosts(free)
        if hosts is None:
            said = f"not even {self.most_hosts} hosts with any uplink keep them"
            return Remedy("hosts and uplink", None, said)
        there = replace(self.fleet, hosts=int(hosts))
        uplink = self._least(self.uplinks(), lambda rate: replace(there, uplink_bps=rate))
        sends = "that nothing fills" if uplink is None else f"of {say_rate(uplink)}"
        return Remedy(
            "hosts and uplink", uplink, f"{hosts:g} hosts with an uplink {sends} keep them"
        )

    def _threshold(self) -> Remedy:
        flow = self.planner.escalating
        if not isinstance(flow, Traced) or not flow.scores or flow.threshold is None:
            why = "what another one escalates takes a trace of a cascade of two, without reuse"
            return Remedy("threshold", None, why)
        for limit in sorted(self.thresholds(), reverse=True):
            if self._at(self.fleet, limit).keeps(self.limits):
                certified = limit >= flow.threshold
                doubt = "" if certified else "; looser than the bundle's, so not certified"
                share = flow.at_threshold(limit).rate
                return Remedy(
                    "threshold",
                    limit,
                    f"a threshold of {limit:.4g} keeps them ({percent(share)} escalated, "
                    f"now {percent(flow.rate)} at {flow.threshold:.4g}){doubt}",
                    certified,
                )
        return Remedy("threshold", None, "no threshold keeps them")

    def uplinks(self) -> list[float]:
        """Return uplinks to try, from half of what is needed on average up to a hundred times."""
        need = self.planner.times.sent_bytes * 8 * self.planner.escalating.rate
        need = max(need * self.fleet.cameras * self.fleet.fps / 2, 1e3)
        tens = range(math.floor(math.log10(need)), math.floor(math.log10(need)) + 4)
        found = [step * 10.0**ten for ten in tens for step in _STEPS]
        return [rate for rate in found if need <= rate <= 200 * need]

    def thresholds(self) -> list[float]:
        """Return thresholds to try: that in force, and some that escalate less and more."""
        flow = self.planner.escalating
        if not isinstance(flow, Traced) or not flow.scores or flow.threshold is None:
            return []
        scores = np.concatenate(flow.scores)
        scores = scores[~np.isnan(scores)]
        shares = flow.rate * np.array([0.1, 0.25, 0.5, 0.75, 1.25, 1.5, 2.0])
        tried = np.quantile(scores, np.clip(shares, 0, 0.99))
        return sorted({flow.threshold, *map(float, tried)})

    def curves(self) -> Iterator[tuple[str, list[CurvePoint]]]:
        """Yield what-if curves: hosts, uplink, threshold, frames a second."""
        fleet = self.fleet
        self.progress.start("drawing curves: fleets, at most", total=MOST_TRIED)
        hosts = sorted({*(one for one in HOSTS if one <= max(8, 2 * fleet.hosts)), fleet.hosts})
        yield (
            "hosts",
            self._points(
                ((one, str(one), replace(fleet, hosts=one), None) for one in hosts), fleet.hosts
            ),
        )
        rates = self.uplinks()[:: math.ceil(len(self.uplinks()) / 8)]
        uplinks = sorted({*rates, fleet.uplink_bps})
        yield (
            "uplink",
            self._points(
                ((one, say_rate(one), replace(fleet, uplink_bps=one), None) for one in uplinks),
                fleet.uplink_bps,
            ),
        )
        flow = self.planner.escalating
        if limits := self.thresholds():
            yield (
                "threshold",
                self._points(
                    ((one, f"{one:.3g}", fleet, one) for one in limits),
                    flow.threshold if isinstance(flow, Traced) else None,
                ),
            )
        speeds = [fleet.fps * times for times in (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)]
        most = min(MOST["fps"], MOST_FRAMES_PER_S / fleet.cameras)
        speeds = [one for one in speeds if LEAST_FPS <= one <= most or one == fleet.fps]
        yield (
            "frames a second",
            self._points(
                ((one, f"{one:.3g}", replace(fleet, fps=one), None) for one in speeds),
                fleet.fps,
            ),
        )

    def _points(
        self,
        fleets: Iterable[tuple[float, str, Fleet, float | None]],
        now: float | None,
    ) -> list[CurvePoint]:
        return [
            CurvePoint(x, label, self._at(fleet, limit), x == now)
            for x, label, fleet, limit in fleets
        ]


def _keeps(
    found: float | None, what: str, most: float, write: Callable[[float], str] = "{:g}".format
) -> str:
    if found is None:
        many = "number of hosts" if what == "hosts" else what
        return f"no {many} up to {write(most)} keeps them, all else as it is"
    if what == "hosts":
        return f"{write(found)} {'host keeps' if found == 1 else 'hosts keep'} them"
    return f"an {what} of {write(found)} keeps them"
