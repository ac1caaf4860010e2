"""What a codec costs the large model by itself: accuracy on pixels against that on what is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinysaver_edge.calibrate.problem import Problem
from tinysaver_edge.certificate import Evidence, Step, least_certifiable_points
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.outputs import IntArray


@dataclass(frozen=True, slots=True)
class CodecCost:
    """The large model on the same samples, with and without its codec.

    A cascade's drop counts from the large model as it is asked, so this comes on top of it.

    Attributes:
        codec: what frames pass on their way to it.
        accuracy_pixels: share it gets right on pixels, 0..1.
        accuracy_sent: share it gets right on what is sent.
        at_most_points: upper bound on the drop between the two, in points, by the certificate's
            own test; None for samples in groups.
        confidence: of the bound.
    """

    codec: Jpeg
    accuracy_pixels: float
    accuracy_sent: float
    at_most_points: float | None
    confidence: float

    @property
    def drop_points(self) -> float:
        """How much accuracy it costs, in points."""
        return 100 * (self.accuracy_pixels - self.accuracy_sent)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            "accuracy_pixels": self.accuracy_pixels,
            "accuracy_jpeg": self.accuracy_sent,
            "drop_points": self.drop_points,
            "at_most_points": self.at_most_points,
        }

    def __str__(self) -> str:
        bound = f", at most {self.at_most_points:.2f}" if self.at_most_points is not None else ""
        return f"{self.drop_points:.2f} points{bound}"


def codec_cost(
    problem: Problem, on_pixels: IntArray, codec: Jpeg, *, confidence: float
) -> CodecCost:
    """Compare the large model's answers with those that it gives on pixels.

    Args:
        problem: labelled samples with the large model's answers on what is sent.
        on_pixels: ``(n,)`` its answers on the same samples' pixels.
        codec: what lies between the two.
        confidence: of the bound, 0..1.
    """
    sent = problem.large.outputs.predictions == problem.labels
    pixels = np.equal(on_pixels, problem.labels)
    bound = None
    if problem.groups is None:
        bound = least_certifiable_points(
            Step(0.0, 0, int((pixels & ~sent).sum()), int((sent & ~pixels).sum())),
            evidence=Evidence.LABELS,
            samples=len(sent),
            risk=1 - confidence,
        )
    return CodecCost(codec, float(pixels.mean()), float(sent.mean()), bound, confidence)
