import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysaver_edge.calibrate.problem import ModelAnswers, Problem, split_holdout
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import Outputs

LABELS = np.array([0, 1, 2, 3])


def logits(samples=4, classes=4, seed=0):
    return Outputs.from_logits(np.random.default_rng(seed).normal(size=(samples, classes)))


def topk(samples=4):
    return Outputs.from_topk([[0, 1]] * samples, [[0.7, 0.2]] * samples)


def problem(*savers, large=None, labels=LABELS, groups=None):
    return Problem(large or ModelAnswers("large", logits(), 100.0), savers, labels, groups)


def test_what_can_be_a_cascade_passes():
    problem(ModelAnswers("a", logits(seed=1), 10.0), ModelAnswers("b", topk(), 99.9)).check()
    problem(ModelAnswers("a", logits(classes=9), 1.0), large=ModelAnswers("l", topk(), 2.0)).check()


@pytest.mark.parametrize(
    ("savers", "options", "message"),
    [
        ((), {}, "no saver to choose from"),
        ((ModelAnswers("large", logits(), 1.0),), {}, "model large is named twice"),
        (
            (ModelAnswers("a", logits(), 1.0), ModelAnswers("a", logits(), 2.0)),
            {},
            "a is named twice",
        ),
        ((ModelAnswers("a", logits(), 1.0),), {}, "a answers 4 samples as the large model large"),
        ((ModelAnswers("a", logits(5), 1.0),), {}, "record a holds 5 samples, the labels 4"),
        ((ModelAnswers("a", topk(3), 1.0),), {}, "record a holds 3 samples, the labels 4"),
        (
            (ModelAnswers("a", logits(classes=5), 1.0),),
            {},
            "a has 5 classes, the large model large 4",
        ),
        ((ModelAnswers("a", logits(), 100.0),), {}, "a takes 100 MACs.*must be the cheaper one"),
        ((ModelAnswers("a", logits(), 1e9),), {}, r"a takes 1e\+09 MACs.*must be the cheaper one"),
        ((ModelAnswers("a", logits(), 0.0),), {}, "its MACs are 0.0, must be a number above 0"),
        ((ModelAnswers("a", logits(), -1.0),), {}, "must be a number above 0"),
        ((ModelAnswers("a", logits(), math.nan),), {}, "its MACs are nan"),
        (
            (ModelAnswers("a", logits(), 1.0),),
            {"large": ModelAnswers("large", logits(), math.inf)},
            "its MACs are inf",
        ),
        (
            (ModelAnswers("a", logits(), 1.0),),
            {"labels": np.array([0, 1, 2, 4])},
            "label 4 of sample 3, but model large has 4 classes",
        ),
    ],
)
def test_what_cannot_is_refused(savers, options, message):
    with pytest.raises(InputError, match=message):
        problem(*savers, **options).check()


def test_a_subset_keeps_everything_in_step():
    groups = np.array(["a", "a", "b", "c"])
    whole = problem(ModelAnswers("s", logits(seed=1), 10.0), groups=groups)
    part = whole.subset(np.array([3, 1]))
    assert part.labels.tolist() == [3, 1]
    assert part.groups is not None
    assert part.groups.tolist() == ["c", "a"]
    for before, after in ((whole.large, part.large), (whole.savers[0], part.savers[0])):
        assert before.outputs.logits is not None
        assert (after.outputs.logits == before.outputs.logits[[3, 1]]).all()
        assert after.macs == before.macs


@given(st.integers(2, 300), st.floats(0, 0.99), st.integers(0, 50))
def test_a_holdout_parts_the_samples(samples, fraction, seed):
    try:
        kept, held = split_holdout(samples, fraction=fraction, seed=seed)
    except InputError:
        assert round(fraction * samples) in (0, samples)
        return
    assert sorted([*kept, *held]) == list(range(samples))
    assert len(held) == round(fraction * samples)
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    again = split_holdout(samples, fraction=fraction, seed=seed)
    assert (again[0] == kept).all()


def test_a_holdout_is_drawn_from_everywhere_and_by_the_seed():
    draws = [split_holdout(1000, fraction=0.5, seed=seed)[1] for seed in range(5)]
    for held in draws:
        assert 200 < (held < 500).sum() < 300  # records may lie in class order
    assert len({tuple(held) for held in draws}) == 5


def test_a_group_goes_to_one_side_as_a_whole():
    groups = np.random.default_rng(0).integers(0, 20, 500).astype(str)
    kept, held = split_holdout(500, fraction=0.25, seed=3, groups=groups)
    assert set(groups[kept]).isdisjoint(groups[held])
    assert len(set(groups[held])) == 5
    assert len(kept) + len(held) == 500


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, math.nan, 0.001, 0.999])
def test_a_holdout_that_leaves_nothing_is_refused(fraction):
    with pytest.raises(InputError, match="--holdout"):
        split_holdout(10, fraction=fraction, seed=0)


def test_one_group_cannot_be_parted():
    with pytest.raises(InputError, match="leaves one side empty"):
        split_holdout(10, fraction=0.5, seed=0, groups=["only"] * 10)


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match="seed -1"):
        split_holdout(10, fraction=0.5, seed=-1)
