"""Hold one form of a model's answers against another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.engines.base import Engine
from tinysaver_edge.preprocess import Frame, Preprocess, Preprocessor


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far two sets of answers to the same pictures lie apart.

    Attributes:
        samples: how many pictures.
        max_difference: largest absolute difference between two logits; NaN where one is NaN.
        largest_logit: largest absolute value among the reference's logits, for scale.
        top1_agreement: share of pictures with the same best class, 0..1.
    """

    samples: int
    max_difference: float
    largest_logit: float
    top1_agreement: float

    def within(self, tolerance: float) -> bool:
        """Whether no logit is further off than that; NaN never is.

        Where all logits are small, as with random weights, so is what they may be off by.
        """
        return self.max_difference <= tolerance * min(1.0, self.largest_logit)


def compare(reference: NDArray[np.float32], found: NDArray[np.float32]) -> Comparison:
    """Compare logits, ``(n, classes)`` each."""
    return Comparison(
        samples=len(reference),
        max_difference=float(np.abs(reference - found).max()),
        largest_logit=float(np.abs(reference).max()),
        top1_agreement=float((reference.argmax(axis=1) == found.argmax(axis=1)).mean()),
    )


def answers(
    engine: Engine, preprocess: Preprocess, frames: Sequence[Frame], *, batch: int = 4
) -> NDArray[np.float32]:
    """Run an engine over pictures.

    Args:
        engine: an open engine.
        preprocess: what it was opened with.
        frames: BGR uint8, of any size.
        batch: how many at a time.

    Returns:
        Logits ``(n, classes)``.

    Raises:
        EngineError: a run failed.
    """
    preprocessor = Preprocessor(preprocess)
    parts = [
        engine.infer(preprocessor.batch(frames[start : start + batch])).copy()
        for start in range(0, len(frames), batch)
    ]
    return np.concatenate(parts)
