"""Path: the thresholds and the pool of all stages of a cascade, as a family of one parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinysaver_edge.fusion import LinearFusion
from tinysaver_edge.outputs import FloatArray, IntArray, Outputs

RATIO = 0.2
"""By what the odds of a threshold fall from one stage to the next."""

BETWEEN = 0.5
"""Weight of what was answered before, in the pool of all stages but the last."""

LAST = 0.3
"""Its weight beside the large model's answer."""


@dataclass(frozen=True, slots=True)
class Path:
    """How the thresholds of a cascade's stages follow from the first one's.

    Of a score within 0..1 the odds t / (1 - t) fall by one ratio from stage to stage: strict for
    all of them at t near 1, where a ratio of the thresholds themselves would let the second stage
    accept a lot at once, and loose for all of them at 0. The constants were chosen on the published
    ImageNet records (`benchmarks/bench_certified_cost.py`); a certificate holds whatever they are.

    Attributes:
        stages: how many have a threshold: all but the last.
        ratio: of the odds; with one threshold it says nothing.
        pool: the weight of what was answered before, of each stage but the first; None where
            nothing is pooled.
    """

    stages: int = 1
    ratio: float = RATIO
    pool: tuple[float, ...] | None = None

    @classmethod
    def of(cls, stages: int, *, final: bool = True) -> Path:
        """Return the path of so many stages with a threshold: pooled where there are several.

        Args:
            stages: all but the last.
            final: whether the large model's answer is pooled with those before it as well.
        """
        pool = (*[BETWEEN] * (stages - 1), LAST if final else 0.0) if stages > 1 else None
        return cls(stages, pool=pool)

    def thresholds(self, first: FloatArray) -> FloatArray:
        """Return every stage's thresholds for some of the first one's, (k,) -> (stages, k)."""
        t = np.asarray(first, np.float64)
        rows = [t]
        for place in range(1, self.stages):
            ratio = self.ratio**place
            rows.append(ratio * t / (1 - t + ratio * t))
        return np.stack(rows)

    def at(self, first: float) -> tuple[float, ...]:
        """Return every stage's threshold for one of the first one's."""
        return tuple(self.thresholds(np.array([first]))[:, 0].tolist())

    def settles(self, scores: FloatArray, first: float) -> IntArray:
        """Return the stage that settles each sample by itself, ``(n,)``.

        Args:
            scores: float64 (stages, n), of the answer after each stage that has a threshold.
            first: the first one's threshold.
        """
        held = np.array(self.at(first))[:, None]
        reaches = np.vstack((scores >= held, np.ones((1, scores.shape[1]), bool)))
        stage: IntArray = reaches.argmax(axis=0)
        return stage

    def pooled(self, outputs: Sequence[Outputs]) -> list[Outputs]:
        """Return the answer after each stage, of what the models answered on the same samples."""
        answers = [outputs[0]]
        weights = self.pool or (0.0,) * (len(outputs) - 1)
        for here, weight in zip(outputs[1:], weights, strict=True):
            answers.append(LinearFusion(weight).pooled(answers[-1], here) if weight else here)
        return answers
