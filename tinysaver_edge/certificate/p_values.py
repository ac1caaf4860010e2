"""The p-value of "the drop is at least ε", from three counts (Berger and Boos)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinysaver_edge.outputs import FloatArray

NUISANCE_SHARE = 0.1
"""β / δ: the share of the risk spent on bounding how often the two answers differ."""

LARGEST_DISCORDANCE = 2.0 / 3.0
"""Up to here the p-value is greatest at the upper bound of the discordance (see `p_value`)."""


def p_value(
    lost: ArrayLike, gained: ArrayLike, same: ArrayLike, *, epsilon: float, risk: float
) -> FloatArray:
    """p-values of the hypothesis "accuracy falls by at least epsilon", one a threshold.

    Each sample's loss D is 1, -1 or 0: only the large model is right, only the cascade is, or
    neither alone. Whatever the unknown chance s of D ≠ 0 is, P(p_value <= risk) <= risk wherever
    E[D] >= epsilon: β = risk/10 goes into a bound on s, and p is β and the greatest tail within it
    (Berger and Boos, JASA 1994; docs/certificate.md). Where that tail is not known to be greatest
    at the bound, p is 1.

    Args:
        lost: (k,), number of samples with D = 1.
        gained: (k,), number with D = -1.
        same: (k,), number with D = 0.
        epsilon: bound on E[D], a fraction (0.005 for half a point); may be negative, for "gains
            at least so much".
        risk: δ of this one certificate, 0..1; it fixes β.

    Returns:
        (k,), within 0..1.
    """
    n10, n01, n0 = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(count, dtype=np.float64)) for count in (lost, gained, same))
    )
    n, difference, beta = n10 + n01 + n0, n10 - n01, risk * NUISANCE_SHARE
    bound = upper_rates(n10 + n01, n, risk=beta)
    p = np.ones(len(n))
    tested = (bound <= LARGEST_DISCORDANCE) & (difference < n * epsilon - 2)
    tested &= bound >= abs(epsilon)
    if tested.any():
        tail = lower_tail(difference[tested], n[tested], bound[tested], epsilon=epsilon)
        p[tested] = np.minimum(beta + tail, 1.0)
    if epsilon > 0:
        p[bound < epsilon] = beta
    return p


def lower_tail(
    difference: ArrayLike, samples: ArrayLike, discordance: ArrayLike, *, epsilon: float
) -> FloatArray:
    """P(N10 - N01 <= difference) for a trinomial with E[D] = epsilon and P(D ≠ 0) = discordance.

    The distribution is wrapped onto a lattice of about ±10 standard deviations and summed through
    its characteristic function: some fifty frequencies do, for any number of samples. Where the
    lattice would be wider than -n..n it covers just that, and nothing wraps.

    Args:
        difference: (k,) whole numbers.
        samples: (k,) or one number.
        discordance: (k,), within |epsilon|..1.
        epsilon: mean of one D.

    Returns:
        (k,), within 0..1, exact to 1e-10.
    """
    d, n, s = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(v, float)) for v in (difference, samples, discordance))
    )
    deviation = np.sqrt(np.maximum(n * (s - epsilon**2), 1e-12))
    reach = np.ceil(10 * deviation + 30)
    low = np.maximum(np.floor(n * epsilon) - reach, -n)
    size = np.minimum(np.floor(n * epsilon) + reach, n) - low + 1
    width = np.clip(d - low + 1, 0, size)
    highest = np.minimum(np.ceil(9 / deviation * size / (2 * np.pi)), np.floor(size / 2))
    harmonic = np.arange(1, int(highest.max()) + 1)
    frequency = 2 * np.pi * harmonic / size[:, None]
    terms = _characteristic_terms(frequency, n, s, epsilon, low, width)
    # On an even lattice the frequency π has no mirror image, so it counts once, not twice.
    terms *= np.where(2 * harmonic == size[:, None], 1.0, 2.0)
    terms[2 * harmonic > size[:, None]] = 0.0
    tail: FloatArray = np.clip((width + terms.sum(axis=1)) / size, 0.0, 1.0)
    return tail


def _characteristic_terms(
    frequency: FloatArray,
    n: NDArray[Any],
    s: NDArray[Any],
    epsilon: float,
    low: NDArray[Any],
    width: NDArray[Any],
) -> FloatArray:
    """Real parts of φ(ω)^n times the sum of e^(-iωx) over low <= x < low + width."""
    half_sine = np.sin(frequency / 2)
    real = 1 - 2 * s[:, None] * half_sine**2
    imaginary = epsilon * np.sin(frequency)
    size = np.exp(0.5 * n[:, None] * np.log(np.maximum(real**2 + imaginary**2, 1e-300)))
    angle = n[:, None] * np.arctan2(imaginary, real)
    centre = low + (width - 1) / 2
    summed = np.sin(frequency * width[:, None] / 2) / half_sine
    terms: FloatArray = size * np.cos(angle - frequency * centre[:, None]) * summed
    return terms


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
    from scipy.special import bdtr  # see `p_value`

    if epsilon <= 0:
        return np.ones(np.shape(np.atleast_1d(differing)))
    return np.asarray(bdtr(np.atleast_1d(differing), samples, min(epsilon, 1.0)), dtype=np.float64)


def upper_rates(events: ArrayLike, samples: ArrayLike, *, risk: float) -> FloatArray:
    """Clopper and Pearson's upper bounds on rates.

    Args:
        events: (k,), how many samples had it.
        samples: (k,) or one number, how many were looked at, independent of each other.
        risk: probability with which a rate may lie above its bound.

    Returns:
        (k,), within 0..1; 1 where every sample had it, or there are none.
    """
    from scipy.special import betaincinv  # scipy costs 50 ms, which only calibration should pay

    k, n = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(one, dtype=np.float64)) for one in (events, samples))
    )
    bounds: FloatArray = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - risk), 1.0)
    return bounds


def upper_rate(events: int, samples: int, *, risk: float) -> float:
    """Return the bound of `upper_rates` on one rate."""
    return float(upper_rates(events, samples, risk=risk)[0])


def rate_interval(events: int, samples: int, *, risk: float = 0.05) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of a rate, 0..1.

    Args:
        events: how many samples had it.
        samples: how many were looked at, independent of each other.
        risk: probability with which the rate may lie outside.
    """
    rest = upper_rate(samples - events, samples, risk=risk / 2)
    return 1 - rest, upper_rate(events, samples, risk=risk / 2)


