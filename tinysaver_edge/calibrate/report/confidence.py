"""How far the models know when they are right: scores parted by right and wrong, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.outputs import FloatArray, Outputs


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class, by its true label.

    Attributes:
        lost: net samples lost to the cascade; negative for a gain.
        escalation_rate: share of them that the first model did not answer.
    """

    index: int
    name: str
    samples: int
    accuracy_large: float
    accuracy_cascade: float
    lost: int
    escalation_rate: float

    @property
    def drop_points(self) -> float:
        """Points that the class loses; negative for a gain."""
        return 100.0 * self.lost / self.samples


def class_name(index: int, names: Sequence[str] | None) -> str:
    """Return a class's name, or its number in words where it has none."""
    if names is not None and 0 <= index < len(names):
        return names[index]
    return f"class {index}"


def class_rows(
    labels: NDArray[np.int64],
    *,
    large_correct: NDArray[np.bool_],
    cascade_correct: NDArray[np.bool_],
    escalated: NDArray[np.bool_],
    names: Sequence[str] | None,
) -> tuple[ClassRow, ...]:
    """Count by class; those without a sample are left out.

    Args:
        labels: ``(n,)`` true classes.
        large_correct: ``(n,)`` whether the large model alone is right.
        cascade_correct: ``(n,)`` whether the cascade is.
        escalated: ``(n,)`` whether the first model did not answer.
        names: class names, or None.

    Returns:
        The class that loses most points first; of equals the one escalated most, then by number.
    """
    samples = np.bincount(labels)
    large, cascade, asked = (
        np.bincount(labels, weights=one, minlength=len(samples)).astype(np.int64)
        for one in (large_correct, cascade_correct, escalated)
    )
    rows = [
        ClassRow(
            index=int(i),
            name=class_name(int(i), names),
            samples=int(samples[i]),
            accuracy_large=float(large[i] / samples[i]),
            accuracy_cascade=float(cascade[i] / samples[i]),
            lost=int(large[i] - cascade[i]),
            escalation_rate=float(asked[i] / samples[i]),
        )
        for i in np.flatnonzero(samples)
    ]
    return tuple(sorted(rows, key=lambda row: (-row.drop_points, -row.escalation_rate, row.index)))


SCORE_BINS = 32
RELIABILITY_BINS = 15


@dataclass(frozen=True, slots=True)
class ScoreHistogram:
    """The first stage's scores, parted by whether its answer is right.

    Attributes:
        edges: ``bins + 1`` rising; scores beyond the outer ones are counted in the outer bins.
        threshold: in force, or None.
        right_accepted: share of all right answers that is accepted, None without any.
        wrong_accepted: share of all wrong answers that is accepted, None without any.
    """

    score: str
    edges: tuple[float, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    threshold: float | None
    right_accepted: float | None
    wrong_accepted: float | None


def score_histogram(
    stage: StagePolicy, outputs: Outputs, labels: NDArray[np.int64]
) -> ScoreHistogram | None:
    """Count a stage's scores; None where it has none."""
    if stage.score is None:
        return None
    values = np.asarray(stage.score(outputs), np.float64)
    right = outputs.predictions == labels
    low, high = _range(values, stage.threshold)
    edges = np.linspace(low, high, SCORE_BINS + 1)
    inside = np.clip(values, low, high)
    accepted = values >= (np.inf if stage.threshold is None else stage.threshold)
    return ScoreHistogram(
        score=stage.score.name,
        edges=tuple(edges.tolist()),
        right=tuple(np.histogram(inside[right], edges)[0].tolist()),
        wrong=tuple(np.histogram(inside[~right], edges)[0].tolist()),
        threshold=stage.threshold,
        right_accepted=float(accepted[right].mean()) if right.any() else None,
        wrong_accepted=float(accepted[~right].mean()) if (~right).any() else None,
    )


def _range(values: FloatArray, threshold: float | None) -> tuple[float, float]:
    """Leave out the outermost half percent: some scores have no bound."""
    low, high = (float(edge) for edge in np.quantile(values, (0.005, 0.995)))
    if values.min() >= 0 and values.max() <= 1:
        low, high = 0.0, 1.0
    if threshold is not None and np.isfinite(threshold):
        low, high = min(low, threshold), max(high, threshold)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Samples of about one confidence.

    Attributes:
        confidence: their mean confidence, 0..1.
        accuracy: share of them that is right, 0..1.
    """

    confidence: float
    accuracy: float
    samples: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """A model's confidence against what came true.

    Attributes:
        bins: those of fifteen equal ones over 0..1 that hold samples.
        ece: expected calibration error, the bins' mean distance between confidence and accuracy,
            weighted by samples (Guo et al., arXiv 1706.04599); 0..1.
    """

    model: str
    bins: tuple[ReliabilityBin, ...]
    ece: float


def reliability(model: str, outputs: Outputs, labels: NDArray[np.int64]) -> Reliability:
    """Hold a model's confidences against its right answers."""
    confidence = np.clip(np.asarray(outputs.confidences, np.float64), 0, 1)
    right = outputs.predictions == labels
    place = np.minimum((confidence * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)
    samples = np.bincount(place, minlength=RELIABILITY_BINS)
    total = np.bincount(place, weights=confidence, minlength=RELIABILITY_BINS)
    hits = np.bincount(place, weights=right, minlength=RELIABILITY_BINS)
    return Reliability(
        model=model,
        bins=tuple(
            ReliabilityBin(
                float(total[i] / samples[i]), float(hits[i] / samples[i]), int(samples[i])
            )
            for i in np.flatnonzero(samples)
        ),
        ece=float(np.abs(total - hits).sum() / len(labels)),
    )
