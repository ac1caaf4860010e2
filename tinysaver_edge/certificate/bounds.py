"""Bounds for the two other kinds of evidence, answers without labels and groups; and for a rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

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
