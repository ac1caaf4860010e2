"""Labels that a model's answers have nothing to do with are refused; rare classes are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def answers(right: float, labels=LABELS, classes=CLASSES):
    """Answers of a model that is right that often and guesses elsewhere."""
    rng = np.random.default_rng(1)
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
        "m answers 'c3' for 100% of 'c2', 'c2' for 100% of 'c3': are these classes swapped or "
        "labelled wrongly?"
    )
    assert doubtful_classes(LABELS, answers(0.7), model="m", names=None) == []


def test_a_saver_that_does_not_fit_is_a_doubt_and_the_large_model_an_error() -> None:
    def model(name: str, given: np.ndarray, macs: float) -> ModelAnswers:
        return ModelAnswers(name, Outputs.from_logits(10.0 * np.eye(CLASSES)[given]), macs)

    fits, turned = answers(0.95), (answers(0.95) + 4) % CLASSES
    good = Problem(model("large", fits, 9), (model("a", turned, 1), model("b", fits, 2)), LABELS)
    (doubt,) = check_agreement(good, None)
    assert doubt.startswith("model a: ")
    bad = Problem(model("large", turned, 9), (model("a", fits, 1),), LABELS)
    with pytest.raises(InputError, match="model large: "):
        check_agreement(bad, None)
