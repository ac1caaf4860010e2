"""Fused answers: after an escalation both models' outputs are known, and both count.

None, a weighted mean, a conditional logit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.plug_ins import Parametrised
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray, Outputs

ROWS = 1 << 16
"""Samples that are fused at a time: lists of both models side by side take 1 KB a sample."""

DEPTH = 5
"""Classes looked at in each model's list. A record of five means what logits mean on the device."""


class Fusion(Parametrised, ABC):
    """Combines the saver's and the large model's outputs into one answer.

    Both models must index classes alike.

    Attributes:
        changes_answers: False where the answer is always the large model's.
    """

    __slots__ = ()
    kind: ClassVar[str] = "fusion"
    changes_answers: ClassVar[bool] = True

    @abstractmethod
    def fuse(self, saver: Outputs, large: Outputs) -> tuple[IntArray, FloatArray]:
        """The answers after an escalation.

        Args:
            saver: the saver's outputs on n samples.
            large: the large model's on the same samples.

        Returns:
            Class indices (n,) and confidences (n,) within 0..1.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The classes of both models' lists, the large model's first.

    Attributes:
        classes: int64 (n, k + m), k from the large model and m from the saver.
        large: float64 (n, k + m), the large model's probability; 0 where its list lacks the class.
        saver: float64 (n, k + m), the saver's, likewise.
        in_large: bool (n, k + m), whether the large model's list has the class.
        in_saver: bool (n, k + m), whether the saver's has.
        repeated: bool (n, k + m), classes that stand further left already.
    """

    classes: IntArray
    large: FloatArray
    saver: FloatArray
    in_large: BoolArray
    in_saver: BoolArray
    repeated: BoolArray

    @classmethod
    def of(cls, saver: Outputs, large: Outputs, *, depth: int) -> Candidates:
        """Line up the best `depth` classes of both models."""
        saver_classes, saver_prob = saver.top(depth)
        large_classes, large_prob = large.top(depth)
        n, k = large_classes.shape
        width = k + saver_classes.shape[1]
        match = large_classes[:, :, None] == saver_classes[:, None, :]
        in_large, in_saver = np.ones((n, width), bool), np.ones((n, width), bool)
        match.any(axis=2, out=in_saver[:, :k])
        match.any(axis=1, out=in_large[:, k:])
        from_large, from_saver = np.zeros((n, width)), np.zeros((n, width))
        from_large[:, :k], from_saver[:, k:] = large_prob, saver_prob
        np.add.reduce(match * saver_prob[:, None, :], axis=2, out=from_saver[:, :k])
        np.add.reduce(match * large_prob[:, :, None], axis=1, out=from_large[:, k:])
        repeated = np.zeros((n, width), bool)
        repeated[:, k:] = in_large[:, k:]
        classes = np.concatenate((large_classes, saver_classes), axis=1)
        return cls(classes, from_large, from_saver, in_large, in_saver, repeated)

    def best(self, utilities: FloatArray) -> tuple[IntArray, IntArray]:
        """Rows and columns of the highest utility; the large model's order breaks ties.

        Args:
            utilities: (n, k + m); those of repeated classes are overwritten with -inf.
        """
        utilities[self.repeated] = -np.inf
        return np.arange(len(utilities)), utilities.argmax(axis=1)


@dataclass(frozen=True, slots=True)
class NoFusion(Fusion):
    """The large model's answer, as if the saver had not been asked."""

    name: ClassVar[str] = "none"
    changes_answers: ClassVar[bool] = False

    def fuse(self, saver: Outputs, large: Outputs) -> tuple[IntArray, FloatArray]:
        """The large model's answers and confidences."""
        return large.predictions, large.confidences