def count_p_values(
    lost: ArrayLike,
    gained: ArrayLike,
    *,
    evidence: EvidenceKind,
    samples: int,
    max_drop_points: float,
    risk: float,
) -> FloatArray:
    """p-values of counts over samples that are independent of each other.

    Args:
        lost: (k,), samples lost.
        gained: (k,), samples gained; of no account with evidence from consistency.
        evidence: what the samples are, groups excepted.
        samples: how many there are.
        max_drop_points: ε, in points.
        risk: δ of this one certificate.
    """
    epsilon = max_drop_points / 100
    if evidence.from_consistency:
        return consistency_p_value(lost, samples, epsilon=epsilon)
    same = samples - np.asarray(lost) - np.asarray(gained)
    return p_value(lost, gained, same, epsilon=epsilon, risk=risk)


class Bets(str, Enum):
    """How a bettor stakes who holds that groups lose less than epsilon; see docs/certificate.md."""

    FIXED = "fixed"
    """The same all along: what certificates were made with up to schema 2. Any order will do."""

    TARGET = "target"
    """Anew at each group, by what is still missing and how many groups are left."""


def group_p_value(losses: ArrayLike, counts: ArrayLike, *, epsilon: float, risk: float) -> float:
    """p-value of "a group loses at least epsilon on average", by fixed bets.

    One over the stake of a bettor whose bets are fixed in advance (Waudby-Smith and Ramdas, JRSSB
    2024, arXiv 2010.09686). It proves certificates again that were made with it; `group_p_values`
    makes them.

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


ASSUMED_VARIANCE, ASSUMED_GROUPS = 0.03, 30
"""What the variance of a group's loss is taken for at first, and as if seen on how many groups."""

LARGEST_BET = 0.95
"""Of the largest bet at which a stake cannot fall below zero."""

LEAST_STAKE = 1e-300
"""Nothing, as far as numbers tell."""

