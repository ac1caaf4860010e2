"""Figures: what a policy does on labelled samples: accuracy, drop, accept rate and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.certificate import (
    EvidenceKind,
    WalkStep,
    least_certifiable_points,
    runs_of,
    upper_rates,
)
from tinysaver_edge.deciding.epochs import EpochTimeline, reused
from tinysaver_edge.deciding.policy import Policy, Replay, replay
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.questions.known import Known
from tinysaver_edge.reuse import ReuseRule

CONFIDENCE = 0.95
"""Of every interval here."""

EXACT_FROM = 500
"""Samples from which the certificate's test tells more than bounds on two rates."""


@dataclass(frozen=True, slots=True)
class ReuseFigures:
    """Who answered the frames of epochs, and what reusing answers cost and saved.

    Attributes:
        epochs: how many.
        still: share of the frames that no model was asked about.
        same: share that only the first model was, an earlier escalation's answer being kept.
        saver: share that a model before the large one settled.
        large: share that the large model was asked about.
        drop_points_without: points that the same cascade loses where nothing is reused.
        cost_macs_ratio_without: what it then costs.
    """

    epochs: int
    still: float
    same: float
    saver: float
    large: float
    drop_points_without: float
    cost_macs_ratio_without: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a cascade on one set of samples.

    Attributes:
        samples: how many.
        accuracy_saver: share that the first stage's model gets right, alone; None where only
            questions were answered.
        accuracy_large: share that the last stage's model gets right, alone; likewise.
        accuracy_cascade: share that the cascade gets right; likewise.
        drop_points: ``100 * (accuracy_large - accuracy_cascade)``; negative for a gain. Where
            questions are open, what is not known counts as lost.
        accept_rate: share that was not escalated past the first stage, what was reused included.
        cost_macs_ratio: expected MACs a frame, relative to the large model on every frame; None
            where a model's MACs are not known.
        drop_interval_points: 95 % interval of the drop on whatever the samples were drawn from;
            None where they are not independent of each other.
        saver_drop_interval_points: the same of the drop of the first stage's model alone.
        settled: share of the samples that each stage's answer ended, first to last.
        reuse: of frames of epochs, within which answers were reused; None where nothing was.
    """

    samples: int
    accuracy_saver: float | None
    accuracy_large: float | None
    accuracy_cascade: float | None
    drop_points: float
    accept_rate: float
    cost_macs_ratio: float | None
    drop_interval_points: tuple[float, float] | None = None
    saver_drop_interval_points: tuple[float, float] | None = None
    settled: tuple[float, ...] | None = None
    reuse: ReuseFigures | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values for JSON."""
        return asdict(self)


def figures(
    policy: Policy,
    outputs: Sequence[Outputs],
    labels: NDArray[np.int64] | Known,
    *,
    grouped: bool = False,
    timeline: EpochTimeline | None = None,
    reuse: ReuseRule | None = None,
) -> Figures:
    """Measure a policy on recorded answers.

    Args:
        policy: the stages.
        outputs: each stage's answers on the same n samples.
        labels: ``(n,)`` the true classes, or what answers to questions tell of them.
        grouped: whether some samples belong together, as the frames of a clip do.
        timeline: where they are frames of epochs.
        reuse: what is reused within each.

    Raises:
        InputError: outputs and stages do not match.
    """
    alone = replayed = replay(policy, outputs)
    if timeline is not None and reuse is not None:
        first = alone.stage == 0 if policy.asked[0] == 0 else np.zeros(len(alone.stage), bool)
        replayed = reused(reuse, timeline, outputs[0], first).applied(alone)
    if isinstance(labels, Known):
        return _from_answers(policy, outputs, replayed, labels, grouped=grouped)
    samples = len(labels)
    correct = [one.predictions == labels for one in (outputs[0], outputs[-1], replayed)]
    saver, large, cascade = (int(one.sum()) for one in correct)
    intervals = [
        _interval(correct[1], after, grouped=grouped, timeline=timeline)
        for after in (correct[2], correct[0])
    ]
    return Figures(
        samples=samples,
        accuracy_saver=saver / samples,
        accuracy_large=large / samples,
        accuracy_cascade=cascade / samples,
        # Of counts, so that a bound that is a whole number of samples is met exactly.
        drop_points=100 * (large - cascade) / samples,
        accept_rate=_accept_rate(policy, replayed),
        cost_macs_ratio=cost_ratio(policy, replayed),
        drop_interval_points=intervals[0],
        saver_drop_interval_points=intervals[1],
        settled=tuple(
            float((replayed.stage == position).mean()) for position in range(len(outputs))
        ),
        reuse=None
        if timeline is None or reuse is None
        else _reuse_figures(policy, timeline, alone, replayed, labels, large_right=large),
    )


