"""Do labels and answers speak of the same classes? Where not, every figure after it is void."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.problem import Problem
from tinysaver_edge.errors import InputError

FEWEST = 30
"""Samples below which nothing is said: chance does more than an order of classes."""
FEWEST_OF_A_CLASS = 10
NAMED = 3


def check_agreement(problem: Problem, names: Sequence[str] | None) -> list[str]:
    """Refuse labels that the large model's answers have nothing to do with.

    Args:
        problem: answers and true classes.
        names: of the classes, or None.

    Returns:
        What is doubtful short of that, a line each: classes that seem to be swapped, and savers
        whose answers do not fit.

    Raises:
        InputError: the large model does no better than guessing, or would with its classes moved
            by one.
    """
    labels, large = problem.labels, problem.large
    check_model(labels, large.outputs.predictions, model=large.name)
    doubts = doubtful_classes(labels, large.outputs.predictions, model=large.name, names=names)
    for saver in problem.savers:
        answers = saver.outputs.predictions
        try:
            check_model(labels, answers, model=saver.name)
        except InputError as error:
            doubts.append(str(error))
        else:
            doubts += doubtful_classes(labels, answers, model=saver.name, names=names)
    return doubts


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
                f"model {model}: {right:.1%} of its answers fit the labels, but "
                f"{np.mean(labels == answers - moved):.1%} do when its classes are moved by "
                f"{-moved:+d}: correct class_offset (a background class?) or the labels in its "
                "description"
            )
    classes = int(max(labels.max(), answers.max())) + 1
    frequent = np.bincount(labels, minlength=classes) / samples
    chance = float(frequent @ np.bincount(answers, minlength=classes)) / samples
    spread = (chance * (1 - chance) / samples) ** 0.5
    if right <= chance + 2 * spread and right < frequent.max():
        raise InputError(
            f"model {model}: {right:.1%} of its answers fit the labels, and guessing gives "
            f"{chance:.1%}: do labels and model count the same classes in the same order? See "
            "labels and class_offset in its description, and its scale and colour order"
        )


def doubtful_classes(
    labels: NDArray[np.int64],
    answers: NDArray[np.int64],
    *,
    model: str,
    names: Sequence[str] | None,
) -> list[str]:
    """Say which classes a model takes for each other.

    Models do mistake classes that look alike, but one for the other, not both ways round.

    Returns:
        One line, or none.
    """
    mistaken: dict[int, tuple[int, float]] = {}
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count < FEWEST_OF_A_CLASS:
            continue
        given = np.bincount(answers[labels == label])
        most = int(given.argmax())
        right = int(given[label]) if label < len(given) else 0
        if most != label and given[most] > count / 2 and right < count / 4:
            mistaken[int(label)] = most, given[most] / count
    found = []
    for label, (most, share) in mistaken.items():
        if mistaken.get(most, (None, 0.0))[0] == label:
            name, other = (str(one) if names is None else names[one] for one in (label, most))
            found.append(f"{other!r} for {share:.0%} of {name!r}")
    if not found:
        return []
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    listed = ", ".join(found[:NAMED])
    return [f"{model} answers {listed}{more}: are these classes swapped or labelled wrongly?"]
