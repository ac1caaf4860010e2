"""Labels that a model's answers have nothing to do with are refused; rare classes are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.real_data import needs_records, read_records
from tinysaver_edge.calibrate.measured.label_check import (
    check_agreement,
    check_model,
    doubtful_classes,
)
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import Outputs

RNG = np.random.default_rng(0)
CLASSES = 10
LABELS = RNG.integers(0, CLASSES, 1000)


def answers(right: float, labels=LABELS, classes=CLASSES, seed: int = 1):
    """ModelAnswers of a model that is right that often and guesses elsewhere."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < right, labels, rng.integers(0, classes, len(labels)))


@pytest.mark.parametrize("right", [0.3, 0.6, 0.9, 1.0])
def test_a_model_that_knows_something_passes(right: float) -> None:
    check_model(LABELS, answers(right), model="m")


def test_labels_in_another_order_are_refused() -> None:
    order = np.roll(np.arange(CLASSES), 4)
    with pytest.raises(InputError, match=r"model m: .* fit the labels, and guessing gives 1"):
        check_model(order[LABELS], answers(0.95), model="m")


def test_labels_in_random_order_are_refused() -> None:
    with pytest.raises(InputError, match="in the same order"):
        check_model(np.random.default_rng(3).permutation(LABELS), answers(0.95), model="m")


@pytest.mark.parametrize(("moved", "by"), [(1, "-1"), (-1, r"\+1")])
def test_a_background_class_is_recognised(moved: int, by: str) -> None:
    labels = RNG.integers(1, 999, 300)
    with pytest.raises(InputError, match=rf"moved by {by}: correct class_offset"):
        check_model(labels, answers(0.8, labels, 1000) + moved, model="m")


@given(st.floats(0.9, 1.0), st.integers(0, 9), st.integers(30, 400))
def test_where_one_class_prevails_always_naming_it_is_no_guessing(
    share: float, seed: int, samples: int
) -> None:
    labels = (np.random.default_rng(seed).random(samples) > share).astype(np.int64)
    check_model(labels, np.zeros(samples, np.int64), model="m")
    check_model(labels, labels, model="m")


def test_of_a_few_samples_nothing_is_said() -> None:
    check_model(np.arange(29) % 3, (np.arange(29) + 1) % 3, model="m")


def test_two_swapped_classes_are_named() -> None:
    swapped = np.where(LABELS == 2, 3, np.where(LABELS == 3, 2, LABELS))
    names = [f"c{index}" for index in range(CLASSES)]
    (line,) = doubtful_classes(swapped, answers(1.0), model="m", names=names)
    assert line == (
        "m answers 'c3' for 100 % of 'c2', 'c2' for 100 % of 'c3': are these classes swapped or "
        "labelled wrongly?"
    )
    assert doubtful_classes(LABELS, answers(0.7), model="m", names=None) == []


def test_a_saver_that_does_not_fit_is_a_doubt_and_the_large_model_an_error() -> None:
    def model(name: str, given: np.ndarray, macs: float) -> ModelAnswers:
        return ModelAnswers(name, Outputs.from_logits(10.0 * np.eye(CLASSES)[given]), macs)

    fits, turned = answers(0.95), (answers(0.95) + 4) % CLASSES
    good = Problem(model("large", fits, 9), (model("a", turned, 1), model("b", fits, 2)), LABELS)
    (doubt,) = check_agreement(good, None).lines
    assert doubt.startswith("model a: ")
    bad = Problem(model("large", turned, 9), (model("a", fits, 1),), LABELS)
    with pytest.raises(InputError, match="model large: "):
        check_agreement(bad, None)


def problem_of(large: np.ndarray, *savers: np.ndarray, labels=LABELS, classes: int = CLASSES):
    def model(name: str, given: np.ndarray, macs: float) -> ModelAnswers:
        return ModelAnswers(name, Outputs.from_logits(10.0 * np.eye(classes)[given]), macs)

    cheaper = tuple(model(f"s{place}", one, place + 1) for place, one in enumerate(savers))
    return Problem(model("large", large, 99), cheaper, labels)


