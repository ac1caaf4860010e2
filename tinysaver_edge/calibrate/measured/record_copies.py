"""Are the samples of given records copies of each other? Their images are not there to be seen.

Two samples on which every model answers the same to the last bit of a float are one sample, written
twice. Answers of few levels (INT8) and saturated ones are equal without that, and do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.measured.independence import Independence
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.calibrate.targets import Method
from tinysaver_edge.data.alike import FEWEST, LEAST_WEIGHT, leading_group
from tinysaver_edge.errors import DataError
from tinysaver_edge.outputs import Outputs

MOST_LEVELS = 1024
"""Answers that take no more values than this are quantised: two INT8 logits differ in 511 ways, and
each way gives two probabilities."""

LEAST_DOUBT = 1e-3
"""What a model must leave open of a sample for its answer to tell it from others: probabilities
nearer to 1 are coarse."""

_COUNTED = 1 << 18  # values, of all that there are
_SEED = 0xC0B1


@dataclass(frozen=True, slots=True)
class RepeatedRows:
    """Samples whose answers are an earlier one's.

    Attributes:
        copies: how many samples they are.
        samples: of how many.
        independent: whether few enough are to count them all.
        example: positions of two that are equal; None without copies.
    """

    copies: int
    samples: int
    independent: bool
    example: tuple[int, int] | None

    @property
    def brief(self) -> str:
        """What was found, in a few words."""
        return f"{self.copies} of {self.samples} samples are copies of others"


def check_copies(
    problem: Problem, *, where: str, method: Method, stated: bool, numbered: NDArray[np.int64]
) -> Independence:
    """Refuse to promise anything on samples that were written several times.

    Args:
        problem: the records' answers.
        where: the records, for people.
        method: how the threshold is found; one that promises nothing is only warned.
        stated: whether the user vouches for the samples' independence.
        numbered: ``(n,)`` positions of the samples in the records.

    Raises:
        DataError: there are too many copies, and nobody says that they are none.
    """
    found = find_repeated(problem)
    if found is None or found.example is None or found.independent:
        return Independence()
    one, other = (int(numbered[place]) for place in found.example)
    said = f"{found.brief}: every model answers samples {one} and {other} alike to the last digit"
    if stated:
        line = f"{said}; they count as independent, as --independent says"
        return Independence((line,), f"that its samples are independent, although {found.brief}")
    if method in (Method.EMPIRICAL, Method.TINYSAVER):
        return Independence((f"{said}: the figures rest on fewer samples than they seem to",))
    raise DataError(
        f"records {where}: {said}. A certificate counts independent samples, and these are not. "
        f"Take copies out; name each sample's clip or scene with --groups; or, where they are "
        f"different images after all, say --independent: the certificate then states that it is "
        f"your word"
    )


def find_repeated(problem: Problem) -> RepeatedRows | None:
    """Count the samples that every model answers as it answers an earlier one.

    Samples of one group are not held against each other: groups are what is counted then, and one
    is a copy where most of its samples are of another's.

    Returns:
        None where there are too few samples, or no model's answers are fine enough to tell.
    """
    models = (problem.large, *problem.savers)
    samples = len(problem.labels)
    fine = [one for one in models if _is_fine(one.outputs)]
    if samples < FEWEST or not fine:
        return None
    telling = np.logical_or.reduce([_tells_apart(one) for one in fine])
    places = np.flatnonzero(telling)
    rows = np.zeros(samples, np.uint64)
    for number, one in enumerate(models):
        rows += _row_hashes(one.outputs, seed=_SEED + number)
    first = np.arange(samples)
    _, begins, which = np.unique(rows[places], return_index=True, return_inverse=True)
    first[places] = places[begins[which]]
    groups = first if problem.groups is None else problem.groups
    if problem.groups is not None:
        first = np.where(groups[first] == groups, np.arange(samples), first)
    copied = np.flatnonzero(first != np.arange(samples))
    leaders = first if problem.groups is None else leading_group(first, groups)
    sizes = np.bincount(leaders).astype(float)
    weight = sizes.sum() ** 2 / (sizes**2).sum()
    return RepeatedRows(
        copies=len(copied),
        samples=samples,
        independent=bool(weight >= LEAST_WEIGHT * len(leaders)),
        example=(int(first[copied[0]]), int(copied[0])) if len(copied) else None,
    )


def _table(outputs: Outputs) -> NDArray[np.float32]:
    table = outputs.logits if outputs.top_prob is None else outputs.top_prob
    assert table is not None
    return table


def _is_fine(outputs: Outputs) -> bool:
    """Whether a model's answers take so many values that equal ones are no chance."""
    table = _table(outputs)
    rows = max(1, _COUNTED // table.shape[1])
    values = table[:: max(1, len(table) // rows)][:rows]
    return len(np.unique(values)) > MOST_LEVELS


def _tells_apart(model: ModelAnswers) -> NDArray[np.bool_]:
    """Return for which samples one model's answer is fine: enough values, and not saturated."""
    return np.asarray(model.outputs.confidences < 1 - LEAST_DOUBT)


def _row_hashes(outputs: Outputs, *, seed: int) -> NDArray[np.uint64]:
    table = np.ascontiguousarray(_table(outputs))
    parts = [table.view(np.uint32)]
    if outputs.top_class is not None:
        parts.append(outputs.top_class.astype(np.uint32))
    rng = np.random.default_rng(seed)
    hashes = np.zeros(len(table), np.uint64)
    for part in parts:
        for column in part.T:
            odd = rng.integers(1 << 63, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
            hashes += column.astype(np.uint64) * odd
    return hashes
