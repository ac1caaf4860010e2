"""Are the labels a model's own answers, all of them or a good part? Then no accuracy is known.

Whoever labels a picture does not know where a model's mind turns from one class to the other. Where
its two best classes are all but level, either is the label as often as the other, whatever the
model, its scale and its prejudices are: the labels run on across that edge. Where they jump there,
the model, or a cascade that asked it, has written them. (Discontinuities are looked for in this way
since Thistlethwaite and Campbell, 1960.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.fusion import Candidates, ConditionalLogit, LinearFusion, logit_features
from tinysaver_edge.outputs import Outputs

FEWEST = 200
FEWEST_WRONG = 10
"""With so many samples, and a saver wrong on so many, a large model is not right on every one."""

SURE = 8.0
"""Log-ratio of a model's two best classes at the median, below which its scale counts as too small:
it is sharpened to this. So a model that is trained to hedge is not held to its own modesty."""

BY_CHANCE = 1e-4
"""What is rarer among honest labels is asked about."""

NEAR = 4.0
"""Sharpened log-ratios up to which samples tell of the edge."""

STEEPEST = 1.5
"""How much faster than the sharpened log-ratio the odds of the best class may rise beyond it."""

ALLOWED = 0.2
"""So large log-odds at the edge are none: the odds bend a little on their way there."""

BELOW_A_VOTE = 1.0
"""Log-ratios up to which those of a mixture count: where two models are sure of two classes, it is
that of their weights, 1.2, however good the better one is."""

FAR_BELOW = 0.2
"""A large model is not by so large a share less accurate than a saver, or than its makers state."""

BOTH_WRONG = 0.25
"""Of the samples that a large model gets wrong, a cheaper one gets no fewer wrong, too: what is
hard is hard for both. On ImageNet it is 0.52 to 0.86 (78 pairs of models), on CIFAR-10 0.72."""

_SPREADS = 3.72  # standard deviations that BY_CHANCE lies above
_HIGHEST = 6.0  # log-odds that count as all


MOST = 200_000
"""Of more samples, so many are drawn to look at where answers turn: all of ten million would take
gigabytes and show no more."""


def own_answers(problem: Problem) -> Iterator[str]:
    """Yield a line where labels are a model's, or a cascade's, own answers."""
    found = [*_never_wrong(problem)]
    yield from found or (_with_the_edge(problem) if len(problem.labels) >= FEWEST else ())


def _never_wrong(problem: Problem) -> Iterator[str]:
    """Yield a line where a model, large or saver, is never wrong though another often is.

    Whoever labels by hand and a model differ now and then. With another model that is wrong on so
    many samples, one that is wrong on none has written the labels.
    """
    labels, models = problem.labels, (problem.large, *problem.savers)
    wrong = {one.name: int((one.outputs.predictions != labels).sum()) for one in models}
    worst = max(wrong, key=lambda name: wrong[name])
    for one in models:
        telling = len(labels) >= FEWEST and wrong[worst] >= FEWEST_WRONG
        if wrong[one.name] or not telling:
            yield from _corrected_answers(one, wrong[one.name])
        else:
            yield (
                f"the labels are {one.name}'s own answers on all {len(labels)} samples, while "
                f"{worst} differs on {wrong[worst]}: no accuracy can be measured against them. "
                f"{_SAY}"
            )


_SAY = "Labels that a model wrote certify agreement with it: say --reference large"


def _corrected_answers(model: ModelAnswers, mistakes: int) -> Iterator[str]:
    """Yield a line where labels agree with a model more than it agrees with itself.

    Where its two best classes are all but level, a model is wrong about every other time, and so on
    by their ratio. Whoever corrects a few rows of a model's own answers leaves it right there, too.
    By honest labels, thirteen ImageNet models are wrong some five times as often as said here,
    CIFAR-10's three to four times.
    """
    expected = in_two_minds(model.outputs)
    terms = (
        [j * math.log(expected) - math.lgamma(j + 1) - expected for j in range(mistakes + 1)]
        if expected > mistakes
        else [0.0]
    )
    if sum(map(math.exp, terms)) < BY_CHANCE:
        yield (
            f"{model.name} is wrong on {mistakes} of {model.outputs.samples} samples by the "
            f"labels, but in two minds on so many that at least {expected:.0f} mistakes are to be "
            f"expected: are the labels its own answers, some of them corrected? {_SAY}"
        )


def in_two_minds(outputs: Outputs) -> float:
    """Return how many mistakes a model must expect by the ratio of its two best classes.

    Any third class, and any conceit, adds to them.
    """
    sharpened = _apart(outputs)
    return float((1 / (1 + np.exp(np.minimum(sharpened, 500.0)))).sum())


def _apart(outputs: Outputs) -> NDArray[np.float64]:
    """Return the sharpened log-ratio of each sample's two best classes.

    That of a model which ranks nothing, or knows but one class, is infinite: it says nothing.
    """
    if outputs.width < 2:
        return np.full(outputs.samples, np.inf)
    best = np.maximum(outputs.top(2)[1].astype(np.float64), 1e-30)
    apart = np.log(best[:, 0] / best[:, 1])
    usual = float(np.median(apart))
    if usual <= 0:
        return np.full(outputs.samples, np.inf)
    return np.asarray(apart * max(1.0, SURE / usual))


def _with_the_edge(problem: Problem) -> Iterator[str]:
    """Yield a line where labels turn with the answers of a model, or of a cascade.

    Of a clip or an epoch, whose frames are alike, one frame counts.
    """
    units = problem.groups if problem.timeline is None else problem.timeline.numbers
    kept = np.arange(len(problem.labels))
    if units is not None:
        kept = np.sort(np.unique(units, return_index=True)[1])
    if len(kept) > MOST:
        kept = np.sort(np.random.default_rng(0).permutation(kept)[:MOST])
    large, labels = problem.large.outputs.subset(kept), problem.labels[kept]
    savers = {one.name: one.outputs.subset(kept) for one in problem.savers}
    edges = {name: _Edge.of(one) for name, one in {problem.large.name: large, **savers}.items()}
    for name, one in savers.items():
        wrong, too = large.predictions != labels, one.predictions != labels
        missed = int((wrong & too).sum())
        able = wrong.mean() < too.mean() + FAR_BELOW  # or other classes are the likelier reason
        if able and _far_fewer(missed, int(wrong.sum()), BOTH_WRONG):
            yield (
                f"by the labels {problem.large.name} is wrong on {wrong.sum()} of {len(kept)} "
                f"samples, and {name} on {missed} of those: are the labels own answers of a "
                f"cascade of both? {_SAY}"
            )
            return
    for name, one in savers.items():
        both = f"the cascade of {name} and {problem.large.name}"
        edges[both] = _Edge.of(LinearFusion().pooled(one, large), within=BELOW_A_VOTE)
        edges[f"{both} (conditional logit)"] = _Edge.of_logit(one, large)
    for name, edge in edges.items():
        first, apart = edge.labelled(labels)
        if jump_at_the_edge(first, apart) > _SPREADS:
            near = apart < NEAR / 4
            yield (
                f"where the two best classes of {name} are all but level, the labels are the first "
                f"of them on {int(first[near].sum())} of {int(near.sum())} samples, where about "
                f"half is honest: are the labels, or many of them, its own answers? {_SAY}"
            )
            return


def _far_fewer(found: int, of: int, share: float) -> bool:
    """Whether so few are found less often than by chance, if a share is honest (Chernoff 1952)."""
    if found >= share * of:
        return False
    rate = found / of
    apart = (1 - rate) * math.log((1 - rate) / (1 - share))
    apart += rate * math.log(rate / share) if rate else 0.0
    return of * apart > -math.log(BY_CHANCE)


@dataclass(frozen=True, slots=True)
class _Edge:
    """The two best classes of each sample, and how far they are from being level.

    Attributes:
        classes: int ``(n, 2)``.
        apart: ``(n,)`` sharpened log-ratio of the two; infinite where it tells nothing.
    """

    classes: NDArray[np.int64]
    apart: NDArray[np.float64]

    @classmethod
    def of(cls, outputs: Outputs, *, within: float = math.inf) -> _Edge:
        """Return that of a model; log-ratios beyond what is given tell nothing."""
        if outputs.width < 2:
            return cls(np.zeros((0, 2), np.int64), np.zeros(0))
        classes, best = outputs.top(2)
        apart = _apart(outputs)
        if within < math.inf:
            apart = np.where(best[:, 0] < math.exp(within) * best[:, 1], apart, np.inf)
        return cls(classes, apart)

    @classmethod
    def of_logit(cls, saver: Outputs, large: Outputs) -> _Edge:
        """Return that of both together as the usual conditional logit mixes them."""
        fusion = ConditionalLogit()
        candidates = Candidates.of(saver, large, depth=fusion.depth)
        utilities = logit_features(candidates, fusion) @ fusion.weights
        utilities[candidates.repeated] = -np.inf
        if utilities.shape[1] < 2:
            return cls(np.zeros((0, 2), np.int64), np.zeros(0))
        best = np.argsort(-utilities, axis=1, kind="stable")[:, :2]
        first, second = np.take_along_axis(utilities, best, axis=1).T
        apart = np.where(first - second < BELOW_A_VOTE, first - second, np.inf)
        return cls(np.take_along_axis(candidates.classes, best, axis=1), apart)

    def labelled(self, labels: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return where a label is the first class and not the second, and how far apart these are.

        Only samples count that are labelled with either, and on which the two are near but not
        equal: of equal ones, the order of the classes says which is called the first.
        """
        if not len(self.apart):
            return np.zeros(0, np.bool_), np.zeros(0)
        either = (self.classes == labels[:, None]).any(axis=1)
        either &= (self.apart > 0) & (self.apart < NEAR)
        return (self.classes[:, 0] == labels)[either], self.apart[either]


