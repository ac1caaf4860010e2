"""The steps of a certificate: thresholds from strict to loose, each with counts and a p-value.

Three kinds of evidence: losses of samples, answers without labels, groups of samples.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinysaver_edge.certificate.trinomial import p_value
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import FloatArray

ASSUMED_VARIANCES = (0.002, 0.01, 0.05, 0.25)
"""Variances of a group's loss that the bets are made for; the evidence is their average."""


def consistency_p_value(differing: ArrayLike, samples: int, *, epsilon: float) -> FloatArray:
    """p-values of "the cascade's answer differs from the large model's at least at rate epsilon".

    The exact binomial test, so that inverting it gives the Clopper-Pearson bound. An answer that
    loses accuracy must differ, hence the bound holds for the drop too, without any label.

    Args:
        differing: (k,), samples whose answer differs.
        samples: how many were compared.
        epsilon: bound on the rate, a fraction.

    Returns:
        (k,), within 0..1.
    """
    from scipy.special import bdtr  # see trinomial.py

    if epsilon <= 0:
        return np.ones(np.shape(np.atleast_1d(differing)))
    return np.asarray(bdtr(np.atleast_1d(differing), samples, min(epsilon, 1.0)), dtype=np.float64)


def upper_rate(events: int, samples: int, *, risk: float) -> float:
    """Clopper and Pearson's upper bound on a rate.

    Args:
        events: how many samples had it.
        samples: how many were looked at, independent of each other.
        risk: probability with which the rate may lie above the bound.

    Returns:
        Within 0..1; 1 where there are no samples.
    """
    from scipy.special import betaincinv

    if events >= samples:
        return 1.0
    return float(betaincinv(events + 1, samples - events, 1 - risk))


def group_p_value(losses: ArrayLike, counts: ArrayLike, *, epsilon: float, risk: float) -> float:
    """p-value of "a group loses at least epsilon on average", for independent groups of frames.

    A bettor who holds that groups lose less than epsilon multiplies the stake by 1 + λ(ε - x) at
    each group's loss x. Under the hypothesis no fixed λ gains on average, nor does the mean over
    several, so one over the final stake is a p-value (Markov; Waudby-Smith and Ramdas, JRSSB
    2024, arXiv 2010.09686). Bets fixed in advance make it independent of the groups' order, so
    that the counts in the certificate are enough to compute it again.

    Args:
        losses: (k,), distinct losses, each within -1..1.
        counts: (k,), how many groups had this loss.
        epsilon: bound on the mean loss, a fraction within -1..1.
        risk: δ of this one certificate; the bets are sized for it.

    Returns:
        Within 0..1.
    """
    x = np.asarray(losses, dtype=np.float64)
    c = np.asarray(counts, dtype=np.float64)
    groups = float(c.sum())
    if groups == 0 or not -1 < epsilon < 1:
        return 1.0
    # A stake may not go below zero, even where a group loses everything.
    largest = 0.9 / (1 - epsilon)
    bets = np.sqrt(2 * np.log(1 / risk) / (groups * np.array(ASSUMED_VARIANCES)))
    bets = np.minimum(bets, largest)
    log_stakes = np.log1p(bets[:, None] * (epsilon - x)) @ c
    highest = float(log_stakes.max())
    log_mean = highest + float(np.log(np.exp(log_stakes - highest).mean()))
    return float(np.exp(min(0.0, -log_mean)))


def walk(p_values: FloatArray | Sequence[float], *, risk: float) -> int | None:
    """The last threshold that passed before the first that failed.

    Every test runs at the full risk: a false certificate needs a false pass at the first threshold
    whose hypothesis is true, and there is only one such (Learn then Test, arXiv 2110.01052). No
    monotone drop is assumed, and no exception may be made after a failure.

    Args:
        p_values: (k,), in the order fixed before the samples were seen.
        risk: δ of this one certificate.

    Returns:
        Its index, or None when the first threshold failed already.
    """
    for index, p in enumerate(p_values):
        if not p <= risk:
            return index - 1 if index else None
    return len(p_values) - 1 if len(p_values) else None