def refused(problem: Problem, match: str) -> None:
    """It is refused with what goes on, and goes on so, stated."""
    with pytest.raises(InputError, match=match) as caught:
        check_agreement(problem, None)
    assert "say --trust-labels" in str(caught.value)
    found = check_agreement(problem, None, trusted=True)
    assert found.lines[0].startswith("the labels count as --trust-labels says, but: ")
    (stated,) = found.stated
    assert stated.startswith("that its labels are right, although ")


@pytest.mark.parametrize("order", ["moved", "swapped", "three in turn", "half turned", "reversed"])
def test_labels_of_classes_in_another_order_are_refused(order: str) -> None:
    places = np.arange(CLASSES)
    if order == "moved":
        places = np.roll(places, 1)
    elif order == "swapped":
        places[[2, 3]] = 3, 2
    elif order == "three in turn":
        places[[2, 5, 7]] = 5, 7, 2
    elif order == "half turned":
        places[:5] = np.roll(places[:5], 2)
    else:
        places = places[::-1]
    refused(problem_of(answers(0.95), answers(0.8), labels=places[LABELS]), "order|swapped|moved")


def test_labels_that_are_the_large_models_own_answers_are_refused() -> None:
    refused(problem_of(LABELS, answers(0.9)), r"large's own answers.*say --reference large")


def test_labels_that_are_a_savers_own_answers_are_refused() -> None:
    problem = problem_of(answers(0.9), answers(0.8), LABELS)
    assert problem.savers[1].name != problem.savers[0].name
    refused(problem, rf"{problem.savers[1].name}'s own answers.*say --reference large")


@pytest.mark.parametrize(
    ("large", "saver", "samples"),
    [(LABELS, LABELS, 1000), (LABELS, answers(0.9), 199), (answers(0.999), answers(0.9), 1000)],
    ids=["an easy task", "few samples", "one mistake"],
)
def test_a_large_model_may_be_very_good(large: np.ndarray, saver: np.ndarray, samples: int) -> None:
    problem = problem_of(large, saver).subset(np.arange(samples))
    assert check_agreement(problem, None).stated == ()


def test_a_large_model_far_below_a_saver_is_refused() -> None:
    refused(problem_of(answers(0.5), answers(0.95)), "cheaper s0 9")
    assert check_agreement(problem_of(answers(0.85), answers(0.95)), None).lines == ()


def test_a_large_model_far_below_what_its_makers_state_is_refused() -> None:
    poor = problem_of(answers(0.6), answers(0.5, seed=2))
    assert check_agreement(poor, None, published_top1=80.0).lines == ()
    with pytest.raises(InputError, match=r"6\d\.\d % .*its makers state 93\.4 % .*--trust-labels"):
        check_agreement(poor, None, published_top1=93.4)
    few = poor.subset(np.arange(40))  # of which chance may have taken as many
    assert check_agreement(few, None, published_top1=88.0).lines == ()


@pytest.mark.parametrize("large", [0.95, 0.6])
def test_a_label_that_stands_for_two_classes_is_refused(large: float) -> None:
    merged = np.where(LABELS == 5, 3, LABELS)
    problem = problem_of(answers(large), answers(0.6, seed=2), labels=merged)
    refused(problem, r"samples labelled 3 with classes that no sample .* \(5\): does one label")
    missing = problem_of(answers(large), answers(0.6, seed=2)).subset(np.flatnonzero(LABELS != 5))
    (line,) = check_agreement(missing, None).lines
    assert line.startswith("no sample of 1 of the 10 classes (5)")


@pytest.mark.parametrize(("first", "last", "by"), [(800, 1000, 1), (500, 1000, -3), (200, 500, 7)])
def test_labels_that_have_slipped_by_some_rows_are_refused(first: int, last: int, by: int) -> None:
    slipped = LABELS.copy()
    slipped[first:last] = np.roll(slipped[first:last], by)
    side = "after" if by > 0 else "before"
    refused(problem_of(answers(0.7), answers(0.6), labels=slipped), rf"fit the labels .* {side}, ")


