"""What is known of the true classes, and what a question is; see docs/questions.md."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.outputs import IntArray

UNKNOWN = -1
"""Stands for the class of a sample that nobody has told."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which of two classes is right on a sample?

    Attributes:
        id: 16 hexadecimal digits of picture and pair; the same in every run that has both.
        sample: position in the data.
        file: name of the picture within the data; "" where there is none.
        a: index of a class.
        b: index of the other. Which of the two comes first is drawn by the id, so that the order
            does not tell whose answer is whose.
        frames: how many frames of a stream it stands for, one after the other; this one is in
            their middle.
    """

    id: str
    sample: int
    file: str
    a: int
    b: int
    frames: int = 1

    @classmethod
    def of(
        cls, key: str, sample: int, file: str, one: int, other: int, *, frames: int = 1
    ) -> Question:
        """Make a question of what tells a picture from all others, and two classes in any order."""
        low, high = sorted((int(one), int(other)))
        name = question_id(key, low, high)
        if int(_digest("order", name)[0], 16) % 2:
            low, high = high, low
        return cls(name, int(sample), file, low, high, frames)


def question_id(key: str, one: int, other: int) -> str:
    """Return a question's id."""
    low, high = sorted((int(one), int(other)))
    return _digest("question", key, str(low), str(high))


def _digest(*parts: str) -> str:
    text = "\0".join(parts).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of the true classes of n samples; labels are the case where all are.

    Attributes:
        truth: int64 (n,), the true class, `UNKNOWN` where nobody has told.
        large_wrong: bool (n,), samples on which an answer "neither" tells that the large model is
            wrong, though not what is right.
    """

    truth: IntArray
    large_wrong: NDArray[np.bool_]

    @classmethod
    def of_labels(cls, labels: IntArray) -> Known:
        """All is known."""
        truth = np.asarray(labels, np.int64)
        return cls(truth, np.zeros(len(truth), bool))

    @classmethod
    def nothing(cls, samples: int) -> Known:
        """Nothing is known."""
        return cls.of_labels(np.full(samples, UNKNOWN, np.int64))

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.truth)

    def subset(self, index: IntArray) -> Known:
        """Return what is known of some of the samples."""
        return Known(self.truth[index], self.large_wrong[index])

    def losses(self, answers: IntArray, large: IntArray) -> NDArray[np.int8]:
        """Return D of each sample, the greatest that it may be where that is not known.

        Where both answers are equal D is 0 whatever is right. Where they differ and nothing is
        known D counts as 1; where the large model is known to be wrong it is 0 at most.

        Args:
            answers: int64 (n,), the answers given.
            large: int64 (n,), the large model's.

        Returns:
            int8 (n,) of -1, 0 and 1.
        """
        worst: NDArray[np.int8] = np.subtract(
            large == self.truth, answers == self.truth, dtype=np.int8
        )
        worst[self.open(answers, large)] = 1
        return worst

    def open(self, answers: IntArray, large: IntArray) -> NDArray[np.bool_]:
        """Return where nobody has told whether something is lost, bool (n,); as for `losses`."""
        untold: NDArray[np.bool_] = (self.truth == UNKNOWN) & ~self.large_wrong
        untold &= answers != large
        return untold
