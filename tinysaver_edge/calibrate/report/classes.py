"""What the cascade does to each class: which lose, and which are escalated most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class, by its true label.

    Attributes:
        index: its number.
        name: its name, or its number in words.
        samples: how many samples are of it.
        accuracy_large: share of them that the large model alone gets right.
        accuracy_cascade: share of them that the cascade gets right.
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
