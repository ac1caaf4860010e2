"""Do labels and answers speak of the same classes? Where not, every figure after it is void."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.numbers import percent
from tinysaver_edge.calibrate.measured.own_answers import BY_CHANCE, FAR_BELOW, own_answers
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.errors import InputError

FEWEST = 30
"""Samples below which nothing is said: chance does more than an order of classes."""
FEWEST_OF_A_CLASS = 10
NAMED = 3

MOVED = 0.01
"""Classes in another order: so large a share of all answers would fit that do not."""
_SURELY = 4.0  # standard deviations
_SEED = 0x0DE5

MISSING = 0.15
"""So large a share of the classes does not go without a sample by chance: a folder is missing."""

NEVER_ANSWERED = 0.1
"""A model does not leave out classes of so large a share of the samples."""

NEVER_LABELLED = 0.3
"""Nor answers so large a share of them with classes that are no label, unless by chance."""

MERGED = 0.5
"""Nor those of one label so many times as often with such classes as with that label."""

SURE = 0.9
DISBELIEVED = 0.3
"""Where two models are so sure of the same class, not so large a share of the labels is another."""

FARTHEST = 10
"""Rows that labels may have slipped by, where one was lost or added in the middle of them."""


@dataclass(frozen=True, slots=True)
class LabelDoubts:
    """What is doubtful about labels, short of a refusal.

    Attributes:
        stated: what the user vouches for although the answers say otherwise.
    """

    lines: tuple[str, ...] = ()
    stated: tuple[str, ...] = ()


def check_agreement(
    problem: Problem,
    names: Sequence[str] | None,
    *,
    trusted: bool = False,
    published_top1: float | None = None,
) -> LabelDoubts:
    """Refuse labels that are not what the large model's answers can be measured against.

    Args:
        problem: the models' answers, and the labels.
        names: of the classes; None where they are not known.
        trusted: whether the user vouches for the labels.
        published_top1: the large model's accuracy in percent as its makers state it, or None.

    Returns:
        What is doubtful short of that: savers whose answers do not fit, classes without samples;
        and all else where the user vouches for it.

    Raises:
        InputError: the large model does no better than guessing, or would with its classes in
            another order; a model is never wrong where another is, or less often than it
            doubts itself; the large one is far less accurate than a saver, or than its makers
            state; models are sure of what many labels are not; some labels are those of other
            rows; or the labels leave out 15 % of the classes, or name several by one.
    """
    labels, large = problem.labels, problem.large
    refused = list(_refusals(problem, names, published_top1))
    if refused and not trusted:
        end = "" if refused[0].endswith("?") else "."
        raise InputError(f"{refused[0]}{end} {_GO_ON}")
    doubts = [f"the labels count as --trust-labels says, but: {one}" for one in refused]
    doubts += _without_samples(labels, large, names)
    for saver in problem.savers:
        answers = saver.outputs.predictions
        try:
            check_model(labels, answers, model=saver.name)
        except InputError as error:
            doubts.append(str(error))
        else:
            doubts += doubtful_classes(labels, answers, model=saver.name, names=names)
    stated = (f"that its labels are right, although {_brief(problem)}",) if refused else ()
    return LabelDoubts(tuple(doubts), stated)


def _brief(problem: Problem) -> str:
    """Say how far labels and the large model's answers agree."""
    right = float(np.mean(problem.large.outputs.predictions == problem.labels))
    return (
        f"{percent(right, 1)} of {problem.large.name}'s answers fit them, of "
        f"{len(np.unique(problem.labels))} classes"
    )


_GO_ON = (
    "Where the labels are right as they are, say --trust-labels: the certificate then states that "
    "it is your word"
)


def _refusals(
    problem: Problem, names: Sequence[str] | None, published_top1: float | None
) -> Iterator[str]:
    """Yield why the labels cannot be of the large model's classes, or are a model's answers."""
    labels, large = problem.labels, problem.large
    answers = large.outputs.predictions
    yield from _many_missing(labels, large, names)
    yield from own_answers(problem)
    yield from _of_other_rows(labels, answers, model=large.name)
    try:
        check_model(labels, answers, model=large.name)
    except InputError as error:
        yield str(error)
    else:
        doubtful = doubtful_classes(labels, answers, model=large.name, names=names)
        yield from doubtful or _in_another_order(labels, answers, model=large.name)
        yield from _far_below(problem, published_top1)
    yield from _never_answered(labels, answers, model=large.name, names=names)
    yield from _never_labelled(problem, names)


