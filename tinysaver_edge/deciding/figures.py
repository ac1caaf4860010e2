"""Figures: what a policy does on labelled samples: accuracy, drop, accept rate and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.numbers import percent
from tinysaver_edge.certificate.certificate import WalkStep, least_certifiable_points, runs_of
from tinysaver_edge.certificate.p_values import EvidenceKind, upper_rates
from tinysaver_edge.deciding.epochs import EpochTimeline, reused
from tinysaver_edge.deciding.policy import Policy, Replay, replay
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.questions.known import Known
from tinysaver_edge.reuse import ReuseRule

if TYPE_CHECKING:
    from tinysaver_edge.bundle.manifest import FiguresEntry

CONFIDENCE = 0.95
"""Of every interval here."""

EXACT_FROM = 500
"""Samples from which the certificate's test tells more than bounds on two rates."""

MOST_DIFFERING = 0.6
"""Share of samples on which the two differ, beyond which that test tells nothing."""


@dataclass(frozen=True, slots=True)
class ReuseFigures:
    """Who answered the frames of epochs, and what reusing answers cost and saved.

    Attributes:
        epochs: how many.
        still: share of the frames that no model was asked about.
        same: share that only the first model was, an earlier escalation's answer being kept.
        saver: share that a model before the large one settled.
        large: share that the large model was asked about.
        drop_points_without: points that the same cascade loses where nothing is reused; None where
            only questions were answered.
        cost_macs_ratio_without: what it then costs.
    """

    epochs: int
    still: float
    same: float
    saver: float
    large: float
    drop_points_without: float | None
    cost_macs_ratio_without: float | None

    def saved(self, kappa: float) -> dict[str, float]:
        """Return where the large model's work on all frames is saved, as shares of it.

        What is left of 1 is the cost; where the large model is asked, the saver was in vain.

        Args:
            kappa: what the first of two models costs, where the large one costs 1.
        """
        return {
            "still": self.still,
            "same": (1 - kappa) * self.same,
            "saver": (1 - kappa) * self.saver,
            "large": -kappa * self.large,
        }


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
        accept_rate: share that a stage before the last one settled, what was reused included.
        cost_macs_ratio: expected MACs a frame, relative to the large model on every frame; None
            where a model's MACs are not known.
        drop_interval_points: 95 % interval of the drop on whatever the samples were drawn from;
            None where they are not independent of each other.
        saver_drop_interval_points: the same of the drop of the first stage's model alone; of more
            than two stages, of what all but the last say.
        settled: share of the samples that each stage's answer ended, first to last.
        reuse: of frames of epochs, within which answers were reused; None where nothing was.
        accuracy_local: share that would be right were the last stage never asked; None in bundles
            of older releases.
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
    accuracy_local: float | None = None

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
        found = _from_answers(policy, outputs, replayed, labels, grouped=grouped, timeline=timeline)
        if timeline is None or reuse is None:
            return found
        return replace(found, reuse=_reuse_figures(policy, timeline, alone, replayed))
    samples = len(labels)
    # What no model was asked about counts with the first stage.
    ends = np.maximum(replayed.stage, 0)
    settled = tuple(float((ends == position).mean()) for position in range(len(outputs)))
    local = without_large(policy, outputs)
    correct = [one == labels for one in (outputs[-1].predictions, replayed.predictions, local)]
    large, cascade, without = (int(one.sum()) for one in correct)
    saver = int((outputs[0].predictions == labels).sum())
    intervals = [
        _interval(correct[0], after, grouped=grouped, timeline=timeline) for after in correct[1:]
    ]
    return Figures(
        samples=samples,
        accuracy_saver=saver / samples,
        accuracy_large=large / samples,
        accuracy_cascade=cascade / samples,
        # Of counts, so that a bound that is a whole number of samples is met exactly.
        drop_points=100 * (large - cascade) / samples,
        accept_rate=_accept_rate(policy, replayed),
        cost_macs_ratio=cost_ratio(policy, settled, still=float((replayed.stage < 0).mean())),
        drop_interval_points=intervals[0],
        saver_drop_interval_points=intervals[1],
        settled=settled,
        accuracy_local=without / samples,
        reuse=None
        if timeline is None or reuse is None
        else replace(
            _reuse_figures(policy, timeline, alone, replayed),
            drop_points_without=100 * (large - int((alone.predictions == labels).sum())) / samples,
        ),
    )


def _reuse_figures(
    policy: Policy, timeline: EpochTimeline, alone: Replay, replayed: Replay
) -> ReuseFigures:
    """Tell who answered; what is right has no part in it."""
    last = len(policy.stages) - 1
    fresh = replayed.stage >= 1
    same = (replayed.stage == 0) & (alone.stage > 0)
    asked = fresh & (alone.stage == last)
    still = replayed.stage < 0
    return ReuseFigures(
        epochs=timeline.epochs,
        still=float(still.mean()),
        same=float(same.mean()),
        saver=float((~(still | same | asked)).mean()),
        large=float(asked.mean()),
        drop_points_without=None,
        cost_macs_ratio_without=cost_ratio(
            policy, [float((alone.stage == position).mean()) for position in range(last + 1)]
        ),
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
    policy: Policy,
    outputs: Sequence[Outputs],
    replayed: Replay,
    known: Known,
    *,
    grouped: bool,
    timeline: EpochTimeline | None,
) -> Figures:
    """Measure what can be told where people were asked only where answers differ."""
    answers, large = replayed.predictions, outputs[-1].predictions
    losses = known.losses(answers, large)
    # What no model was asked about counts with the first stage.
    ends = np.maximum(replayed.stage, 0)
    settled = tuple(float((ends == position).mean()) for position in range(len(outputs)))
    interval = None
    if not known.open(answers, large).any():
        interval = _interval(losses == 1, losses == -1, grouped=grouped, timeline=timeline)
    return Figures(
        samples=known.samples,
        accuracy_saver=None,
        accuracy_large=None,
        accuracy_cascade=None,
        drop_points=100 * float(losses.sum()) / known.samples,
        accept_rate=_accept_rate(policy, replayed),
        cost_macs_ratio=cost_ratio(policy, settled, still=float((replayed.stage < 0).mean())),
        drop_interval_points=interval,
        settled=settled,
    )