ROUNDING = 1e-9
"""How much further than its target a bettor goes, so that any machine's arithmetic gets there."""


def group_p_values(losses: ArrayLike, *, epsilon: ArrayLike, risk: float) -> FloatArray:
    """p-values of "a group loses at least epsilon on average", for independent groups of frames.

    One over the stake of a bettor who bets anew at each group, as much as it takes to reach
    1 / risk with the groups that are left (Voráček and Orabona, arXiv 2505.22422;
    docs/certificate.md), and who stops there: p below the risk says no more than p at it. Valid
    whatever the losses are, as long as no group depends on those before it: their order must not
    be chosen, by time or by loss, but drawn.

    Args:
        losses: (k, n), each group's mean loss at each of k thresholds, within -1..1.
        epsilon: bound on the mean loss, a fraction within -1..1; one, or (k,).
        risk: δ of this one certificate; the bets are sized for it.

    Returns:
        (k,), within 0..1.
    """
    x = np.atleast_2d(np.asarray(losses, dtype=np.float64))
    bound = np.asarray(epsilon, dtype=np.float64)
    count, groups = np.broadcast_shapes(x.shape, (*bound.shape, 1))
    if groups == 0 or not (abs(bound) < 1).all():
        return np.ones(count)
    target = (1 + ROUNDING) / risk
    largest = LARGEST_BET / (1 - bound)
    stake = np.ones(count)
    # What is known of the spread before each group: from those before it alone.
    squares = np.full(count, ASSUMED_VARIANCE * ASSUMED_GROUPS)
    for place in range(groups):
        gain = bound - x[:, place]
        missing = np.log(np.maximum(target / stake, 1.0))
        pace = 2.0 * (ASSUMED_GROUPS + place) / (groups - place)
        bet = np.minimum(np.sqrt(missing * pace / squares), largest)
        stake = np.maximum(stake * (1 + bet * gain), LEAST_STAKE)
        squares += gain**2
    p: FloatArray = np.minimum(1.0, 1.0 / stake)
    return p


def least_groups(epsilon: float, *, risk: float) -> int:
    """Return the groups below which `group_p_values` cannot sign a bound without any loss or gain.

    Args:
        epsilon: bound on the mean loss, a fraction within 0..1.
        risk: δ of this one certificate.
    """
    most = np.log1p(LARGEST_BET * epsilon / (1 - epsilon))
    return int(np.ceil(np.log(1 / risk) / most))


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


class EvidenceKind(str, Enum):
    """What the samples of a certificate are."""

    LABELS = "labels"
    """Labelled samples, independent of each other (Berger-Boos on the trinomial)."""

    CONSISTENCY = "consistency"
    """Samples without labels, the large model as the reference (exact binomial)."""

    GROUPS = "groups"
    """Labelled samples in independent groups, such as the frames of one clip (betting)."""

    CONSISTENCY_GROUPS = "consistency-groups"
    """Such groups without labels, the large model as the reference (betting)."""

    EPOCHS = "epochs"
    """Labelled frames of epochs, with what a gate reuses within each (betting, by epochs)."""

    CONSISTENCY_EPOCHS = "consistency-epochs"
    """Such epochs without labels, the large model as the reference (betting)."""

    @classmethod
    def of(cls, *, labelled: bool, unit: str) -> EvidenceKind:
        """Return the kind of evidence of a unit: "samples", "groups" or "epochs"."""
        kinds = {
            "samples": (cls.CONSISTENCY, cls.LABELS),
            "groups": (cls.CONSISTENCY_GROUPS, cls.GROUPS),
            "epochs": (cls.CONSISTENCY_EPOCHS, cls.EPOCHS),
        }
        return kinds[unit][labelled]

    @property
    def unit(self) -> str:
        """What is independent of each other: samples, groups or epochs."""
        return {"": "samples", "groups": "groups", "epochs": "epochs"}[
            self.value.removeprefix("labels").removeprefix("consistency").removeprefix("-")
        ]

    @property
    def grouped(self) -> bool:
        """Whether the unit is a group of samples."""
        return self.unit != "samples"

    @property
    def from_consistency(self) -> bool:
        """Whether the large model, not a label, says what is right."""
        return self.value.startswith(EvidenceKind.CONSISTENCY.value)
