"""The learned score: will asking the large model help on this frame, or harm?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import FloatArray, Outputs
from tinysaver_edge.score.base import Score

DEPTH = 5
FEATURES = 4
FLOOR = 1e-6
"""A chance to be wrong below this counts as this: float32 tells no smaller one from 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Head(Score):
    """P(large wrong, saver right) - P(large right, saver wrong), each from a logistic regression.

    An answer is worth deferring when the large model is expected to help, not merely when the
    saver is unsure (Jitkrittum et al., arXiv 2307.02764). Evaluated with numpy in tens of
    microseconds for one frame.

    Attributes:
        help: weights for "only the large model is right": the intercept, then one for each column
            of `head_features`.
        harm: weights for "only the saver is right", likewise.
        depth: how many of the best probabilities the entropy is taken over.
        class_help: added to the first regression's logit by predicted class; empty for none.
        class_harm: added to the second's, likewise.
    """

    name: ClassVar[str] = "head"
    meaning: ClassVar[str] = (
        "how much more likely the large model is to spoil a right answer than to mend a wrong one"
    )
    help: tuple[float, ...]
    harm: tuple[float, ...]
    depth: int = DEPTH
    class_help: tuple[float, ...] = ()
    class_harm: tuple[float, ...] = ()
    _weights: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.check_number(self.depth, parameter="depth", low=2)
        for name in ("help", "harm", "class_help", "class_harm"):
            for value in getattr(self, name):
                self.check_number(value, parameter=name, low=-1e9, high=1e9)
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        if not len(self.help) == len(self.harm) == 1 + FEATURES:
            raise InputError(
                f"score 'head': {len(self.help)} help and {len(self.harm)} harm weights, "
                f"expected {1 + FEATURES} of each"
            )
        if len(self.class_help) != len(self.class_harm):
            raise InputError("score 'head': class_help and class_harm differ in length")
        object.__setattr__(self, "_weights", np.array([self.help, self.harm], dtype=np.float64))

    @property
    def parameters(self) -> dict[str, Any]:
        """Coefficients as JSON values."""
        fields = ("help", "harm", "class_help", "class_harm")
        return {"depth": self.depth} | {field: list(getattr(self, field)) for field in fields}

    def __call__(self, outputs: Outputs) -> FloatArray:
        """Score each sample; see `Score`.

        Raises:
            InputError: the outputs know fewer probabilities than the head was fitted on.
        """
        features = head_features(outputs, depth=self.depth)
        # Not a matrix product: BLAS rounds one row differently from many.
        logits = np.add.reduce(features[:, None, :] * self._weights[:, 1:], axis=2)
        logits += self._weights[:, 0]
        if self.class_help:
            predicted = outputs.top(1)[0][:, 0]
            if predicted.size and predicted.max() >= len(self.class_help):
                raise InputError("score 'head' was fitted for fewer classes than the saver has")
            logits[:, 0] += np.asarray(self.class_help)[predicted]
            logits[:, 1] += np.asarray(self.class_harm)[predicted]
        chances = 1 / (1 + np.exp(-logits))
        difference: FloatArray = chances[:, 1] - chances[:, 0]
        return difference


def head_features(outputs: Outputs, *, depth: int) -> FloatArray:
    """What the head looks at: few features, so that a few hundred samples can fit it.

    All log-probabilities and their gaps were tried and lose to these four: at 50,000 ImageNet
    records with 5 % of them for the fit, mean certified cost over 23 pairs is 0.496 with eleven
    features and 0.490 with these (`benchmarks/bench_certified_cost.py` has the head's row).

    Returns:
        (n, 4): margin p1 - p2, p1, log(1 - p1), and sum of p log p over the best `depth`.

    Raises:
        InputError: the outputs know fewer than `depth` probabilities.
    """
    best = outputs.top(depth)[1].astype(np.float64)
    if best.shape[1] != depth:
        raise InputError(
            f"score 'head' needs the best {depth} probabilities, the outputs hold {best.shape[1]}"
        )
    features = np.empty((len(best), FEATURES))
    features[:, 0] = best[:, 0] - best[:, 1]
    features[:, 1] = best[:, 0]
    np.log(np.maximum(1.0 - best[:, 0], FLOOR), out=features[:, 2])
    logs = np.log(np.maximum(best, np.finfo(np.float32).tiny))
    logs *= best
    np.add.reduce(logs, axis=1, out=features[:, 3])
    return features
