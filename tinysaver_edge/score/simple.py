"""Scores that need no fitting; some work on top-k records too, some need all logits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import FloatArray, Outputs, by_blocks
from tinysaver_edge.score.base import Score

if TYPE_CHECKING:
    from typing_extensions import Self

TINY = np.finfo(np.float32).tiny

NEARLY_CERTAIN = 0.999
"""Above this a margin is worked out in float64."""


def probability_thresholds() -> FloatArray:
    """Thresholds for a score within 0..1, strict to loose.

    Twenty from 1 - 1e-15 on for savers that are always all but certain, sixty from 0.99999 to 0.99,
    each a little less close to 1, for those that nearly always nearly are; then 250 even steps to
    0: fewer leave the last that passes further from the bound (docs/certificate.md).
    """
    certain = 1.0 - np.geomspace(1e-15, 1e-5, 20, endpoint=False)
    near = 1.0 - np.geomspace(1e-5, 1e-2, 60)
    return np.concatenate((certain, near, np.linspace(0.989, 0.0, 250)))


@dataclass(frozen=True, slots=True)
class MaxSoftmax(Score):
    """Highest softmax probability, p1 (Hendrycks and Gimpel, arXiv 1610.02136)."""

    name: ClassVar[str] = "msp"
    meaning: ClassVar[str] = "the probability of its likeliest class"

    def __call__(self, outputs: Outputs) -> FloatArray:
        """Score each sample; see `Score`."""
        return outputs.confidences

    def fixed_thresholds(self) -> FloatArray:
        """Confidences from 0.99999 to 0."""
        return probability_thresholds()


@dataclass(frozen=True, slots=True)
class Margin(Score):
    """Highest minus second highest softmax probability, p1 - p2: the default.

    Near 1, where float32 holds no more than seven digits of it, it comes of what is missing
    to 1, in float64: that tells gaps of up to 34 between two logits apart, not 16.
    """

    name: ClassVar[str] = "margin"
    meaning: ClassVar[str] = "the probability of its likeliest class minus that of the second"

    def __call__(self, outputs: Outputs) -> FloatArray:
        """Score each sample; see `Score`."""
        classes, probabilities = outputs.top(2)
        best = probabilities.astype(np.float64)
        if best.shape[1] == 1:
            return best[:, 0]
        margin: FloatArray = best[:, 0] - best[:, 1]
        if outputs.logits is None:
            return margin
        if len(margin) == 1:  # a frame on a device: what follows, without tables
            if margin[0] > NEARLY_CERTAIN:
                margin[0] = _exact_margin_of_one(outputs.logits[0], classes[0])
            return margin
        near = margin > NEARLY_CERTAIN
        if near.any():
            margin[near] = _exact_margin(outputs.logits[near], classes[near])
        return margin

    def fixed_thresholds(self) -> FloatArray:
        """Margins from 1 - 1e-15 to 0."""
        return probability_thresholds()


def _exact_margin(logits: NDArray[np.float32], best: NDArray[np.int64]) -> FloatArray:
    """One minus what is missing to a margin of 1, which is small where the margin is near 1."""
    rows = np.arange(len(logits))
    others = logits - logits[rows, best[:, 0]][:, None]
    np.exp(others, out=others)
    others[rows, best[:, 0]] = 0.0
    rest = np.add.reduce(others, axis=1).astype(np.float64)
    missing: FloatArray = (rest + others[rows, best[:, 1]]) / (1.0 + rest)
    return 1.0 - missing


def _exact_margin_of_one(logits: NDArray[np.float32], best: NDArray[np.int64]) -> float:
    """The same of one sample, to the bit: single numpy calls are most of what it costs."""
    first, second = best
    others = logits - logits[first]
    np.exp(others, out=others)
    others[first] = 0.0
    rest = float(np.add.reduce(others))
    return 1.0 - (rest + float(others[second])) / (1.0 + rest)


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
    meaning: ClassVar[str] = "how far its probabilities are from evenly spread"

    def __call__(self, outputs: Outputs) -> FloatArray:
        """Score each sample; see `Score`."""
        return outputs.reduce_probabilities(_negative_entropy, depth=self.depth)


@dataclass(frozen=True, slots=True)
class Doctor(_Summed):
    """-(1 - Σp²) / Σp² (Granese et al., arXiv 2106.02395); truncated over top-k records."""

    name: ClassVar[str] = "doctor"
    meaning: ClassVar[str] = "how likely two draws from its probabilities agree"

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


@dataclass(frozen=True, slots=True)
class MaxLogitPNorm(Score):
    """max (z - μ) / ‖z - μ‖_p, over logits z with mean μ (Cattelan and Silva, arXiv 2305.15508).

    Attributes:
        p: order of the norm, >= 1; chosen on the tune split.
    """

    name: ClassVar[str] = "maxlogit_pnorm"
    meaning: ClassVar[str] = "how far its highest logit stands out among the others"
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
    meaning: ClassVar[str] = "the probability of its likeliest class, with softened logits"
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
