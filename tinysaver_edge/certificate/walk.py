"""Fixed-sequence testing: thresholds from strict to loose until the first one fails."""

from __future__ import annotations

from collections.abc import Sequence

from tinysaver_edge.outputs import FloatArray


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
