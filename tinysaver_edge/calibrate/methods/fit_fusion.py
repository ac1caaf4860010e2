"""Fitting of the fusions, on labelled samples that no certificate sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion import (
    Candidates,
    ConditionalLogit,
    Fusion,
    LinearFusion,
    NoFusion,
    fusion_names,
    logit_features,
)
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray, Outputs

RIDGE = 100.0
"""λ, in units of log-likelihood. On the ImageNet records the default weights are so near the best
that 500 to 2,500 tune samples with λ = 3 or 30 cost more certified work than with 100 or 300."""

WEIGHTS = tuple(step / 100 for step in range(0, 51, 2))
MOST_STEPS = 50
CONVERGED = 1e-8


def fit_fusion(name: str, saver: Outputs, large: Outputs, labels: IntArray) -> Fusion:
    """Fit a fusion by its name.

    Args:
        name: one of `fusion_names()`.
        saver: the saver's outputs on the tune samples.
        large: the large model's.
        labels: (n,), the true classes.

    Raises:
        InputError: no fusion has this name, or lengths differ.
    """
    if not saver.samples == large.samples == len(labels) > 0:
        raise InputError(
            f"fitting fusion {name!r} on {saver.samples} saver and {large.samples} large outputs "
            f"with {len(labels)} labels: give as many of each, at least one"
        )
    if name == NoFusion.name:
        return NoFusion()
    if name == LinearFusion.name:
        return fit_linear(saver, large, labels)
    if name == ConditionalLogit.name:
        return fit_conditional_logit(saver, large, labels)
    raise InputError(f"no fusion is called {name!r}: there are {', '.join(fusion_names())}")


def fit_linear(saver: Outputs, large: Outputs, labels: IntArray) -> Fusion:
    """The weight within 0..0.5 with the most right answers, the smallest of equals.

    Returns:
        No fusion where no weight beats the large model alone by more than a standard error: the
        best of 25 weights would otherwise win by luck.
    """
    alone = large.predictions == labels
    candidates = Candidates.of(saver, large, depth=LinearFusion().depth)

    def right(weight: float) -> BoolArray:
        where = candidates.best((1 - weight) * candidates.large + weight * candidates.saver)
        return np.equal(candidates.classes[where], labels)

    best = max(WEIGHTS, key=lambda weight: int(right(weight).sum()))
    change = right(best).astype(np.int64) - alone
    if change.sum() <= np.sqrt(np.abs(change).sum()):
        return NoFusion()
    return LinearFusion(weight=best)


def fit_conditional_logit(
    saver: Outputs,
    large: Outputs,
    labels: IntArray,
    *,
    ridge: float = RIDGE,
    prior: ConditionalLogit | None = None,
) -> ConditionalLogit:
    """The four weights of greatest likelihood, shrunk towards the prior's.

    Samples whose true class is in neither list say nothing about the weights and are left out.

    Args:
        saver: the saver's outputs on the tune samples.
        large: the large model's.
        labels: (n,), the true classes.
        ridge: λ, the pull towards the prior, in units of log-likelihood.
        prior: what to shrink towards; the default weights when None.
    """
    start = prior or ConditionalLogit()
    candidates = Candidates.of(saver, large, depth=start.depth)
    chosen = (candidates.classes == labels[:, None]) & ~candidates.repeated
    known = chosen.any(axis=1)
    features = logit_features(candidates, start)[known]
    weights = _newton(features, chosen[known], candidates.repeated[known], start.weights, ridge)
    large_weight, saver_weight, absent_large, absent_saver = map(float, weights)
    return replace(
        start,
        large=large_weight,
        saver=saver_weight,
        absent_large=absent_large,
        absent_saver=absent_saver,
    )


def _newton(
    features: FloatArray,
    chosen: np.ndarray,
    repeated: np.ndarray,
    prior: FloatArray,
    ridge: float,
) -> FloatArray:
    """Maximise the penalised log-likelihood, which is concave, from the prior."""
    weights = prior.copy()
    wanted = features[chosen].sum(axis=0)
    for _ in range(MOST_STEPS):
        utilities = features @ weights
        utilities[repeated] = -np.inf
        chances = np.exp(utilities - utilities.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        mean = np.einsum("nc,ncf->nf", chances, features)
        gradient = wanted - mean.sum(axis=0) - ridge * (weights - prior)
        spread = np.einsum("ncf,ncg->fg", features * chances[:, :, None], features) - mean.T @ mean
        step = np.linalg.solve(spread + ridge * np.eye(len(weights)), gradient)
        step *= min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-300))
        weights = weights + step
        if np.abs(step).max() < CONVERGED:
            break
    return weights
