"""Fitting of the scores that learn: p of the norm, the temperature, the head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import numpy as np

from tinysaver_edge.calibrate.methods.logistic import fit_logistic
from tinysaver_edge.calibrate.methods.sweep import SortedScores
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray, Outputs
from tinysaver_edge.score import Head, MaxLogitPNorm, Score, TemperatureScaled
from tinysaver_edge.score.head import DEPTH, head_features

NORM_ORDERS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
TEMPERATURES = (0.25, 8.0)
HEAD_RIDGE = 3.0
PRIOR_STRENGTH = 20.0


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


def fit_head(
    saver: Outputs,
    saver_correct: BoolArray,
    large_correct: BoolArray,
    *,
    ridge: float = HEAD_RIDGE,
    class_prior_of: int | None = None,
) -> Head:
    """Two ridge-shrunk logistic regressions: the large model helps, the large model harms.

    Args:
        saver: the saver's outputs on the tune samples.
        saver_correct: bool (n,), is the saver right on them.
        large_correct: bool (n,), is the large model right on them.
        ridge: λ, on standardised features.
        class_prior_of: number of classes, to add a smoothed, leave-one-out prior of the predicted
            class; None for none, which is better below a few dozen samples a class.
    """
    depth = min(DEPTH, saver.width)
    features = head_features(saver, depth=depth)
    help_, harm = large_correct & ~saver_correct, ~large_correct & saver_correct
    if class_prior_of is None:
        return Head(
            help=tuple(fit_logistic(features, help_, ridge=ridge)),
            harm=tuple(fit_logistic(features, harm, ridge=ridge)),
            depth=depth,
        )
    predicted = saver.predictions
    weights, tables = [], []
    for event in (help_, harm):
        own, table = _class_log_odds(event, predicted, classes=class_prior_of)
        fitted = fit_logistic(np.column_stack((features, own)), event, ridge=ridge)
        weights.append(tuple(fitted[:-1]))
        tables.append(tuple(fitted[-1] * table))
    return Head(
        help=weights[0],
        harm=weights[1],
        depth=depth,
        class_help=tables[0],
        class_harm=tables[1],
    )


def deferral_area(
    score: FloatArray, *, saver_correct: BoolArray, large_correct: BoolArray
) -> float:
    """Mean drop over all accept rates, a fraction; the less, the better the score ranks."""
    sweep = SortedScores.of(score).sweep(saver_correct=saver_correct, large_correct=large_correct)
    steps = np.diff(sweep.accepted, prepend=0)
    return float((sweep.lost * steps).sum() / sweep.samples**2)


def _class_log_odds(
    event: BoolArray, predicted: IntArray, *, classes: int
) -> tuple[FloatArray, FloatArray]:
    """Smoothed log-odds of an event by predicted class.

    Returns:
        Those of each sample's class, counted without the sample itself (n,), and of each class.
    """
    rate = (event.sum() + 0.5) / (len(event) + 1)
    seen = np.bincount(predicted, minlength=classes)
    hits = np.bincount(predicted, weights=event, minlength=classes).astype(np.float64)

    def log_odds(hit: FloatArray, of: FloatArray) -> FloatArray:
        chance = (hit + PRIOR_STRENGTH * rate) / (of + PRIOR_STRENGTH)
        return cast(FloatArray, np.log(chance / (1 - chance)) - np.log(rate / (1 - rate)))

    own = log_odds(hits[predicted] - event, (seen[predicted] - 1).astype(np.float64))
    return own, log_odds(hits, seen.astype(np.float64))


FITTED_SCORES: Mapping[str, Callable[[Outputs, BoolArray, BoolArray], Score]] = MappingProxyType(
    {
        MaxLogitPNorm.name: fit_pnorm,
        TemperatureScaled.name: fit_temperature,
        Head.name: fit_head,
    }
)
"""Scores that need a tune split, and what fits them."""
