"""What `tinysaver-edge run` says at the end: rates, what is left of the promise, hosts, losses."""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tinysaver_edge._support import numbers
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.event_lines import degraded, left_out
from tinysaver_edge.decision import Decision, Likeness, Reason
from tinysaver_edge.stream.drift.drift import DriftWatch
from tinysaver_edge.stream.service import Service
from tinysaver_edge.stream.telemetry.metrics import Counter

if TYPE_CHECKING:
    from tinysaver_edge.engines.remote.engine import RemoteEngine
    from tinysaver_edge.reuse import ReuseRule


class Doubts:
    """Tells at the start why decisions are not certified, and later whenever that changes."""

    def __init__(self, cascade: Cascade, reuse: ReuseRule | None = None) -> None:
        self._cascade, self._reuse = cascade, reuse
        self._told: str | None = None

    def about(self, cascade: Cascade, reuse: ReuseRule | None) -> None:
        """Another makes the decisions from now on."""
        self._cascade, self._reuse = cascade, reuse

    def tell(self) -> None:
        """Write what has changed to stderr, if anything has."""
        doubt = self._cascade.doubt_of(self._reuse)
        if doubt == self._told:
            return
        if doubt is None:
            terminal.say(
                "decisions are certified from here on: its hosts tell the calibrated model"
            )
        else:
            terminal.warn([f"decisions are not certified: {doubt}"])
        self._told = doubt


class Rates:
    """Counts frames while their decisions pass."""

    def __init__(self, *, asks: bool, models: Sequence[str]) -> None:
        self._settled = Counts(dict.fromkeys(models, 0))
        self._escalated = "escalated" if asks else "not accepted, and nobody asked"
        self.frames = 0
        self.escalated = 0
        self.degraded = 0
        self.alike = dict.fromkeys(Likeness, 0)
        self.started_s = time.monotonic()

    def counting(self, decisions: Iterator[Decision]) -> Iterator[Decision]:
        """Pass decisions on."""
        self.started_s = time.monotonic()  # loading the models is not part of the rate
        for decision in decisions:
            if not decision.revision:
                self.frames += 1
                self.escalated += decision.escalated
                self._settled[decision.stage.model] += 1
                if decision.reused is not None:
                    self.alike[decision.reused.alike] += 1
            self.degraded += decision.reason not in (None, Reason.PROVISIONAL)
            yield decision

    @property
    def _repeated(self) -> str:
        """What was found for earlier frames, and what the saver answered; nothing if none was."""
        still, same = (self.alike[one] / self.frames for one in Likeness)
        if not still + same:
            return ""
        saver = max(0.0, 1 - still - same - self.escalated / self.frames)
        return (
            f"{numbers.percent(still)} still, {numbers.percent(same)} same, "
            f"{numbers.percent(saver)} the saver's, "
        )

    def show(self) -> None:
        """Write the sums to stderr."""
        if self.frames:
            spent_s = time.monotonic() - self.started_s
            terminal.say(
                f"{self.frames} frames, {self._repeated}"
                f"{numbers.percent(self.escalated / self.frames)} "
                f"{self._escalated}, {numbers.rate(self.frames / spent_s)}"
                f"{f', {self.degraded} answers degraded' if self.degraded else ''}"
            )
            if len(self._settled) > 2:
                each = self._settled.items()
                terminal.say(
                    "first answers of "
                    + ", ".join(f"{name} {numbers.percent(of / self.frames)}" for name, of in each)
                )


def show_traffic(engine: RemoteEngine | None) -> None:
    """Write what went to the hosts of the large model to stderr, where there are any."""
    if engine is None:
        return
    traffic = engine.traffic
    failures = ", ".join(f"{count} {kind}" for kind, count in traffic.failures.items())
    sent = f"{traffic.sent_bytes / 1e6:.2f} MB sent{f' as {engine.codec}' if engine.codec else ''}"
    terminal.say(
        f"{engine.device}: {engine.identity or 'never reached'}; {traffic.answered} of "
        f"{traffic.requests} requests answered, {traffic.retries} retries, "
        f"{sent}{f'; failed: {failures}' if failures else ''}"
    )
    for host in engine.hosts:
        if host.reconnects or len(engine.hosts) > 1:
            terminal.say(
                f"{host.name}: {host.state.value}, {host.answered} answers of "
                f"{host.latency_ms:.1f} ms, came back {host.reconnects} times"
            )


def show_kept(around: Service) -> None:
    """Write to stderr what is left of the bundle's promise, where there is something to say."""
    kept, promise = around.kept, around.promise
    if kept is None or (promise.certified_points is None and not kept.fallback_share):
        return
    parts = []
    if kept.effective_drop_points is not None and not kept.certified_share:
        parts.append("no answer certified")
    elif kept.effective_drop_points is not None:
        parts.append(
            f"drop at most {kept.effective_drop_points:.2f} points "
            f"(certified {promise.certified_points:g}), {numbers.percent(kept.certified_share)} "
            f"of the answers certified{_resting_on(around)}"
        )
    if kept.fallback_share:
        said = f"{numbers.percent(kept.fallback_share)} the saver's for want of the large model"
        if kept.expected_low_points is not None and kept.expected_high_points is not None:
            low, high = kept.expected_low_points, kept.expected_high_points
            said += f", a drop between {low:.2f} and {high:.2f} points expected"
        parts.append(said)
    terminal.say("; ".join(parts))


def show_forwarded(around: Service) -> None:
    """Write to stderr what became of the frames that were to be sent on, where any were."""
    if around.forwarding is None:
        return
    counts, waiting = around.forwarding.counts, around.forwarding.waiting
    terminal.say(
        f"sent on: {counts.sent} of {counts.found + counts.queued} frames, {waiting} wait, "
        f"{counts.dropped} dropped for want of room, {counts.aside} set aside"
    )


def _resting_on(around: Service) -> str:
    """Say what a bound rests on, and how far anything has looked whether it is so."""
    escalated, looked = around.promise.escalated_share, "which no drift watch checked"
    of_them = f", of which {numbers.percent(escalated)} were escalated" if escalated else ""
    if isinstance(around.watch, DriftWatch):
        audited = around.watch.state.audited
        looked = f"which the drift watch checked on {audited:,} frame{'' if audited == 1 else 's'}"
    return f", if the frames are like those calibrated on{of_them}, {looked}"


def losses(around: Service) -> list[str]:
    """Say what the sinks did not take: a file that lacks decisions must not look whole."""
    return [
        f"sink {sink.name}: {lost} decisions {what}"
        for sink in around.sinks
        for counter, what in (
            (Counter.SINK_DROPPED, "dropped, because it was too slow"),
            (Counter.SINK_FAILED, "could not be written"),
        )
        if (lost := around.tally.total(counter, detail=sink.name))
    ]


def show_end(tally: Rates, around: Service, source_ids: Sequence[str]) -> None:
    """Write the sums of a stream that has ended to stderr."""
    tally.show()
    show_kept(around)
    show_forwarded(around)
    for line in [*degraded(around.tally), *left_out(around.tally, source_ids)]:
        terminal.say(line)
    terminal.warn(losses(around))