def _reuse_figures(
    policy: Policy,
    timeline: EpochTimeline,
    alone: Replay,
    replayed: Replay,
    labels: NDArray[np.int64],
    *,
    large_right: int,
) -> ReuseFigures:
    last, samples = len(policy.stages) - 1, len(labels)
    fresh = replayed.stage >= 1
    same = (replayed.stage == 0) & (alone.stage > 0)
    asked = fresh & (alone.stage == last)
    still = replayed.stage < 0
    right = int((alone.predictions == labels).sum())
    return ReuseFigures(
        epochs=timeline.epochs,
        still=float(still.mean()),
        same=float(same.mean()),
        saver=float((~(still | same | asked)).mean()),
        large=float(asked.mean()),
        drop_points_without=100 * (large_right - right) / samples,
        cost_macs_ratio_without=cost_ratio(policy, alone),
    )


def _interval(
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    *,
    grouped: bool,
    timeline: EpochTimeline | None,
) -> tuple[float, float] | None:
    """Return the 95 % interval of the points lost; None where samples belong together."""
    if timeline is not None:
        return epoch_drop_interval(timeline.by_epoch(before.astype(np.int64) - after))
    return None if grouped else drop_interval(before, after)


def epoch_drop_interval(losses: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the 95 % interval of the points lost on epochs like these, None without any.

    Of the certificate's own test, both ways.

    Args:
        losses: ``(epochs,)``, each one's mean loss.
    """
    if not len(losses):
        return None
    # By an order that is drawn: by time, or by name, one epoch might tell of the next.
    drawn = losses[np.random.default_rng(0).permutation(len(losses))]
    most = [
        least_certifiable_points(
            WalkStep(0.0, 0, 0, 0, group_losses=runs_of(one)),
            evidence=EvidenceKind.EPOCHS,
            samples=len(losses),
            risk=(1 - CONFIDENCE) / 2,
        )
        for one in (-drawn, drawn)
    ]
    return (-most[0], most[1])


def _from_answers(
    policy: Policy, outputs: Sequence[Outputs], replayed: Replay, known: Known, *, grouped: bool
) -> Figures:
    """Measure what can be told where people were asked only where answers differ."""
    answers, large = replayed.predictions, outputs[-1].predictions
    losses = known.losses(answers, large)
    exact = not grouped and not known.open(answers, large).any()
    return Figures(
        samples=known.samples,
        accuracy_saver=None,
        accuracy_large=None,
        accuracy_cascade=None,
        drop_points=100 * float(losses.sum()) / known.samples,
        accept_rate=_accept_rate(policy, replayed),
        cost_macs_ratio=cost_ratio(policy, replayed),
        drop_interval_points=drop_interval(losses == 1, losses == -1) if exact else None,
        settled=tuple(
            float((replayed.stage == position).mean()) for position in range(len(outputs))
        ),
    )


def drop_interval(
    before: NDArray[np.bool_], after: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """Return the 95 % interval of the points of accuracy lost, None where there are no samples.

    From few samples it is made of exact bounds on how often each alone is right, from more of the
    certificate's own test, both ways; which of the two, the number of samples decides.

    Args:
        before: ``(n,)`` where the one is right, samples independent of each other.
        after: ``(n,)`` where the other is.
    """
    n, risk = len(before), 1 - CONFIDENCE
    if not n:
        return None
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    if n >= EXACT_FROM:
        both = (WalkStep(0.0, 0, lost, gained), WalkStep(0.0, 0, gained, lost))
        most = [
            least_certifiable_points(one, evidence=EvidenceKind.LABELS, samples=n, risk=risk / 2)
            for one in both
        ]
        return (-most[1], most[0])
    high = upper_rates([lost, gained], n, risk=risk / 4)
    low = 1 - upper_rates([n - lost, n - gained], n, risk=risk / 4)
    return (100 * float(low[0] - high[1]), 100 * float(high[0] - low[1]))


def _accept_rate(policy: Policy, replayed: Replay) -> float:
    if len(policy.stages) > 1 and policy.asked[0] != 0:
        return 0.0
    return float((replayed.stage <= 0).mean())


def cost_ratio(policy: Policy, replayed: Replay) -> float | None:
    """Return expected MACs a frame relative to the large model on every frame.

    A stage that never accepts is not asked and costs nothing.
    """
    macs = [policy.stages[position].macs for position in policy.asked]
    large = policy.stages[-1].macs
    if large is None or any(one is None for one in macs):
        return None
    total = sum(
        cost * float((replayed.stage >= position).mean())
        for position, cost in zip(policy.asked, macs, strict=True)
        if cost is not None
    )
    return total / large
