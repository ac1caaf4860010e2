from dataclasses import replace

import numpy as np
import pytest

from tests.colours import NAMES, PREPROCESS, colour_picture
from tests.small_bundle import artefact
from tinysaver_edge.errors import DescriptionError
from tinysaver_edge.preprocess import Preprocessor


@pytest.fixture
def large(tmp_path):
    return artefact(tmp_path, "large")


def answer(model, frame):
    with model.open() as engine:
        return engine.infer(Preprocessor(PREPROCESS)(frame)).copy()[0]


def test_classes_in_another_order_are_put_into_the_large_models(large):
    turned = replace(large, name="turned", labels=NAMES[::-1])  # as if trained in that order
    aligned = turned.aligned_with(large)
    assert aligned.labels == NAMES
    frame = colour_picture(1, 0)
    assert answer(aligned, frame).tolist() == answer(large, frame)[::-1].tolist()


def test_classes_that_the_large_model_does_not_have_are_dropped(large):
    few = replace(large, labels=NAMES[:3], output=replace(large.output, class_order=(0, 1, 2)))
    aligned = large.aligned_with(few)
    assert aligned.labels == NAMES[:3]
    frame = colour_picture(1, 0)
    np.testing.assert_array_equal(answer(aligned, frame), answer(large, frame)[:3])


def test_a_class_that_only_the_large_model_has_is_refused(large):
    other = replace(large, name="saver", labels=("zinc", *NAMES[1:]))
    with pytest.raises(DescriptionError, match=r"saver does not know 1 of large's 6 .*'amber'"):
        other.aligned_with(large)


@pytest.mark.parametrize("names", [(NAMES, None), (None, NAMES), (None, None), (NAMES, NAMES)])
def test_without_names_or_with_the_same_nothing_changes(large, names):
    saver = replace(large, labels=names[0])
    assert saver.aligned_with(replace(large, labels=names[1])) is saver


def test_names_that_are_there_twice_cannot_be_matched(large):
    twice = ("crane", "blue", "crane", "denim", "green", "lilac")
    mine = replace(large, name="saver", labels=twice)
    assert mine.aligned_with(replace(large, labels=twice)) is mine
    turned = replace(large, labels=twice[::-1])
    with pytest.raises(DescriptionError, match="'crane'"):
        mine.aligned_with(turned)
