"""Ridge-shrunk logistic regression by Newton's method, in a dozen lines of numpy."""

from __future__ import annotations

import numpy as np

from tinysaver_edge.outputs import BoolArray, FloatArray

MOST_STEPS = 50
CONVERGED = 1e-8


def fit_logistic(features: FloatArray, event: BoolArray, *, ridge: float) -> FloatArray:
    """Weights of P(event) = 1 / (1 + exp(-(w0 + features · w))).

    Features are standardised for the fit, so that the ridge weighs them alike; the weights that
    come back are for the features as they are. The intercept is not shrunk.

    Args:
        features: float64 (n, k).
        event: bool (n,).
        ridge: λ > 0; with none, separable data would have no finite solution.

    Returns:
        float64 (k + 1,), the intercept first.
    """
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 1e-12, spread, 1.0)
    design = np.column_stack((np.ones(len(features)), (features - centre) / spread))
    shrink = np.r_[1e-3, np.full(features.shape[1], ridge)]
    weights = np.zeros(design.shape[1])
    rate = (event.sum() + 0.5) / (len(event) + 1)
    weights[0] = np.log(rate / (1 - rate))
    origin = weights.copy()
    for _ in range(MOST_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (event - chance) - shrink * (weights - origin)
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(shrink)
        step = np.linalg.solve(curvature, gradient)
        # A full Newton step may overshoot far from the solution; a capped one still arrives.
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        weights += step
        if np.abs(step).max() < CONVERGED:
            break
    slopes = weights[1:] / spread
    fitted: FloatArray = np.r_[weights[0] - slopes @ centre, slopes]
    return fitted