def without_large(policy: Policy, outputs: Sequence[Outputs]) -> NDArray[np.int64]:
    """Return what a cascade answers where its last stage is never asked, ``(n,)``.

    What of two stages the saver says; where none before the last is asked at all, too.
    """
    if len(policy.asked) <= 2:
        return outputs[policy.asked[0] if len(policy.asked) == 2 else 0].predictions
    last = policy.asked[-2]
    stages = policy.stages[: last + 1]
    pool = None if policy.pool is None else policy.pool[:last]
    return replay(Policy(stages, pool=pool), outputs[: last + 1]).predictions


def drop_interval(
    before: NDArray[np.bool_], after: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """Return the 95 % interval of the points of accuracy lost, None where there are no samples.

    From few samples, or where the two hardly ever agree, it is made of exact bounds on how often
    each alone is right, else of the certificate's own test, both ways.

    Args:
        before: ``(n,)`` where the one is right, samples independent of each other.
        after: ``(n,)`` where the other is.
    """
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    return interval_of(lost, gained, len(before))


def interval_of(lost: int, gained: int, n: int) -> tuple[float, float] | None:
    """Return the same from the counts.

    Args:
        lost: samples that only the one gets right.
        gained: those that only the other does.
        n: all samples.
    """
    risk = 1 - CONFIDENCE
    if not n:
        return None
    if n >= EXACT_FROM and lost + gained <= MOST_DIFFERING * n:
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
    last = len(policy.stages) - 1
    return float((replayed.stage < last).mean()) if last else 1.0


def cost_ratio(policy: Policy, settled: Sequence[float], *, still: float = 0.0) -> float | None:
    """Return expected MACs a frame relative to the large model on every frame.

    A stage that never accepts is not asked and costs nothing.

    Args:
        policy: the stages.
        settled: share of the samples that each stage's answer ended, first to last.
        still: share that no stage was asked about, of those that the first one's ended.
    """
    macs = [policy.stages[position].macs for position in policy.asked]
    large = policy.stages[-1].macs
    if not large or any(one is None for one in macs):
        return None
    total = sum(
        cost * (1.0 - (sum(settled[:position]) if position else still))
        for position, cost in zip(policy.asked, macs, strict=True)
        if cost is not None
    )
    return total / large


NEAR = 1e-6
"""How far two sums of the same counts may lie apart."""


def why_figures_disagree(policy: Policy, told: FiguresEntry) -> str | None:
    """Say why figures cannot be of one cascade on one set of samples; None where they can."""
    n = told.samples
    if n < 1:
        return f"are of {n} samples"
    shares = {
        "accuracy_saver": told.accuracy_saver,
        "accuracy_large": told.accuracy_large,
        "accuracy_cascade": told.accuracy_cascade,
        "accept_rate": told.accept_rate,
    }
    local = told.accuracy_saver if told.accuracy_local is None else told.accuracy_local
    shares["accuracy_local"] = local
    shares |= {f"settled {place}": one for place, one in enumerate(told.settled or ())}
    for name, share in shares.items():
        if share is not None and abs(share * n - round(share * n)) > NEAR * n:
            return f"say {name} {share:.6g}, no whole number of {n} samples"
    large, cascade = told.accuracy_large, told.accuracy_cascade
    if large is not None and cascade is not None:  # else people were asked, and nobody knows them
        drop_points = 100 * (large - cascade)
        if abs(drop_points - told.drop_points) > 100 * NEAR:
            return f"say {told.drop_points:.4g} points lost, by their accuracies {drop_points:.4g}"
    alone = None if large is None or local is None else 100 * (large - local)
    for points, interval in (
        (told.drop_points, told.drop_interval_points),
        (alone, told.saver_drop_interval_points),
    ):
        if points is None or interval is None:
            continue
        if not interval[0] - 0.01 <= points <= interval[1] + 0.01:
            return f"say {points:.4g} points lost, within {interval[0]:.4g} to {interval[1]:.4g}"
    return _why_shares_disagree(policy, told)


def _why_shares_disagree(policy: Policy, told: FiguresEntry) -> str | None:
    """Say why rates and cost do not follow from each other; None where they do."""
    settled = told.settled
    if settled is None:  # as bundles were written before
        if len(policy.stages) > 2:
            return None
        settled = (told.accept_rate, 1.0 - told.accept_rate)[: len(policy.stages)]
    if len(settled) != len(policy.stages) or abs(sum(settled) - 1) > NEAR:
        return f"say of {len(policy.stages)} stages that they settle {percent(sum(settled), 4)}"
    accepted = sum(settled[:-1]) if len(settled) > 1 else 1.0
    if abs(accepted - told.accept_rate) > NEAR:
        return f"say that {percent(told.accept_rate, 4)} are accepted, and {percent(accepted, 4)}"
    cost = cost_ratio(policy, settled, still=0.0 if told.reuse is None else told.reuse.still)
    if cost is None or told.cost_macs_ratio is None:
        return None
    if abs(cost - told.cost_macs_ratio) > NEAR * max(1.0, cost):
        return f"say a cost of {told.cost_macs_ratio:.6g}, by MACs and rates it is {cost:.6g}"
    return None