@dataclass(frozen=True, slots=True)
class LinearFusion(Fusion):
    """(1 - w) p_large + w p_saver, over the classes of both models' best lists.

    Attributes:
        weight: w, the saver's share, 0..1.
        depth: classes taken from each list.
    """

    name: ClassVar[str] = "linear"
    weight: float = 0.23
    depth: int = DEPTH

    def __post_init__(self) -> None:
        self.check_number(self.weight, parameter="weight", low=0, high=1)
        self.check_number(self.depth, parameter="depth", low=1)

    def fuse(self, saver: Outputs, large: Outputs) -> tuple[IntArray, FloatArray]:
        """The answers with the highest mean probability, and that probability."""
        return _by_rows(self._fused, saver, large)

    def _fused(self, saver: Outputs, large: Outputs) -> tuple[IntArray, FloatArray]:
        candidates = Candidates.of(saver, large, depth=self.depth)
        mean = self._mean(candidates)
        where = candidates.best(mean)
        return candidates.classes[where], mean[where]

    def pooled(self, earlier: Outputs, here: Outputs) -> Outputs:
        """The whole mixture, as the outputs that a later stage is mixed with.

        Args:
            earlier: what the stages before answered together, on n samples; weighed with w.
            here: this stage's outputs on the same samples.

        Returns:
            The best classes of the mean, as many as the longer of both lists has.
        """
        if here.samples == 1:
            return self._pooled_one(earlier, here)
        classes, mean = _by_rows(self._mixed, earlier, here)
        return Outputs(top_class=classes, top_prob=mean, identity=here.identity)

    def _mixed(self, earlier: Outputs, here: Outputs) -> tuple[IntArray, NDArray[np.float32]]:
        candidates = Candidates.of(earlier, here, depth=self.depth)
        mean = self._mean(candidates)
        mean[candidates.repeated] = -np.inf
        width = max(min(self.depth, earlier.width), min(self.depth, here.width))
        order = np.argsort(-mean, axis=1, kind="stable")[:, :width]
        classes: IntArray = np.take_along_axis(candidates.classes, order, axis=1)
        return classes, np.take_along_axis(mean, order, axis=1).astype(np.float32)

    def _mean(self, candidates: Candidates) -> FloatArray:
        mean: FloatArray = (1 - self.weight) * candidates.large + self.weight * candidates.saver
        return mean

    def _pooled_one(self, earlier: Outputs, here: Outputs) -> Outputs:
        """The same for one frame, where numpy's overhead per call is what counts."""
        mean: dict[int, float] = {}
        longest = 0
        for weight, outputs in ((1 - self.weight, here), (self.weight, earlier)):
            classes, probabilities = outputs.top(self.depth)
            longest = max(longest, classes.shape[1])
            for label, p in zip(classes.tolist()[0], probabilities.tolist()[0], strict=True):
                mean[label] = mean.get(label, 0.0) + weight * p
        # Sorting is stable: this stage's order breaks ties.
        best = sorted(mean, key=mean.__getitem__, reverse=True)[:longest]
        return Outputs(
            top_class=np.array([best]),
            top_prob=np.array([[mean[label] for label in best]], np.float32),
            identity=here.identity,
        )


