"""What a fusion is: the answer given after an escalation, from both models' outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinysaver_edge._support.parameters import Parametrised
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray, Outputs

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