def jump_at_the_edge(first: NDArray[np.bool_], apart: NDArray[np.float64]) -> float:
    """Return by how many standard deviations labels favour the first class where both are level.

    The log-odds that the label is the first class and not the second, ``a + b · apart``, are fitted
    twice: with the allowed a, and with any larger one, 0 ≤ b ≤ `STEEPEST`. What comes back is the
    signed root of twice the difference of their log-likelihoods. By honest labels a is 0, up to
    what `ALLOWED` lets pass.

    Args:
        first: ``(n,)`` whether the label is the first class, else it is the second.
        apart: ``(n,)`` log-ratio of the two, > 0.
    """
    if not len(first):
        return 0.0
    honest = _likelihood(ALLOWED, first, apart)
    found = max(_likelihood(float(a), first, apart) for a in np.linspace(ALLOWED, _HIGHEST, 12))
    return float(np.sqrt(max(0.0, 2 * (found - honest))))


def _likelihood(a: float, first: NDArray[np.bool_], apart: NDArray[np.float64]) -> float:
    """Return the log-likelihood of the best slope for a; it is concave in the slope."""

    def rising(b: float) -> bool:
        return bool(((first - 1 / (1 + np.exp(-(a + b * apart)))) @ apart) > 0)

    low, high = 0.0, STEEPEST
    if rising(high):
        low = high
    for _ in range(20 if low < high else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) else (low, middle)
    odds = a + low * apart
    return -float(np.logaddexp(0, np.where(first, -odds, odds)).sum())