@dataclass(frozen=True, slots=True)
class ConditionalLogit(Fusion):
    """A logit over the classes c of both models' best lists, with four weights and two floors.

        u(c) = large · log(p_large(c) + floor_large) + saver · log(p_saver(c) + floor_saver)
               + absent_large [c not in the large model's list] + absent_saver [not in the saver's]

    A class that a list lacks has p = 0 there. The floors keep a saver that is sure of itself to
    the seventh decimal from outvoting a large model trained with label smoothing. The defaults
    need no samples: they were chosen on 78 pairs of published ImageNet records, where they lower
    the certified cost by 4 % on average and raise it by no more than 2 % on any, and they carry
    over to CIFAR-10 (`benchmarks/bench_certified_cost.py`).

    Attributes:
        large: weight of the large model's log-probability.
        absent_large: added where the large model's list lacks the class.
        absent_saver: added where the saver's list lacks it.
        floor_large: added to every probability of the large model, > 0.
        floor_saver: added to every probability of the saver, > 0.
        depth: classes taken from each list.
    """

    name: ClassVar[str] = "conditional_logit"
    large: float = 0.8
    saver: float = 0.2256
    absent_large: float = 0.0
    absent_saver: float = 0.0
    floor_large: float = 0.01
    floor_saver: float = 0.02
    depth: int = DEPTH

    def __post_init__(self) -> None:
        for parameter in ("large", "saver", "absent_large", "absent_saver"):
            self.check_number(getattr(self, parameter), parameter=parameter, low=-1e6, high=1e6)
        for parameter in ("floor_large", "floor_saver"):
            self.check_number(getattr(self, parameter), parameter=parameter, low=1e-9, high=1)
        self.check_number(self.depth, parameter="depth", low=1)

    @property
    def weights(self) -> FloatArray:
        """The four weights, in the order of `logit_features`, (4,)."""
        return np.array([self.large, self.saver, self.absent_large, self.absent_saver])

    def fuse(self, saver: Outputs, large: Outputs) -> tuple[IntArray, FloatArray]:
        """The answers with the highest utility, and their softmax among the candidates."""
        return _by_rows(self._fused, saver, large)

    def _fused(self, saver: Outputs, large: Outputs) -> tuple[IntArray, FloatArray]:
        candidates = Candidates.of(saver, large, depth=self.depth)
        utilities = self.large * np.log(candidates.large + self.floor_large)
        utilities += self.saver * np.log(candidates.saver + self.floor_saver)
        utilities += self.absent_large * ~candidates.in_large
        utilities += self.absent_saver * ~candidates.in_saver
        rows, columns = candidates.best(utilities)
        highest = utilities[rows, columns]
        total = np.add.reduce(np.exp(utilities - highest[:, None]), axis=1)
        return candidates.classes[rows, columns], 1.0 / total


def _by_rows(
    function: Callable[[Outputs, Outputs], tuple[IntArray, NDArray[Any]]],
    one: Outputs,
    other: Outputs,
) -> tuple[IntArray, NDArray[Any]]:
    """Apply a function of two models' answers to some samples at a time."""
    if one.samples <= ROWS or other.samples != one.samples:
        return function(one, other)
    whole: list[NDArray[Any]] = []
    for start in range(0, one.samples, ROWS):
        part = slice(start, start + ROWS)
        found = function(one.subset(part), other.subset(part))
        if not whole:
            whole = [np.empty((one.samples, *each.shape[1:]), each.dtype) for each in found]
        for into, each in zip(whole, found, strict=True):
            into[part] = each
    return whole[0], whole[1]


def logit_features(candidates: Candidates, fusion: ConditionalLogit) -> FloatArray:
    """What a `ConditionalLogit` with the floors of `fusion` weighs, for fitting it.

    Returns:
        (n, classes, 4): log p_large, log p_saver, absent from the large list, from the saver's.
    """
    return np.stack(
        (
            np.log(candidates.large + fusion.floor_large),
            np.log(candidates.saver + fusion.floor_saver),
            ~candidates.in_large,
            ~candidates.in_saver,
        ),
        axis=2,
    )


FUSIONS: Mapping[str, type[Fusion]] = MappingProxyType(
    {fusion.name: fusion for fusion in (NoFusion, LinearFusion, ConditionalLogit)}
)


def fusion_names() -> tuple[str, ...]:
    """Names of all fusions there are."""
    return tuple(FUSIONS)


def get_fusion(name: str, parameters: Mapping[str, Any] | None = None) -> Fusion:
    """Make a fusion from its name and stored parameters, as a bundle holds them.

    Raises:
        InputError: no fusion has this name, or a parameter is wrong.
    """
    if name not in FUSIONS:
        raise InputError(f"no fusion is called {name!r}: there are {', '.join(FUSIONS)}")
    return FUSIONS[name].from_parameters(parameters or {})
