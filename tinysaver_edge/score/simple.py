"""Scores that need no fitting and work on logits and top-k records alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.outputs import FloatArray, Outputs
from tinysaver_edge.score.base import Score

if TYPE_CHECKING:
    from typing import Self

TINY = np.finfo(np.float32).tiny


def probability_thresholds() -> FloatArray:
    """Thresholds for a score within 0..1, strict to loose.

    Sixty from 0.99999 to 0.99, each a little less close to 1, for savers that are nearly always
    nearly certain; then 250 even steps to 0. A hundred cost about 0.2 % more work on the thirteen
    ImageNet records, because the last threshold that passes lies further from the bound.
    """
    return np.concatenate((1.0 - np.geomspace(1e-5, 1e-2, 60), np.linspace(0.989, 0.0, 250)))


@dataclass(frozen=True, slots=True)
class MaxSoftmax(Score):
    """Highest softmax probability, p1 (Hendrycks and Gimpel, arXiv 1610.02136)."""

    name: ClassVar[str] = "msp"

    def __call__(self, outputs: Outputs) -> FloatArray:
        """Score each sample; see `Score`."""
        return outputs.confidences

    def fixed_thresholds(self) -> FloatArray:
        """Confidences from 0.99999 to 0."""
        return probability_thresholds()


@dataclass(frozen=True, slots=True)
class Margin(Score):
    """Highest minus second highest softmax probability, p1 - p2: the default."""

    name: ClassVar[str] = "margin"

    def __call__(self, outputs: Outputs) -> FloatArray:
        """Score each sample; see `Score`."""
        best = outputs.top(2)[1].astype(np.float64)
        if best.shape[1] == 1:
            return best[:, 0]
        return best[:, 0] - best[:, 1]

    def fixed_thresholds(self) -> FloatArray:
        """Margins from 0.99999 to 0."""
        return probability_thresholds()


@dataclass(frozen=True, slots=True)
class _Summed(Score):
    """A score that sums over probabilities.

    Attributes:
        depth: sum over the best `depth` probabilities only; None for all that are known.
    """

    depth: int | None = None

    def __post_init__(self) -> None:
        if self.depth is not None:
            self.check_number(self.depth, parameter="depth", low=1)

    def suited_to(self, outputs: Outputs) -> Self:
        """Pin the sum to a record's K; a record of all classes needs no pinning."""
        if not outputs.truncated or self.depth is not None:
            return self
        return replace(self, depth=outputs.width)


@dataclass(frozen=True, slots=True)
class Entropy(_Summed):
    """Negative entropy, sum of p log p; truncated to the best K over top-k records."""

    name: ClassVar[str] = "entropy"

    def __call__(self, outputs: Outputs) -> FloatArray:
        """Score each sample; see `Score`."""
        return outputs.reduce_probabilities(_negative_entropy, depth=self.depth)


@dataclass(frozen=True, slots=True)
class Doctor(_Summed):
    """-(1 - Σp²) / Σp² (Granese et al., arXiv 2106.02395); truncated over top-k records."""

    name: ClassVar[str] = "doctor"

    def __call__(self, outputs: Outputs) -> FloatArray:
        """Score each sample; see `Score`."""
        return outputs.reduce_probabilities(_doctor, depth=self.depth)


def _negative_entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    logs = np.log(np.maximum(probabilities, TINY))
    logs *= probabilities
    total: NDArray[np.float32] = np.add.reduce(logs, axis=1)
    return total


def _doctor(probabilities: NDArray[np.float32]) -> FloatArray:
    squares: FloatArray = np.add.reduce(probabilities * probabilities, axis=1).astype(np.float64)
    return 1.0 - 1.0 / squares
