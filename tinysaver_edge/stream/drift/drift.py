"""Drift watch: audits a few accepted frames and raises an alarm when too many answers differ."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.drift.drift_options import (
    DEFAULT_DRIFT,
    Action,
    DriftOptions,
    DriftState,
)
from tinysaver_edge.stream.drift.evidence import Evidence
from tinysaver_edge.stream.sources.frame import Frame
from tinysaver_edge.stream.telemetry.events import Drift, Listener, ignore
from tinysaver_edge.stream.telemetry.metrics import NO_METRICS, Counter, Gauge, Metrics

if TYPE_CHECKING:
    from tinysaver_edge.bundle.manifest import DisagreementEntry, Manifest


class DriftWatch:
    """Watches whether accepted answers differ from the large model's more often than calibrated.

    A `Watch`. Half of the level pays for not knowing the calibrated rate exactly: what is tested is
    its Clopper-Pearson upper bound at that risk, over all thresholds there were to choose from. The
    other half is for the e-process. With several sources each has its own evidence and an equal
    part of that half, so that one dirty lens is not hidden by three clean ones; the answer to an
    alarm is the same for all of them. An alarm stays until the program is started anew: with
    another field, calibrate again.

    What it rests on: audited frames are drawn at random, and each differs with at most the
    calibrated probability, whatever came before. One long scene that is hard is drift, too.

    Args:
        promised: what the bundle says; see `calibrated_disagreement`.
        options: share, level, action, seed.
        sources: how many there are. The names that come first get evidence of their own; what
            comes from any others is taken together.
        listener: hears of alarms.
        metrics: counts audits, disagreements and alarms.
        clock: seconds, for the events.
        keep: takes audited frames, to be saved; it must return at once.
    """

    def __init__(
        self,
        promised: DisagreementEntry,
        options: DriftOptions = DEFAULT_DRIFT,
        *,
        clock: Callable[[], float],
        sources: int = 1,
        listener: Listener = ignore,
        metrics: Metrics = NO_METRICS,
        keep: Callable[[Decision, Decision, Frame], None] | None = None,
    ) -> None:
        self.options = options
        self.promised = promised.tested(options.level)
        self._stricter = tuple(promised.stricter)
        self._own = sources if sources > 1 else 0
        self._names: set[str] = set()
        self._alarm_at = 2 * (self._own + 1) / options.level  # one for all the others
        self._random = np.random.default_rng(options.seed)
        self._clock = clock
        self._listener = listener
        self._metrics = metrics
        self._keep = keep
        self._lock = threading.Lock()
        self._evidence: dict[str, Evidence] = {}
        self._alarmed: set[str] = set()
        self._rung = -1
        self._threshold: float | None = None
        self._accepting = True
        self._audited = self._disagreed = self._alarms = 0
        self._last_alarm: str | None = None

    @property
    def wants_frames(self) -> bool:
        """Whether audited frames are kept."""
        return self._keep is not None

    @property
    def vouches(self) -> bool:
        """Whether there was no alarm."""
        return self._alarms == 0

    @property
    def state(self) -> DriftState:
        """What it has seen so far."""
        with self._lock:
            highest = max((one.value for one in self._evidence.values()), default=1.0)
            return DriftState(
                self._audited,
                self._disagreed,
                self.promised,
                highest / self._alarm_at,
                self._alarms,
                self._threshold,
                self._accepting,
                self._last_alarm,
            )

    def accepts(self, score: float, threshold: float) -> bool:
        """Whether the score reaches the bundle's threshold and the stricter one, if any."""
        stricter = self._threshold
        return self._accepting and score >= threshold and (stricter is None or score >= stricter)

    def audits(self, decision: Decision) -> bool:
        """Draw whether this accepted frame is audited."""
        return bool(self._random.random() < self.options.share)

    def audited(self, accepted: Decision, large: Decision, frame: Frame | None) -> None:
        """Compare two answers, and raise the alarm when the evidence is enough."""
        source_id = accepted.frame_id.source_id
        differs = accepted.index != large.index
        if self._threshold is not None and accepted.score < self._threshold:
            return  # accepted before the threshold was raised
        with self._lock:
            if len(self._names) < self._own:
                self._names.add(source_id)
            alarm = self._add(source_id if source_id in self._names else "", differs)
        self._metrics.count(Counter.AUDITED, source_id)
        if differs:
            self._metrics.count(Counter.DISAGREED, source_id)
        self._metrics.gauge(Gauge.DRIFT_EVIDENCE, "", self.state.evidence)
        if alarm is not None:
            self._metrics.count(Counter.DRIFT, source_id, detail=self.options.action.value)
            self._listener(alarm)
        if self._keep is not None and frame is not None:
            self._keep(accepted, large, frame)

    def _add(self, name: str, differs: bool) -> Drift | None:
        """Bet once; return the alarm, if this was the one that raised it."""
        evidence = self._evidence.setdefault(name, Evidence(self.promised))
        evidence.add(differs)
        self._audited += 1
        self._disagreed += differs
        # Where it only warns, the other sources may still tell, but each only once.
        if evidence.value < self._alarm_at or name in self._alarmed:
            return None
        self._alarmed.add(name)
        self._alarms += 1
        of = f" of {name}" if name else ""
        self._last_alarm = f"{evidence.events} of {evidence.observed} audited answers{of} differed"
        return Drift(
            source_id=name,
            time_s=self._clock(),
            audited=evidence.observed,
            disagreed=evidence.events,
            evidence=evidence.value,
            alarm_at=self._alarm_at,
            level=self.options.level,
            action=self._act(),
        )

    def _act(self) -> str:
        """Become stricter; what was seen at the former threshold says nothing about the new."""
        if self.options.action is Action.WARN:
            return "only warns"
        self._rung += 1
        if self.options.action is Action.RAISE and self._rung < len(self._stricter):
            self._threshold = self._stricter[self._rung]
            self._evidence.clear()
            self._alarmed.clear()
            return f"threshold raised to {self._threshold:.6g}"
        self._accepting = False
        return "every frame is escalated"


def calibrated_disagreement(manifest: Manifest) -> DisagreementEntry:
    """Return what a bundle says of how often answers differed: what a `DriftWatch` tests.

    Raises:
        InputError: the bundle does not say it, or accepts nothing.
    """
    if manifest.disagreement is not None:
        return manifest.disagreement
    first = manifest.stages[0]
    if len(manifest.stages) == 1 or first.threshold is None or math.isinf(first.threshold):
        raise InputError("the bundle accepts no answer of a saver: there is nothing to audit")
    raise InputError(
        "the bundle does not say how often accepted answers differed from the large model's: "
        "calibrate it again with this release, or turn the drift watch off"
    )
