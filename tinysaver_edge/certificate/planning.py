"""How many samples a certificate needs, and the least drop that given counts can sign."""

from __future__ import annotations

import math

from tinysaver_edge.certificate.steps import Evidence, Step, step_p_values
from tinysaver_edge.certificate.trinomial import p_value

MOST_SAMPLES = 1 << 40


def samples_needed(
    max_drop_points: float, *, risk: float, lost_rate: float = 0.0, gained_rate: float = 0.0
) -> int | None:
    """The fewest samples with which a drop of at most `max_drop_points` can be certified.

    Args:
        max_drop_points: ε, in points.
        risk: δ of this one certificate (the asked one divided by the number of candidates).
        lost_rate: share of samples on which only the large model is right, as far as is known.
        gained_rate: share on which only the cascade is right.

    Returns:
        321, 644, 3223 for 1, 0.5 and 0.1 points at δ = 0.1 with no differing sample at all; None
        where no number is enough, because the rates themselves lose as much as is allowed.
    """
    epsilon = max_drop_points / 100
    if lost_rate - gained_rate >= epsilon:
        return None

    def enough(n: int) -> bool:
        lost, gained = math.ceil(lost_rate * n), math.floor(gained_rate * n)
        return bool(p_value(lost, gained, n - lost - gained, epsilon=epsilon, risk=risk)[0] <= risk)

    high = 1
    while not enough(high):
        high *= 2
        if high > MOST_SAMPLES:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def least_certifiable_points(step: Step, *, evidence: Evidence, samples: int, risk: float) -> float:
    """The least drop, in points, that the counts at one threshold sign.

    For a threshold that came from a budget: fixed in advance, no walk, one test, and the bound
    that it passes. Negative where the cascade is provably the more accurate one.

    Args:
        step: the counts at the threshold.
        evidence: what the samples are.
        samples: how many there are.
        risk: δ of this one certificate.

    Returns:
        Rounded up to a thousandth of a point; 100 where the counts sign nothing less.
    """

    def signed(thousandths: int) -> bool:
        p = step_p_values(
            [step],
            evidence=evidence,
            samples=samples,
            max_drop_points=thousandths / 1000,
            risk=risk,
        )
        return p[0] <= risk

    low, high = -100_000, 100_000
    if not signed(high - 1):
        return 100.0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if signed(middle) else (middle, high)
    return high / 1000
