"""Scores that need the logits of all classes; a top-k record cannot give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import FloatArray, Outputs, by_blocks
from tinysaver_edge.score.base import Score
from tinysaver_edge.score.simple import probability_thresholds


@dataclass(frozen=True, slots=True)
class MaxLogitPNorm(Score):
    """max (z - μ) / ‖z - μ‖_p, over logits z with mean μ (Cattelan and Silva, arXiv 2305.15508).

    Attributes:
        p: order of the norm, >= 1; chosen on the tune split.
    """

    name: ClassVar[str] = "maxlogit_pnorm"
    p: float

    def __post_init__(self) -> None:
        self.check_number(self.p, parameter="p", low=1)

    def __call__(self, outputs: Outputs) -> FloatArray:
        """Score each sample; see `Score`."""
        return by_blocks(_logits_of(outputs, self.name), self._of_block)

    def _of_block(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        centred = logits - logits.mean(axis=1, keepdims=True)
        best = centred.max(axis=1)
        # Relative to the best, powers neither overflow nor vanish, however large p is.
        sizes = np.abs(centred)
        largest = np.maximum(sizes.max(axis=1), np.finfo(np.float32).tiny)
        sizes /= largest[:, None]
        norm: NDArray[np.float32] = np.power(sizes, self.p).sum(axis=1) ** (1 / self.p)
        score: NDArray[np.float32] = best / (largest * np.maximum(norm, 1.0))
        return score


@dataclass(frozen=True, slots=True)
class TemperatureScaled(Score):
    """Highest softmax probability of logits / temperature (Guo et al., arXiv 1706.04599).

    Attributes:
        temperature: > 0; fitted on the tune split.
    """

    name: ClassVar[str] = "msp_temperature"
    temperature: float

    def __post_init__(self) -> None:
        self.check_number(self.temperature, parameter="temperature", low=1e-3)

    def __call__(self, outputs: Outputs) -> FloatArray:
        """Score each sample; see `Score`."""
        return by_blocks(_logits_of(outputs, self.name), self._of_block)

    def _of_block(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        shifted = logits - logits.max(axis=1, keepdims=True)
        shifted *= np.float32(1 / self.temperature)
        confidence: NDArray[np.float32] = 1 / np.add.reduce(np.exp(shifted, out=shifted), axis=1)
        return confidence

    def fixed_thresholds(self) -> FloatArray:
        """Confidences from 0.99999 to 0."""
        return probability_thresholds()


def _logits_of(outputs: Outputs, score: str) -> NDArray[np.float32]:
    if outputs.logits is None:
        raise InputError(
            f"score {score!r} needs the logits of all classes, but this record holds only the "
            f"best {outputs.width}: use margin, msp, entropy, doctor or head, or record logits"
        )
    return outputs.logits
