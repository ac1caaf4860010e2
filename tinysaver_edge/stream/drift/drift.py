"""Drift watch: audits a few accepted frames and raises an alarm when too many answers differ.

The evidence is an e-process: valid whenever one looks at it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sources.source import Frame
from tinysaver_edge.stream.telemetry.events import Drift, Listener, ignore
from tinysaver_edge.stream.telemetry.metrics import NO_METRICS, Counter, Gauge, Metrics

if TYPE_CHECKING:
    from tinysaver_edge.bundle.manifest import DisagreementEntry, Manifest
    from tinysaver_edge.reuse import ReuseRule

GAPS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""Alternatives that are bet on: the rate plus so much of what is missing to 1."""

LARGEST = 1e300
"""Where the evidence stops growing, short of what a float holds."""


class Evidence:
    """A bettor's wealth against "the rate is at most r"; whoever starts with 1 cannot get rich.

    At each observation x in {0, 1} a stake on the alternative q > r is multiplied by
    ``(q/r)^x ((1-q)/(1-r))^(1-x)``. While the rate is at most r, given all that came before, no
    stake gains on average, so that the wealth is a nonnegative supermartingale and the probability
    that it *ever* reaches 1/α is at most α (Ville; Ramdas et al., arXiv 2210.01948).

    Not all is staked at once: a field that changes after a quiet year would find a bettor who had
    lost everything. After k observations ``1 / (1 + ln(1+k))`` is still in reserve; what leaves it
    is staked, in equal parts, on the alternatives. A change after k observations is thus found as
    one at the start would be, but for ``ln k + 2 ln(1 + ln k)`` nats of evidence more (as in the
    mixtures over starting times of Shin, Ramdas and Rinaldo's e-detectors, arXiv 2203.03532).

    Attributes:
        observed: how many observations there were.
        events: how many of them were 1.

    Args:
        rate: r, within 0..1; at 0 or 1 it is moved inside by 1e-9.

    Raises:
        InputError: the rate is not within 0..1.
    """

    def __init__(self, rate: float) -> None:
        if not 0 <= rate <= 1:
            raise InputError(f"rate {rate}: must be within 0..1")
        r = min(max(rate, 1e-9), 1 - 1e-9)
        alternatives = [r + (1 - r) * gap for gap in GAPS]
        self._gain = [q / r for q in alternatives]
        self._loss = [(1 - q) / (1 - r) for q in alternatives]
        self._stakes = [0.0] * len(alternatives)
        self.observed = 0
        self.events = 0

    @property
    def value(self) -> float:
        """The wealth; 1 before the first observation."""
        return min(LARGEST, sum(self._stakes) + _reserve(self.observed))

    def add(self, event: bool) -> None:
        """Take in one observation."""
        more = (_reserve(self.observed) - _reserve(self.observed + 1)) / len(self._stakes)
        factors = self._gain if event else self._loss
        self._stakes = [
            min(LARGEST, (stake + more) * factor)
            for stake, factor in zip(self._stakes, factors, strict=True)
        ]
        self.observed += 1
        self.events += event


def _reserve(observed: int) -> float:
    return 1 / (1 + math.log1p(observed))


class Action(str, Enum):
    """What an alarm leads to.

    Attributes:
        WARN: nothing but the event and the metric.
        RAISE: the next stricter threshold of the bundle, at each alarm; after the last, ESCALATE.
            No earlier answer is repeated any more.
        ESCALATE: the saver accepts nothing any more, and no earlier answer is repeated.
    """

    WARN = "warn"
    RAISE = "raise"
    ESCALATE = "escalate"


@dataclass(frozen=True, slots=True)
class DriftOptions:
    """How to watch.

    Attributes:
        share: of the accepted frames that are audited, 0..1.
        level: bound on the probability that an alarm is ever raised while the field is as it was
            calibrated.
        action: what an alarm leads to.
        seed: decides which frames are audited.

    Raises:
        InputError: share or level is out of range.
    """

    share: float = 0.01
    level: float = 0.05
    action: Action = Action.RAISE
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"audit share {self.share}: must be above 0 and at most 1")
        if not 0 < self.level < 1:
            raise InputError(f"drift level {self.level}: must be within 0..1")


DEFAULT_DRIFT = DriftOptions()


@dataclass(frozen=True, slots=True)
class DriftState:
    """What a drift watch has seen of its sources together.

    Attributes:
        audited: frames that were audited.
        disagreed: how many of them the large model answered otherwise.
        promised: rate of disagreement that is tested against, 0..1.
        evidence: largest value of the e-processes, relative to the alarm: 1 is the alarm.
        alarms: how many were raised.
        threshold: the stricter threshold in force; None while it is the bundle's own.
        accepting: whether the saver may still accept anything.
        last_alarm: what raised the last alarm, in words; None while there was none. The sums above
            are of all sources, and of all that was audited since.
    """

    audited: int
    disagreed: int
    promised: float
    evidence: float
    alarms: int
    threshold: float | None
    accepting: bool
    last_alarm: str | None = None


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
        repeated: whether what is promised is of repeated answers, too; else none of them is
            audited, as there is nothing to hold them against.
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
        repeated: bool = False,
    ) -> None:
        self.options = options
        self._repeated = repeated
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
    def repeats(self) -> bool:
        """Whether there was no alarm that leads to more than a warning."""
        return self._alarms == 0 or self.options.action is Action.WARN

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

    def in_force(self, threshold: float) -> float:
        """Return the bundle's threshold or the stricter one; infinity where nothing is accepted."""
        if not self._accepting:
            return math.inf
        return threshold if self._threshold is None else max(threshold, self._threshold)

    def audits(self, decision: Decision) -> bool:
        """Draw whether this frame is audited."""
        if decision.reused is not None and not self._repeated:
            return False
        return bool(self._random.random() < self.options.share)

    def audited(self, accepted: Decision, large: Decision, frame: Frame | None) -> None:
        """Compare two answers, and raise the alarm when the evidence is enough."""
        source_id = accepted.frame_id.source_id
        differs = accepted.index != large.index
        repeated, first = accepted.reused is not None, accepted.stage.index == 0
        if self._threshold is not None and (
            repeated or (first and accepted.score < self._threshold)
        ):
            return  # given out before the threshold was raised; later stages' scores nobody keeps
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


def calibrated_disagreement(
    manifest: Manifest, reuse: ReuseRule | None = None
) -> DisagreementEntry:
    """Return what a bundle says of how often answers differed: what a `DriftWatch` tests.

    Args:
        manifest: of the bundle.
        reuse: when earlier answers are repeated; None where none is.

    Raises:
        InputError: the bundle does not say it, or accepts nothing.
    """
    if counts_repeated(manifest, reuse) and manifest.reuse is not None:
        assert manifest.reuse.disagreement is not None
        return manifest.reuse.disagreement
    if manifest.disagreement is not None:
        return manifest.disagreement
    first = manifest.stages[0]
    if len(manifest.stages) == 1 or first.threshold is None or math.isinf(first.threshold):
        raise InputError("the bundle accepts no answer of a saver: there is nothing to audit")
    raise InputError(
        "the bundle does not say how often accepted answers differed from the large model's: "
        "calibrate it again with this release, or turn the drift watch off"
    )


def counts_repeated(manifest: Manifest, reuse: ReuseRule | None) -> bool:
    """Whether what a bundle says of answers that differed counts those repeated by a rule."""
    told = manifest.reuse
    return told is not None and told.rule == reuse and told.disagreement is not None
