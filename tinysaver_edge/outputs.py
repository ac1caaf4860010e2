"""What one model answered on n samples: logits, or the best K classes and their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinysaver_edge.decision import ModelIdentity
from tinysaver_edge.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

BLOCK_ELEMENTS = 1 << 18
"""How many logits are worked on at a time: 1 MiB of float32 stays in a core's cache."""

ITERATED_TOP = 16
"""Up to this k, taking the maximum k times is quicker than sorting every row."""


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """One model's answers on n samples; exactly one of the two forms is there.

    The constructor takes the arrays as they are, for the runtime's sake. `from_logits`,
    `from_probabilities` and `from_topk` check them first.

    Attributes:
        logits: float32 (n, classes), or None.
        top_class: int64 or int32 (n, K), by falling probability, or None.
        top_prob: float32 (n, K), softmax probabilities, falling along each row, or None.
        identity: which model another host says it answered with; None where it ran here.
        margin: float64 (n,), beside the best K: the best probability less the second, as all
            logits tell it where float32 no longer does; None where that is not known.
    """

    logits: NDArray[np.float32] | None = None
    top_class: IntArray | None = None
    top_prob: NDArray[np.float32] | None = None
    identity: ModelIdentity | None = None
    margin: FloatArray | None = None
    _tops: list[tuple[IntArray, NDArray[np.float32]]] = field(
        default_factory=list, init=False, repr=False
    )

    @classmethod
    def from_logits(cls, logits: ArrayLike) -> Outputs:
        """Check and wrap logits.

        Args:
            logits: (n, classes), finite.

        Raises:
            InputError: the array is not two-dimensional, has no class, or holds NaN or infinity.
        """
        values = np.ascontiguousarray(logits, dtype=np.float32)
        _check_table(values, "logits")
        return cls(logits=values)

    @classmethod
    def from_probabilities(cls, probabilities: ArrayLike) -> Outputs:
        """Wrap probabilities over all classes, as a model that ends in a softmax gives them.

        They are kept as their logarithms, of which the softmax is the same again. Zeros, which
        quantised outputs are full of, count as 1e-10.

        Args:
            probabilities: (n, classes), not negative; rows need not sum to exactly 1.

        Raises:
            InputError: the array is not two-dimensional, or holds NaN, infinity or negatives.
        """
        values = np.asarray(probabilities, dtype=np.float32)
        _check_table(values, "probabilities")
        if values.size and values.min() < 0:
            raise InputError(
                f"probabilities hold {values.min():.3g}: the model ends in no softmax; "
                "describe its output as logits"
            )
        return cls(logits=np.log(np.maximum(values, np.float32(1e-10))))

    @classmethod
    def from_topk(
        cls, top_class: ArrayLike, top_prob: ArrayLike, *, margin: ArrayLike | None = None
    ) -> Outputs:
        """Check and wrap the best K classes of each sample.

        Args:
            top_class: (n, K) class indices, the most probable first.
            top_prob: (n, K) their softmax probabilities.
            margin: (n,) the best probability less the second, to more digits; None where not known.

        Raises:
            InputError: shapes differ, rows are not sorted, or values are no probabilities.
        """
        whole = np.asarray(top_class)
        narrow = whole.dtype.kind == "i" and whole.dtype.itemsize < 8  # a fraction of the memory
        width: Any = np.int32 if narrow else np.int64
        classes = np.ascontiguousarray(whole, dtype=width)
        probabilities = np.ascontiguousarray(top_prob, dtype=np.float32)
        _check_table(probabilities, "top-k probabilities")
        if classes.shape != probabilities.shape:
            raise InputError(
                f"top-k classes have shape {classes.shape} but their probabilities "
                f"{probabilities.shape}: give both as (n, K)"
            )
        if classes.size and classes.min() < 0:
            raise InputError(f"top-k classes hold {classes.min()}, below 0: give class indices")
        if probabilities.size and not (probabilities.min() >= 0 and probabilities.max() <= 1.001):
            raise InputError("top-k probabilities lie outside 0..1: give softmax outputs")
        unsorted = (probabilities[:, 1:] > probabilities[:, :-1]).any(axis=1)
        if unsorted.any():
            raise InputError(
                f"top-k probabilities of sample {int(unsorted.argmax())} do not fall along the "
                "row: sort each sample by falling probability"
            )
        exact = None if margin is None else np.ascontiguousarray(margin, dtype=np.float64)
        if exact is not None and not (
            exact.shape == (len(classes),) and ((exact >= 0) & (exact <= 1)).all()
        ):
            raise InputError("margins beside top-k probabilities: give one within 0..1 a sample")
        return cls(top_class=classes, top_prob=probabilities, margin=exact)

    @property
    def samples(self) -> int:
        """How many samples were answered."""
        return len(self._table)

    @property
    def truncated(self) -> bool:
        """True where only the best K classes are known."""
        return self.logits is None

    @property
    def width(self) -> int:
        """Number of known values a sample: all classes, or K."""
        return int(self._table.shape[1])

    @property
    def predictions(self) -> IntArray:
        """The most probable class of each sample, (n,); the lower index where two are equal."""
        if self.logits is not None:
            best: IntArray = self.logits.argmax(axis=1)
            return best
        return self.top(1)[0][:, 0]

    @property
    def confidences(self) -> FloatArray:
        """Softmax probability of the predicted class, (n,)."""
        return self.top(1)[1][:, 0].astype(np.float64)

    def top(self, k: int) -> tuple[IntArray, NDArray[np.float32]]:
        """The best classes of each sample and their softmax probabilities.

        Args:
            k: how many; fewer come back where the outputs hold fewer.

        Returns:
            classes (n, k) and probabilities (n, k), by falling probability; equal ones by rising
            class index.
        """
        if self.top_class is not None and self.top_prob is not None:
            return self.top_class[:, :k], self.top_prob[:, :k]
        if not self._tops or self._tops[0][0].shape[1] < min(k, self.width):
            self._tops[:] = [_top_of_logits(self._table, min(k, self.width))]
        classes, probabilities = self._tops[0]
        return classes[:, :k], probabilities[:, :k]

    def subset(self, index: Any) -> Outputs:  # noqa: ANN401 - whatever numpy takes as an index
        """The same model's answers on some of the samples.

        Args:
            index: a slice, a boolean mask (n,) or integer indices, repeated ones included.
        """
        if self.logits is not None:
            return Outputs(logits=self.logits[index], identity=self.identity)
        assert self.top_class is not None
        assert self.top_prob is not None
        return Outputs(
            top_class=self.top_class[index],
            top_prob=self.top_prob[index],
            identity=self.identity,
            margin=None if self.margin is None else self.margin[index],
        )

    def narrowed(self, k: int, *, margin: FloatArray | None = None) -> Outputs:
        """The same answers, of which only the best k classes are kept.

        Args:
            k: how many.
            margin: (n,) what is kept beside them.
        """
        classes, probabilities = self.top(k)
        return Outputs(
            top_class=classes.copy(),
            top_prob=probabilities.copy(),
            identity=self.identity,
            margin=margin,
        )

    def reduce_probabilities(
        self, function: Callable[[NDArray[np.float32]], NDArray[Any]], *, depth: int | None = None
    ) -> FloatArray:
        """One number a sample from all its known probabilities.

        Args:
            function: takes probabilities (rows, width), in any order, and returns (rows,). It is
                called on blocks of rows, so that 50,000 x 1,000 logits need no second copy.
            depth: give it only the best `depth` probabilities of each sample; None for all.
        """
        if depth is not None or self.logits is None:
            known = self.top(self.width if depth is None else depth)[1]
            return by_blocks(known, function)
        return by_blocks(self.logits, lambda logits: function(_softmax(logits)))

    @property
    def _table(self) -> NDArray[np.float32]:
        table = self.logits if self.logits is not None else self.top_prob
        if table is None:
            raise InputError("outputs hold neither logits nor top-k probabilities")
        return table