def _in_another_order(
    labels: NDArray[np.int64], answers: NDArray[np.int64], *, model: str
) -> Iterator[str]:
    """Yield a line where answers would fit far better were classes counted in another order.

    Where there are but a few samples a class, no class tells by itself that it is another, all of
    them together do: every other sample says which answer each label mostly gets, and the rest
    whether that holds. A class that is merely taken for a second one does not count, for that one
    is taken for itself.
    """
    samples = len(labels)
    classes = int(max(labels.max(), answers.max())) + 1
    drawn = np.random.default_rng(_SEED).permutation(samples)
    mostly = np.arange(classes)
    halves = drawn[: samples // 2], drawn[samples // 2 :]
    pairs, counts = np.unique(labels[halves[0]] * classes + answers[halves[0]], return_counts=True)
    rising = np.argsort(counts, kind="stable")
    mostly[pairs[rising] // classes] = pairs[rising] % classes  # the most frequent comes last
    often, itself = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    np.maximum.at(often, pairs // classes, counts)
    own = pairs // classes == pairs % classes
    itself[pairs[own] // classes] = counts[own]
    moved = (often >= itself + 2) & (mostly[mostly] != mostly)
    asked = halves[1][moved[labels[halves[1]]]]
    if not len(asked):
        return
    fitting = int((answers[asked] == mostly[labels[asked]]).sum())
    as_they_are = int((answers[asked] == labels[asked]).sum())
    gained = fitting - as_they_are
    if gained > MOVED * len(halves[1]) and gained > _SURELY * (fitting + as_they_are) ** 0.5:
        yield (
            f"model {model}: {percent(as_they_are / len(asked), 1)} of its answers fit the labels "
            f"of {int(moved.sum())} classes, but {percent(fitting / len(asked), 1)} would were "
            "these in another order: do labels and model count the same classes in the same order "
            "(1, 10, 2 is one of text)?"
        )


def _of_other_rows(
    labels: NDArray[np.int64], answers: NDArray[np.int64], *, model: str
) -> Iterator[str]:
    """Yield a line where a stretch of answers fits the labels some rows before or after.

    A row that is lost or added in the middle of a table moves all that follow. Looked for is the
    stretch in which most more answers fit so than as they are, and than by chance.
    """
    samples, fits = len(labels), (answers == labels).astype(np.int8)
    if samples < FEWEST:
        return
    chance = _by_chance(labels, answers)
    for by in (sign * rows for rows in range(1, FARTHEST + 1) for sign in (1, -1)):
        moved = np.zeros_like(fits)
        here = slice(max(0, -by), samples - max(0, by))
        there = slice(max(0, by), samples - max(0, -by))
        moved[here] = answers[here] == labels[there]
        gained = np.concatenate([[0], np.cumsum(moved - fits, dtype=np.int32)])
        end = int((gained - np.minimum.accumulate(gained)).argmax())
        start = int(gained[: end + 1].argmin())
        own, other = int(fits[start:end].sum()), int(moved[start:end].sum())
        lucky = chance * (end - start)
        if other - own > max(MOVED * samples, 2 * _SURELY * (own + other) ** 0.5) and (
            other > lucky + 2 * _SURELY * lucky**0.5
        ):
            yield (
                f"{percent(other / (end - start), 1)} of {model}'s answers to samples {start} to "
                f"{end - 1} fit the labels {abs(by)} {'row' if abs(by) == 1 else 'rows'} "
                f"{'after' if by > 0 else 'before'}, {percent(own / (end - start), 1)} their own: "
                f"was a row of the labels lost or added there?"
            )
            return


def _by_chance(labels: NDArray[np.int64], answers: NDArray[np.int64]) -> float:
    """Return the share of answers as frequent as these that fit by chance (Cohen's kappa)."""
    classes = int(max(labels.max(), answers.max())) + 1
    counts, given = (np.bincount(one, minlength=classes) / len(labels) for one in (labels, answers))
    return float(counts @ given)


def _far_below(problem: Problem, published_top1: float | None) -> Iterator[str]:
    """Yield a line where the large model fits the labels far less than can be expected of it.

    Expected is what a saver does, what its makers state, and that it is mostly right where it and
    the best saver are sure of the same.
    """
    labels, large = problem.labels, problem.large
    if len(labels) < FEWEST:
        return
    right = large.outputs.predictions == labels
    told = [(float(np.mean(one.outputs.predictions == labels)), one) for one in problem.savers]
    best, saver = max(told, key=lambda one: one[0])
    agreed = large.outputs.predictions == saver.outputs.predictions
    for one in (large, saver):
        agreed &= one.outputs.confidences >= SURE
    known = 0.0 if published_top1 is None else published_top1 / 100
    above = ""
    if _surely_below(right, best - FAR_BELOW):
        above = f"those of the cheaper {saver.name} {percent(best, 1)}"
    elif _surely_below(right, known - FAR_BELOW):
        above = f"its makers state {percent(known, 1)} (published_top1)"
    elif agreed.sum() >= FEWEST and _surely_below(right[agreed], 1 - DISBELIEVED):
        both = percent(right[agreed].mean(), 1)
        above = f"{both} where {saver.name} and it are sure of the same class"
    if above:
        yield (
            f"model {large.name}: {percent(right.mean(), 1)} of its answers fit the labels, "
            f"{above}: are its classes in another order, its scale or colours described wrongly, "
            "or labels those of other samples?"
        )


def _surely_below(right: NDArray[np.bool_], share: float) -> bool:
    """Whether so few are right that chance does not explain it."""
    found = float(right.mean())
    return bool(found + _SURELY * (found * (1 - found) / len(right)) ** 0.5 < share)


def _many_missing(
    labels: NDArray[np.int64], large: ModelAnswers, names: Sequence[str] | None
) -> Iterator[str]:
    """Yield a line where the labels leave out many of the classes, and chance does not explain it.

    Where there are but a few samples a class, or most of a thousand classes are of no interest,
    nothing is said.
    """
    missing, classes = _missing_classes(labels, large)
    if missing and len(missing) >= MISSING * classes:
        yield (
            f"no sample of {len(missing)} of the {classes} classes ({_listed(missing, names)}): is "
            f"the rest of the data missing, or its labels of other classes?"
        )


def _without_samples(
    labels: NDArray[np.int64], large: ModelAnswers, names: Sequence[str] | None
) -> list[str]:
    missing, classes = _missing_classes(labels, large)
    if not missing or len(missing) >= MISSING * classes:
        return []
    return [
        f"no sample of {len(missing)} of the {classes} classes "
        f"({_listed(missing, names)}): the figures say nothing of them"
    ]


def _missing_classes(labels: NDArray[np.int64], large: ModelAnswers) -> tuple[list[int], int]:
    """Return the classes without a sample, and how many there are."""
    classes = _classes(large)
    if len(labels) < FEWEST_OF_A_CLASS * classes:
        return [], classes
    return [int(one) for one in np.setdiff1d(np.arange(classes), labels)], classes


def _classes(model: ModelAnswers) -> int:
    """Return how many there are: of records of the best few, what the greatest of them tells."""
    named = model.outputs.top_class
    if named is not None and model.outputs.truncated:
        return 1 + int(named.max())
    return model.outputs.width


def _never_answered(
    labels: NDArray[np.int64],
    answers: NDArray[np.int64],
    *,
    model: str,
    names: Sequence[str] | None,
) -> Iterator[str]:
    """Yield a line where a good part of the samples is of classes that a model never answers."""
    counts = np.bincount(labels)
    given = np.bincount(answers, minlength=len(counts))[: len(counts)]
    silent = [int(one) for one in np.flatnonzero((counts >= FEWEST_OF_A_CLASS) & (given == 0))]
    share = float(counts[silent].sum() / len(labels))
    if len(labels) >= FEWEST and share > NEVER_ANSWERED:
        yield (
            f"model {model} never answers {_listed(silent, names)}, which is the label of "
            f"{percent(share, 0)} of the samples: do labels and model name the same classes?"
        )


def _never_labelled(problem: Problem, names: Sequence[str] | None) -> Iterator[str]:
    """Yield a line where the large model often answers classes that are the label of no sample.

    Some have none by chance: of as large a share of samples as are alone with their label
    (Good 1953). Then labels are told one by one: one stands for several classes if its samples are
    mostly answered with those that have none. Where less than half of the classes are there, the
    others are of no interest, and mistakes mostly name these.
    """
    labels, large = problem.labels, problem.large
    answers, counts = large.outputs.predictions, np.bincount(labels)
    if 2 * np.count_nonzero(counts) < _classes(large):
        return
    outside = ~np.isin(answers, labels)
    alone = float(np.mean(counts[labels] == 1))
    if len(labels) >= FEWEST and outside.mean() - alone > NEVER_LABELLED:
        yield (
            f"model {large.name} answers {percent(outside.mean(), 0)} of the samples with "
            f"{len(np.unique(answers[outside]))} classes that no sample is labelled with: do "
            f"labels and model count the same classes?"
        )
        return
    other, own = (
        np.bincount(labels[which], minlength=len(counts)) for which in (outside, answers == labels)
    )
    merged = np.flatnonzero((other >= FEWEST_OF_A_CLASS) & (other > MERGED * own))
    if other[merged].sum() > MOVED * len(labels):
        given = np.unique(answers[outside & np.isin(labels, merged)])
        yield (
            f"model {large.name} answers {other[merged].sum()} of the {counts[merged].sum()} "
            f"samples labelled {_listed(merged, names)} with classes that no sample is labelled "
            f"with ({_listed(given, names)}): does one label stand for several classes?"
        )


def _listed(classes: Sequence[int] | NDArray[np.int64], names: Sequence[str] | None) -> str:
    shown = [str(one) if names is None else names[one] for one in classes[:NAMED]]
    return ", ".join(shown) + (", …" if len(classes) > NAMED else "")


def check_model(labels: NDArray[np.int64], answers: NDArray[np.int64], *, model: str) -> None:
    """Refuse one model's answers where they cannot be of the labels' classes.

    Guessing means: answers as frequent as the model's own, drawn without a look at the picture
    (what Cohen's kappa subtracts). Where one class prevails, always naming it is no guessing.

    Args:
        labels: ``(n,)`` true classes.
        answers: ``(n,)`` classes that the model answered.
        model: its name, for the error.

    Raises:
        InputError: as `check_agreement`.
    """
    samples = len(labels)
    if samples < FEWEST:
        return
    right = float(np.mean(labels == answers))
    for moved in (1, -1):
        if right < 0.5 and float(np.mean(labels == answers - moved)) > right + 0.3:
            raise InputError(
                f"model {model}: {percent(right, 1)} of its answers fit the labels, but "
                f"{percent(np.mean(labels == answers - moved), 1)} do when its classes are moved "
                f"by {-moved:+d}: correct class_offset (a background class?) or the labels in its "
                "description"
            )
    chance = _by_chance(labels, answers)
    spread = (chance * (1 - chance) / samples) ** 0.5
    if right <= chance + 2 * spread and right < np.bincount(labels).max() / samples:
        raise InputError(
            f"model {model}: {percent(right, 1)} of its answers fit the labels, and guessing gives "
            f"{percent(chance, 1)}: do labels and model count the same classes in the same order? "
            "See labels and class_offset in its description, and its scale and colour order"
        )


def doubtful_classes(
    labels: NDArray[np.int64],
    answers: NDArray[np.int64],
    *,
    model: str,
    names: Sequence[str] | None,
) -> list[str]:
    """Say which classes a model takes for each other.

    Models do mistake classes that look alike, but one for the other, not both ways round, nor
    three of them in turn.

    Returns:
        One line, or none.
    """
    mistaken: dict[int, tuple[int, float]] = {}
    moved: dict[int, tuple[int, int]] = {}
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    for label, places in zip(classes, np.split(order, starts[1:]), strict=True):
        count = len(places)
        if count < FEWEST_OF_A_CLASS:
            continue
        given = np.bincount(answers[places])
        most = int(given.argmax())
        right = int(given[label]) if label < len(given) else 0
        if most != label and given[most] > count / 2 and right < count / 4:
            mistaken[int(label)] = most, given[most] / count
            moved[int(label)] = int(given[most]), right
    found = []
    for label, (most, share) in mistaken.items():
        turn = _turn(label, mistaken)
        if turn and not _by_a_toss([moved[one] for one in turn]):
            name, other = (str(one) if names is None else names[one] for one in (label, most))
            found.append(f"{other!r} for {percent(share, 0)} of {name!r}")
    if not found:
        return []
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    listed = ", ".join(found[:NAMED])
    return [f"{model} answers {listed}{more}: are these classes swapped or labelled wrongly?"]


def _turn(label: int, mistaken: Mapping[int, tuple[int, float]]) -> list[int]:
    """Return the classes that are taken for each other in turn, from one on; empty where not."""
    turn = [label]
    for _ in mistaken:
        if turn[-1] not in mistaken:
            return []
        following = mistaken[turn[-1]][0]
        if following == label:
            return turn
        turn.append(following)
    return []


def _by_a_toss(moved: Sequence[tuple[int, int]]) -> bool:
    """Whether classes that nobody can tell apart may have been answered so, by tosses of a coin.

    Args:
        moved: of each class, the answers that name the next, and those that are right.
    """
    other, right = (sum(one[place] for one in moved) for place in (0, 1))
    tosses = other + right
    likely: float = sum(math.comb(tosses, heads) for heads in range(other, tosses + 1)) / 2**tosses
    return likely > BY_CHANCE
