"""Samples that were written several times are not certified; quantised answers may be equal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.real_data import needs_records, read_records
from tinysaver_edge.calibrate.measured.given_records import check_copies
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.calibrate.targets import Method
from tinysaver_edge.errors import DataError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.records.records import find_repeated

SAMPLES = 2000


def problem_of(*logits: np.ndarray) -> Problem:
    models = [
        ModelAnswers(f"m{place}", Outputs.from_logits(one), 1e9 / (place + 1))
        for place, one in enumerate(logits)
    ]
    return Problem(models[0], tuple(models[1:]), np.zeros(len(logits[0]), np.int64))


def noise(classes: int = 10, samples: int = SAMPLES, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(samples, classes)).astype(np.float32)


def checked(problem: Problem, method: Method = Method.CERTIFIED, *, stated: bool = False):
    numbered = np.arange(len(problem.labels))
    return check_copies(problem, where="D", method=method, stated=stated, numbered=numbered)


def repeated(problem: Problem):
    models = (problem.large, *problem.savers)
    return find_repeated([one.outputs for one in models], problem.labels)


FOUR_TIMES = np.repeat(np.arange(SAMPLES // 4), 4)


@pytest.mark.parametrize("classes", [2, 10])
def test_copies_are_refused_warned_of_or_vouched_for(classes: int) -> None:
    whole = problem_of(noise(classes), noise(classes, seed=1))
    assert checked(whole).warnings == ()
    copied = whole.subset(np.tile(np.arange(900), 4))
    with pytest.raises(DataError, match=r"records D: \d+ of \d+ samples are copies.*--independent"):
        checked(copied)
    (line,) = checked(copied, Method.EMPIRICAL).warnings
    assert "rest on fewer samples" in line
    vouched = checked(copied, stated=True)
    assert vouched.stated.startswith("that its samples are independent, although")


def test_a_few_copies_are_counted() -> None:
    index = np.concatenate([np.arange(SAMPLES), np.arange(40)])
    found = repeated(problem_of(noise(), noise(seed=1)).subset(index))
    assert found is not None
    assert (found.copies, found.independent, found.example) == (40, True, (0, SAMPLES))


def test_copies_within_a_group_are_no_matter_and_copied_groups_are() -> None:
    copied = problem_of(noise(), noise(seed=1)).subset(FOUR_TIMES)
    assert checked(replace(copied, groups=FOUR_TIMES.astype(str))).warnings == ()
    with pytest.raises(DataError, match="copies of others"):
        checked(replace(copied, groups=np.arange(SAMPLES).astype(str)))


def test_answers_of_few_levels_and_saturated_ones_are_no_copies() -> None:
    few = [np.round(noise(2, 20_000, seed)) for seed in (0, 1)]
    assert repeated(problem_of(*few)).independent
    sure = np.where(np.arange(20_000)[:, None] % 4 == 0, noise(3, 20_000), [100.0, 0.0, 0.0])
    assert checked(problem_of(sure, sure / 2)).warnings == ()


def test_one_model_that_differs_tells_samples_apart() -> None:
    assert checked(problem_of(noise()[FOUR_TIMES], noise(seed=1))).warnings == ()


@needs_records
def test_real_records_pass_and_their_copies_do_not() -> None:
    records = read_records("nasnetlarge", "mobilenet")
    large, saver = (ModelAnswers(name, one, 1e9) for name, one in records.outputs.items())
    problem = Problem(large, (saver,), records.labels)
    assert checked(problem).warnings == ()
    with pytest.raises(DataError, match="4500 of 6000 samples are copies"):
        checked(problem.subset(np.repeat(np.arange(1500), 4)))
