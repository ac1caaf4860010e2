"""Figures: what a policy does on labelled samples: accuracy, drop, accept rate and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.deciding.policy import Policy, Replay, replay
from tinysaver_edge.outputs import Outputs


@dataclass(frozen=True, slots=True)
class Figures:
    """The seven figures of a cascade on one set of samples.

    Attributes:
        samples: how many.
        accuracy_saver: share that the first stage's model gets right, alone.
        accuracy_large: share that the last stage's model gets right, alone.
        accuracy_cascade: share that the cascade gets right.
        drop_points: ``100 * (accuracy_large - accuracy_cascade)``; negative for a gain.
        accept_rate: share that was not escalated past the first stage.
        cost_macs_ratio: expected MACs a frame, relative to the large model on every frame; None
            where a model's MACs are not known.
    """

    samples: int
    accuracy_saver: float
    accuracy_large: float
    accuracy_cascade: float
    drop_points: float
    accept_rate: float
    cost_macs_ratio: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values for JSON."""
        return asdict(self)


def figures(policy: Policy, outputs: Sequence[Outputs], labels: NDArray[np.int64]) -> Figures:
    """Measure a policy on recorded answers.

    Args:
        policy: the stages.
        outputs: each stage's answers on the same n samples.
        labels: ``(n,)`` the true classes.

    Raises:
        InputError: outputs and stages do not match.
    """
    replayed = replay(policy, outputs)
    samples = len(labels)
    saver, large = (int((one.predictions == labels).sum()) for one in (outputs[0], outputs[-1]))
    cascade = int((replayed.predictions == labels).sum())
    return Figures(
        samples=samples,
        accuracy_saver=saver / samples,
        accuracy_large=large / samples,
        accuracy_cascade=cascade / samples,
        # Of counts, so that a bound that is a whole number of samples is met exactly.
        drop_points=100 * (large - cascade) / samples,
        accept_rate=_accept_rate(policy, replayed),
        cost_macs_ratio=cost_ratio(policy, replayed),
    )


def _accept_rate(policy: Policy, replayed: Replay) -> float:
    if len(policy.stages) > 1 and policy.asked[0] != 0:
        return 0.0
    return float((replayed.stage == 0).mean())


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
