"""Deferral scores: how far a saver's answer may be trusted; shared by calibration and the device.

Most need no fitting, and some of these work on top-k records too; `Head` is learned. Other packages
bring theirs through entry points.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.plug_ins import Parametrised, PlugIns
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import FloatArray, Outputs, by_blocks

if TYPE_CHECKING:
    from typing_extensions import Self

TINY = np.finfo(np.float32).tiny
NEARLY_CERTAIN = 0.999
"""Above this a margin is worked out in float64."""

DEPTH = 5
FEATURES = 4
FLOOR = 1e-6
"""A chance to be wrong below this counts as this: float32 tells no smaller one from 0."""

PLUG_INS = PlugIns("score", InputError)
"""Scores of other packages, each named as ``my_score = "my_package.module:MyScore"``."""


class Score(Parametrised, ABC):
    """How far a saver's answer can be trusted; higher is safer.

    The same object ranks the calibration samples and decides on the device. Built-in scores are
    frozen dataclasses whose fields are their parameters; a third party's score may override
    `parameters` and `from_parameters` instead.
    """

    __slots__ = ()
    kind: ClassVar[str] = "score"
    meaning: ClassVar[str] = ""
    """What it is, in words for a reader who does not know its name: "the score, ...". Optional."""

    @abstractmethod
    def __call__(self, outputs: Outputs) -> FloatArray:
        """Score each sample.

        Returns:
            float64 (n,). Always float64: a float32 score would be compared with the threshold
            rounded to float32, which moves samples across it.

        Raises:
            InputError: the score cannot be had from these outputs.
        """

    def suited_to(self, outputs: Outputs) -> Self:
        """This score, pinned to what the outputs hold, so that it means the same on the device.

        A sum over a record's best five probabilities and a sum over all classes are different
        scores. A score that sums returns a copy that sums over as many as the record holds.

        Raises:
            InputError: the score cannot be had from such outputs.
        """
        self(outputs.subset(slice(0, 1)))
        return self

    def fixed_thresholds(self) -> FloatArray | None:
        """Thresholds from strict to loose that hold for any saver, or None where there are none.

        A certificate needs its thresholds before it sees the samples. A score with a known scale
        has such constants; one without needs a tune split to take them from.
        """
        return None


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
        if outputs.margin is not None:
            return outputs.margin
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


BUILT_IN: Mapping[str, type[Score]] = MappingProxyType(
    {
        score.name: score
        for score in (
            MaxSoftmax,
            Margin,
            Entropy,
            Doctor,
            MaxLogitPNorm,
            TemperatureScaled,
            Head,
        )
    }
)


def score_names() -> tuple[str, ...]:
    """Names of all scores there are, the built-in ones first."""
    return (*BUILT_IN, *sorted(PLUG_INS.names() - set(BUILT_IN)))


def get_score(name: str, parameters: Mapping[str, Any] | None = None) -> Score:
    """Make a score from its name and stored parameters, as a bundle holds them.

    Args:
        name: one of `score_names()`.
        parameters: what the score's `parameters` gave; None for none.

    Raises:
        InputError: no score has this name, its package cannot be loaded, or a parameter is wrong.
    """
    return _score_class(name).from_parameters(parameters or {})


def _score_class(name: str) -> type[Score]:
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name not in PLUG_INS.names():
        raise InputError(f"no score is called {name!r}: there are {', '.join(score_names())}")
    brought = PLUG_INS.load(name)
    if not (isinstance(brought, type) and issubclass(brought, Score)):
        raise InputError(f"{PLUG_INS.told(name)} is no subclass of tinysaver_edge.Score")
    return brought