class Evidence(str, Enum):
    """What the samples of a certificate are."""

    LABELS = "labels"
    """Labelled samples, independent of each other: Berger-Boos on the trinomial."""

    CONSISTENCY = "consistency"
    """Samples without labels, the large model as the reference: exact binomial."""

    GROUPS = "groups"
    """Labelled samples in independent groups, such as the frames of one clip: betting."""

    CONSISTENCY_GROUPS = "consistency-groups"
    """Such groups without labels, the large model as the reference: betting."""

    @property
    def grouped(self) -> bool:
        """Whether the unit is a group of samples."""
        return self in (Evidence.GROUPS, Evidence.CONSISTENCY_GROUPS)

    @property
    def from_consistency(self) -> bool:
        """Whether the large model, not a label, says what is right."""
        return self in (Evidence.CONSISTENCY, Evidence.CONSISTENCY_GROUPS)


@dataclass(frozen=True, slots=True)
class Step:
    """One threshold of the walk and what was counted there.

    Attributes:
        threshold: accept where score >= threshold.
        accepted: samples accepted.
        lost: samples where only the large model is right (D = 1); with evidence from consistency,
            samples whose answer is not the large model's.
        gained: samples where only the cascade is right (D = -1); 0 with consistency.
        group_losses: with evidence from groups, each distinct mean loss of a group and how many
            groups had it; empty otherwise.
    """

    threshold: float
    accepted: int
    lost: int
    gained: int
    group_losses: tuple[tuple[float, int], ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Step:
        """Read a step from JSON values.

        Raises:
            TypeError, ValueError: a field is unknown, missing or no number.
        """
        losses = tuple((float(x), operator.index(c)) for x, c in values.get("group_losses", ()))
        counts = {key: operator.index(values[key]) for key in ("accepted", "lost", "gained")}
        threshold = float(values["threshold"])
        return cls(**{**values, **counts, "threshold": threshold, "group_losses": losses})

    def check(self, *, evidence: Evidence, samples: int) -> None:
        """Refuse counts that cannot be.

        Raises:
            InputError: naming what is wrong.
        """
        n = samples
        parts = (self.lost, self.gained, self.accepted, n - self.lost - self.gained)
        if min(*parts, n - self.accepted) < 0:
            raise InputError(
                f"a certificate over {n} samples cannot have lost {self.lost}, gained "
                f"{self.gained} and accepted {self.accepted} of them"
            )
        if evidence.grouped != bool(self.group_losses):
            raise InputError("group losses belong to a certificate over groups, and to no other")
        if any(not -1 <= loss <= 1 or count < 1 for loss, count in self.group_losses):
            raise InputError("a group's mean loss lies within -1..1, and its count is at least 1")


def step_p_values(
    steps: Sequence[Step],
    *,
    evidence: Evidence,
    samples: int,
    max_drop_points: float,
    risk: float,
) -> list[float]:
    """The p-value of each step's counts.

    Args:
        steps: counts at some thresholds.
        evidence: what the samples are.
        samples: how many there are.
        max_drop_points: ε, in points.
        risk: δ of this one certificate.
    """
    epsilon = max_drop_points / 100
    lost = [step.lost for step in steps]
    if evidence is Evidence.CONSISTENCY:
        return [float(p) for p in consistency_p_value(lost, samples, epsilon=epsilon)]
    if evidence.grouped:
        histograms = [tuple(zip(*step.group_losses, strict=True)) for step in steps]
        return [group_p_value(x, c, epsilon=epsilon, risk=risk) for x, c in histograms]
    gained = [step.gained for step in steps]
    same = [samples - step.lost - step.gained for step in steps]
    return [float(p) for p in p_value(lost, gained, same, epsilon=epsilon, risk=risk)]
