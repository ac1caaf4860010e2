"""Disagreement: how often an escalation would have changed an accepted answer.

It needs no labels, so a device can go on measuring it; `stream.drift` holds it against this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.bundle.manifest import DisagreementEntry
from tinysaver_edge.calibrate.problem import Problem
from tinysaver_edge.certificate import upper_rate
from tinysaver_edge.deciding.policy import Policy, replay
from tinysaver_edge.outputs import Outputs

CONFIDENCE = 0.95
"""Of the upper bound that is printed; a device computes its own from the counts."""

KEPT_SHARES = (0.75, 0.5, 0.25, 0.1)
"""A stricter threshold each: how many of the frames accepted so far it still accepts."""

HELD_OUT_SHARE = 0.25
"""Held-out samples are counted where they are at least so many of those chosen on.

They need no correction for the choice, which is worth about four times as many samples.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """Every accepted sample as an audit on a device would see it.

    Attributes:
        accepted: positions of the samples whose first answer is accepted, rising.
        score: their scores.
        disagrees: whether an escalation would have changed the answer.
    """

    accepted: NDArray[np.int64]
    score: NDArray[np.float64]
    disagrees: NDArray[np.bool_]


def audit(policy: Policy, outputs: Sequence[Outputs]) -> Audit:
    """Escalate every sample that the first stage accepts, and compare.

    Args:
        policy: the stages; the first has a score and a threshold, or nothing is accepted.
        outputs: each stage's answers on the same n samples.

    Raises:
        InputError: outputs and stages do not match.
    """
    first = policy.stages[0]
    if len(policy.stages) == 1 or first.never_accepts:
        none = np.empty(0, np.int64)
        return Audit(none, none.astype(np.float64), none.astype(bool))
    answered = replay(policy, outputs)
    accepted = np.flatnonzero(answered.stage == 0)
    refused = replace(first, threshold=float("inf"))
    escalating = replace(policy, stages=(refused, *policy.stages[1:]))
    later = replay(escalating, [one.subset(accepted) for one in outputs])
    return Audit(
        accepted, answered.score[accepted], later.predictions != answered.predictions[accepted]
    )


def disagreement(
    policy: Policy, evidence: Problem, holdout: Problem | None, *, choices: int, seed: int
) -> DisagreementEntry | None:
    """Count what a bundle is to promise.

    Args:
        policy: the cascade that was chosen.
        evidence: the samples that it was chosen on.
        holdout: samples set aside, or None.
        choices: among how many thresholds it was chosen.
        seed: decides which sample stands for a group.

    Returns:
        None where nothing is accepted.
    """
    chosen_on = _counted(policy, evidence, seed=seed)
    if not len(chosen_on.accepted):
        return None
    counted, held_out = chosen_on, False
    if holdout is not None:
        aside = _counted(policy, holdout, seed=seed)
        if len(aside.accepted) >= HELD_OUT_SHARE * len(chosen_on.accepted):
            counted, held_out, choices = aside, True, 1
    accepted, disagreed = len(counted.accepted), int(counted.disagrees.sum())
    threshold = policy.stages[0].threshold
    scores = np.quantile(chosen_on.score, [1 - kept for kept in KEPT_SHARES], method="higher")
    return DisagreementEntry(
        accepted=accepted,
        disagreed=disagreed,
        held_out=held_out,
        choices=choices,
        confidence=CONFIDENCE,
        upper=upper_rate(disagreed, accepted, risk=(1 - CONFIDENCE) / choices),
        stricter=[float(one) for one in np.unique(scores) if threshold is None or one > threshold],
    )


def _counted(policy: Policy, problem: Problem, *, seed: int) -> Audit:
    """Audit a problem's samples, one of each group where there are groups."""
    saver = next(one for one in problem.savers if one.name == policy.stages[0].model)
    found = audit(policy, (saver.outputs, problem.large.outputs))
    if problem.groups is None:
        return found
    order = np.random.default_rng(seed).permutation(len(found.accepted))
    first = np.unique(problem.groups[found.accepted[order]], return_index=True)[1]
    kept = np.sort(order[first])
    return Audit(found.accepted[kept], found.score[kept], found.disagrees[kept])
