"""Fitting of what learns: p of the norm, the temperature, the head, the fusions.

All of it on labelled samples that no certificate sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from tinysaver_edge.calibrate.methods.counts import SortedScores
from tinysaver_edge.calibrate.methods.sweep import Sweep
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
from tinysaver_edge.score import DEPTH, Head, MaxLogitPNorm, Score, TemperatureScaled, head_features

RIDGE = 100.0
"""λ, in units of log-likelihood. On the ImageNet records the default weights are so near the best
that 500 to 2,500 tune samples with λ = 3 or 30 cost more certified work than with 100 or 300."""

WEIGHTS = tuple(step / 100 for step in range(0, 51, 2))
MOST_STEPS = 50
CONVERGED = 1e-8


def fit_fusion(name: str, saver: Outputs, large: Outputs, labels: IntArray) -> Fusion:
    """Fit a fusion by its name.

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
    saver: Outputs, large: Outputs, labels: IntArray, *, ridge: float = RIDGE
) -> ConditionalLogit:
    """The four weights of greatest likelihood, shrunk towards the default's.

    Samples whose true class is in neither list say nothing about the weights and are left out.

    Args:
        saver: the saver's outputs on the tune samples.
        large: the large model's.
        labels: (n,), the true classes.
        ridge: λ, the pull towards the default, in units of log-likelihood.
    """
    start = ConditionalLogit()
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


NORM_ORDERS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
TEMPERATURES = (0.25, 8.0)
HEAD_RIDGE = 3.0


def fit_score(
    name: str, saver: Outputs, *, saver_correct: BoolArray, large_correct: BoolArray
) -> Score:
    """Fit a learning score by its name; every fit is deterministic.

    Args:
        name: one of `FITTED_SCORES`.
        saver: the saver's outputs on the tune samples.
        saver_correct: bool (n,), is the saver right on them.
        large_correct: bool (n,), is the large model right on them.

    Raises:
        InputError: the name is of no learning score, there is no sample, or the outputs do not
            hold what the score needs.
    """
    if name not in FITTED_SCORES:
        raise InputError(f"score {name!r} learns nothing: {', '.join(FITTED_SCORES)} do")
    if not saver.samples == len(saver_correct) == len(large_correct) > 0:
        raise InputError(
            f"fitting score {name!r} on {saver.samples} outputs, {len(saver_correct)} saver and "
            f"{len(large_correct)} large answers: give as many of each, at least one"
        )
    return FITTED_SCORES[name](saver, saver_correct, large_correct)


def fit_pnorm(saver: Outputs, saver_correct: BoolArray, large_correct: BoolArray) -> MaxLogitPNorm:
    """The order p whose ranking loses least, averaged over all accept rates."""

    def area(score: MaxLogitPNorm) -> float:
        return deferral_area(score(saver), saver_correct=saver_correct, large_correct=large_correct)

    return min((MaxLogitPNorm(p=order) for order in NORM_ORDERS), key=area)


def fit_temperature(
    saver: Outputs,
    saver_correct: BoolArray,
    large_correct: BoolArray,
) -> TemperatureScaled:
    """The temperature at which confidences tell best how often the saver is right.

    Minimises the binary cross-entropy of the confidence, over a factor of 4 below 1 and 8 above.
    """
    from scipy.optimize import minimize_scalar  # costs 0.2 s, which only a fit should pay

    def cross_entropy(log_temperature: float) -> float:
        confidence = TemperatureScaled(temperature=float(np.exp(log_temperature)))(saver)
        chance = np.where(saver_correct, confidence, 1 - confidence)
        return float(-np.log(np.maximum(chance, 1e-7)).mean())

    found = minimize_scalar(cross_entropy, bounds=np.log(TEMPERATURES), method="bounded")
    return TemperatureScaled(temperature=float(np.exp(found.x)))


def fit_head(saver: Outputs, saver_correct: BoolArray, large_correct: BoolArray) -> Head:
    """Two ridge-shrunk logistic regressions: the large model helps, the large model harms.

    Args:
        saver: the saver's outputs on the tune samples.
        saver_correct: bool (n,), is the saver right on them.
        large_correct: bool (n,), is the large model right on them.
    """
    depth = min(DEPTH, saver.width)
    features = head_features(saver, depth=depth)
    helps, harms = large_correct & ~saver_correct, ~large_correct & saver_correct
    return Head(
        help=tuple(fit_logistic(features, helps, ridge=HEAD_RIDGE)),
        harm=tuple(fit_logistic(features, harms, ridge=HEAD_RIDGE)),
        depth=depth,
    )


def deferral_area(
    score: FloatArray, *, saver_correct: BoolArray, large_correct: BoolArray
) -> float:
    """Mean drop over all accept rates, a fraction; the less, the better the score ranks."""
    sweep = Sweep.of(
        SortedScores.of(score), saver_correct=saver_correct, large_correct=large_correct
    )
    steps = np.diff(sweep.accepted, prepend=0)
    return float((sweep.lost * steps).sum() / sweep.samples**2)


FITTED_SCORES: Mapping[str, Callable[[Outputs, BoolArray, BoolArray], Score]] = MappingProxyType(
    {
        MaxLogitPNorm.name: fit_pnorm,
        TemperatureScaled.name: fit_temperature,
        Head.name: fit_head,
    }
)
"""Scores that need a tune split, and what fits them."""