@pytest.mark.parametrize("order", ["sorted", "in turns"])
def test_labels_in_any_order_have_not_slipped(order: str) -> None:
    labels = np.sort(LABELS) if order == "sorted" else np.arange(1000) % CLASSES
    confused = np.where(RNG.random(1000) < 0.3, (labels + 1) % CLASSES, labels)  # always the next
    problem = problem_of(confused, answers(0.6, labels), labels=labels)
    assert check_agreement(problem, None).lines == ()


def test_half_of_the_labels_of_other_samples_are_refused() -> None:
    """No order of classes or rows explains them, but two models agree, and are sure."""
    rng = np.random.default_rng(8)
    lost = np.where(rng.random(1000) < 0.5, rng.permutation(LABELS), LABELS)
    refused(problem_of(answers(0.9), answers(0.8), labels=lost), "sure of the same class")
    some = np.where(rng.random(1000) < 0.15, rng.permutation(LABELS), LABELS)
    assert check_agreement(problem_of(answers(0.9), answers(0.8), labels=some), None).lines == ()


def test_two_of_ten_classes_missing_are_refused_and_one_is_told() -> None:
    half = LABELS % 5
    refused(
        problem_of(answers(0.95, half), answers(0.9, half), labels=half),
        r"no sample of 5 of the 10 classes \(5, 6, 7, …\)",
    )
    two = LABELS % 2
    refused(
        problem_of(answers(0.9, two, 3), answers(0.8, two, 3), labels=two, classes=3),
        r"no sample of 1 of the 3 classes \(2\)",
    )
    eight = LABELS % 8
    refused(
        problem_of(answers(0.95, eight), answers(0.9, eight), labels=eight),
        r"no sample of 2 of the 10 classes \(8, 9\)",
    )
    most = LABELS % 9
    found = check_agreement(problem_of(answers(0.95, most), answers(0.9, most), labels=most), None)
    assert found.lines == ("no sample of 1 of the 10 classes (9): the figures say nothing of them",)
    assert found.stated == ()


def test_of_a_thousand_classes_a_few_may_be_there() -> None:
    few = LABELS % 20
    problem = problem_of(answers(0.8, few, 1000), answers(0.7, few, 1000), labels=few, classes=1000)
    assert check_agreement(problem, None).lines == ()


def test_a_class_that_is_never_answered_is_refused() -> None:
    silent = np.where((LABELS == 4) | (LABELS == 5), 6, answers(0.95))
    silent[silent == 4] = 6
    silent[silent == 5] = 6
    refused(problem_of(silent, answers(0.7)), "never answers 4, 5, which is the label of 2")


@pytest.mark.arithmetic
@needs_records
def test_thirteen_real_models_are_not_refused() -> None:
    records = read_records()
    names = sorted(records.outputs, key=lambda name: records.macs[name])
    index = np.random.default_rng(0).permutation(50_000)[:10_000]
    for place, name in enumerate(names[1:], start=1):
        savers = tuple(
            ModelAnswers(one, records.outputs[one].subset(index), records.macs[one])
            for one in names[:place]
        )
        large = ModelAnswers(name, records.outputs[name].subset(index), records.macs[name])
        assert check_agreement(Problem(large, savers, records.labels[index]), None).stated == ()


FEW_OF_A_CLASS = RNG.integers(0, 1000, 6000)


@pytest.mark.parametrize(
    "order",
    [
        np.argsort(np.array([str(one) for one in range(1000)])),
        np.roll(np.arange(1000), 7),
        np.concatenate([np.roll(np.arange(100), 1), np.arange(100, 1000)]),
    ],
    ids=["text", "cycled", "a tenth cycled"],
)
def test_another_order_of_many_classes_shows_in_all_of_them_together(order) -> None:
    given = answers(0.7, FEW_OF_A_CLASS, 1000)
    outputs = Outputs.from_probabilities(np.eye(1000)[given])
    large, saver = ModelAnswers("m", outputs, 2.0), ModelAnswers("s", outputs, 1.0)
    check_agreement(Problem(large, (saver,), FEW_OF_A_CLASS), None)
    with pytest.raises(InputError, match="in the same order"):
        check_agreement(Problem(large, (saver,), order[FEW_OF_A_CLASS]), None)