def _check_table(values: NDArray[np.float32], what: str) -> None:
    if values.ndim != 2 or values.shape[1] == 0:
        raise InputError(f"{what} have shape {values.shape}: give them as (samples, classes)")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).any(axis=1).argmax())
        raise InputError(
            f"{what} of sample {bad} hold NaN or infinity: check the model and its preprocessing"
        )


def by_blocks(
    table: NDArray[np.float32], function: Callable[[NDArray[np.float32]], NDArray[Any]]
) -> FloatArray:
    """Apply a function of rows (rows, width) -> (rows,) a cache-sized block at a time."""
    step = max(1, BLOCK_ELEMENTS // table.shape[1])
    if len(table) <= step:
        return np.asarray(function(table), dtype=np.float64)
    result = np.empty(len(table))
    for start in range(0, len(table), step):
        result[start : start + step] = function(table[start : start + step])
    return result


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    highest = logits.max(axis=1, keepdims=True)
    weights: NDArray[np.float32] = np.exp(logits - highest)
    weights /= np.add.reduce(weights, axis=1, keepdims=True)
    return weights


def _top_of_logits(logits: NDArray[np.float32], k: int) -> tuple[IntArray, NDArray[np.float32]]:
    """Best k classes and their softmax probabilities, block by block."""
    n, width = logits.shape
    if n == 1:
        return _top_of_one(logits[0], k)
    classes = np.empty((n, k), dtype=np.int64)
    probabilities = np.empty((n, k), dtype=np.float32)
    step = max(1, BLOCK_ELEMENTS // width)
    for start in range(0, n, step):
        part = slice(start, start + step)
        _fill_top(logits[part], classes[part], probabilities[part])
    return classes, probabilities


def _top_of_one(row: NDArray[np.float32], k: int) -> tuple[IntArray, NDArray[np.float32]]:
    """The same for one frame, where numpy's overhead per call is what counts (about 6 µs)."""
    best = row.argmax()
    weights = np.exp(row - row[best])
    total = np.add.reduce(weights)
    if k > ITERATED_TOP:
        classes = np.argsort(-row, kind="stable")[:k]
        return classes[None], (weights[classes] / total)[None]
    classes = np.empty((1, k), dtype=np.int64)
    probabilities = np.empty((1, k), dtype=np.float32)
    left = row.copy() if k > 1 else row
    for rank in range(k):
        classes[0, rank] = best
        probabilities[0, rank] = weights[best] / total
        if rank + 1 < k:
            left[best] = -np.inf
            best = left.argmax()
    return classes, probabilities


def _fill_top(
    logits: NDArray[np.float32], classes: IntArray, probabilities: NDArray[np.float32]
) -> None:
    """Write one block's best classes and probabilities into arrays of (rows, k)."""
    rows = np.arange(len(logits))
    k = classes.shape[1]
    best = logits.argmax(axis=1)
    weights = np.exp(logits - logits[rows, best][:, None])
    if k > ITERATED_TOP:
        classes[:] = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    else:
        classes[:, 0] = best
        left = logits.copy() if k > 1 else logits
        for rank in range(1, k):
            left[rows, classes[:, rank - 1]] = -np.inf
            classes[:, rank] = left.argmax(axis=1)
    total = np.add.reduce(weights, axis=1, keepdims=True)
    np.divide(weights[rows[:, None], classes], total, out=probabilities)


def all_but(index: IntArray | Sequence[int], count: int) -> IntArray:
    """The positions 0 to count - 1 without some of them, rising; no sort of ten million numbers."""
    kept = np.ones(count, bool)
    kept[np.asarray(index, np.int64)] = False
    return np.flatnonzero(kept)


def check_labels(labels: NDArray[np.int64], outputs: Outputs, *, model: str) -> None:
    """Refuse labels that are no class of a model; top-k records do not tell how many there are.

    Raises:
        InputError: naming the first of them.
    """
    if outputs.truncated or not len(labels) or labels.max() < outputs.width:
        return
    sample = int((labels >= outputs.width).argmax())
    raise InputError(
        f"label {labels[sample]} of sample {sample}, but model {model} has {outputs.width} "
        f"classes, counted from 0: the labels are of other classes"
    )


MOST_LEVELS = 1024
"""Answers that take no more values than this are quantised: two INT8 logits differ in 511 ways, and
each way gives two probabilities."""

LEAST_DOUBT = 1e-3
"""What a model must leave open of a sample for its answer to tell it from others: probabilities
nearer to 1 are coarse."""

_ALONE = 0.9  # of the values in the rows that differ
_COUNTED = 1 << 18  # values, of all that there are
_SEED = 0xC0B1


def sample_hashes(answers: Sequence[Outputs]) -> NDArray[np.uint64]:
    """Return what tells each sample from others by what models answered: ``(n,)``, 0 for nothing.

    Args:
        answers: each model's on the same n samples.
    """
    rows = np.zeros(answers[0].samples, np.uint64)
    fine = [_tells_apart(one) for one in answers if _is_fine(one)]
    if fine:
        for number, one in enumerate(answers):
            rows += _row_hashes(one, seed=_SEED + number)
        rows[~np.logical_or.reduce(fine)] = 0
    return rows


def _is_fine(outputs: Outputs) -> bool:
    """Whether a model's answers take so many values that equal ones are no chance.

    Few values are few samples copied often, where nearly every one in a row stands in that row
    alone; of two classes, nothing tells them from quantised ones.
    """
    table = outputs._table
    rows = max(1, _COUNTED // table.shape[1])
    values = table[:: max(1, len(table) // rows)][:rows]
    found = len(np.unique(values))
    return found > MOST_LEVELS or (
        table.shape[1] > 2 and found > _ALONE * np.unique(values, axis=0).size
    )


def _tells_apart(outputs: Outputs) -> NDArray[np.bool_]:
    """Return for which samples one model's answer is fine: enough values, and not saturated."""
    return np.asarray(outputs.confidences < 1 - LEAST_DOUBT)


def _row_hashes(outputs: Outputs, *, seed: int) -> NDArray[np.uint64]:
    parts = [np.ascontiguousarray(outputs._table).view(np.uint32)]
    if outputs.top_class is not None:
        parts.append(outputs.top_class.astype(np.uint32))
    rng = np.random.default_rng(seed)
    hashes = np.zeros(outputs.samples, np.uint64)
    for part in parts:
        odd = rng.integers(1 << 63, size=part.shape[1], dtype=np.uint64) * np.uint64(2)
        odd += np.uint64(1)
        step = max(1, BLOCK_ELEMENTS // part.shape[1])
        for start in range(0, len(part), step):
            hashes[start : start + step] += (part[start : start + step] * odd).sum(axis=1)
    return hashes
