"""The p-value of "the drop is at least ε", from three counts (Berger and Boos)."""

from __future__ import annotations

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
    E[D] >= epsilon. With β = risk/10 and the Clopper-Pearson bound s_U of s at confidence 1 - β

        p = β                                               if s_U < |ε| and ε > 0
        p = β + max over s in [|ε|, s_U] of P(N10 - N01 <= d | s, E[D] = ε)    otherwise

    (Berger and Boos, JASA 1994). While s_U <= 2/3 and d < nε - 2 the maximum lies at s_U: a wider
    distribution reaches further below its mean. It was checked on grids of s (see the tests), not
    proven; outside this range p is taken as 1.

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
    from scipy.special import betaincinv  # scipy costs 50 ms, which only calibration should pay

    n10, n01, n0 = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(count, dtype=np.float64)) for count in (lost, gained, same))
    )
    n, difference, beta = n10 + n01 + n0, n10 - n01, risk * NUISANCE_SHARE
    bound = np.where(n0 > 0, betaincinv(n10 + n01 + 1, np.maximum(n0, 1), 1 - beta), 1.0)
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
