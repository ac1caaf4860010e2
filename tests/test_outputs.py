import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import Outputs


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@st.composite
def logit_tables(draw):
    seed = draw(st.integers(0, 10_000))
    n = draw(st.integers(1, 40))
    classes = draw(st.integers(1, 30))
    levels = draw(st.sampled_from([0, 3]))  # 3 levels: many equal logits, as int8 models give
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(n, classes)) * 4
    return (np.round(table / 4 * levels) if levels else table).astype(np.float32)


@given(logit_tables(), st.integers(1, 30))
def test_top_sorts_by_probability_then_by_class(logits, k):
    classes, probabilities = Outputs.from_logits(logits).top(k)
    expected = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    assert np.array_equal(classes, expected)
    full = softmax(logits.astype(np.float64))
    assert np.allclose(probabilities, np.take_along_axis(full, expected, axis=1), rtol=1e-5)


@given(logit_tables(), st.integers(1, 6))
def test_one_frame_and_a_batch_agree_to_the_last_bit(logits, k):
    batch = Outputs.from_logits(logits)
    for row in range(len(logits)):
        alone = Outputs.from_logits(logits[row : row + 1])
        for ours, theirs in zip(alone.top(k), batch.top(k), strict=True):
            assert np.array_equal(ours[0], theirs[row])


def test_top_grows_and_shrinks_consistently():
    outputs = Outputs.from_logits(np.random.default_rng(0).normal(size=(9, 12)))
    two = outputs.top(2)[1].copy()
    five = outputs.top(5)[1]
    assert np.array_equal(five[:, :2], two)
    assert np.array_equal(outputs.top(2)[1], two)
    assert outputs.top(99)[0].shape == (9, 12)


def test_large_tables_are_worked_on_in_blocks():
    logits = np.random.default_rng(1).normal(size=(3000, 200)).astype(np.float32)
    outputs = Outputs.from_logits(logits)
    full = softmax(logits)
    assert np.array_equal(outputs.predictions, full.argmax(axis=1))
    assert np.allclose(outputs.confidences, full.max(axis=1), rtol=1e-6)
    squares = outputs.reduce_probabilities(lambda p: (p * p).sum(axis=1))
    assert np.allclose(squares, (full * full).sum(axis=1), rtol=1e-5)


def test_probabilities_keep_their_values_and_order():
    probabilities = np.array([[0.0, 0.25, 0.75], [0.5, 0.5, 0.0]], dtype=np.float32)
    classes, back = Outputs.from_probabilities(probabilities).top(3)
    assert np.allclose(back, [[0.75, 0.25, 0.0], [0.5, 0.5, 0.0]], atol=1e-6)
    assert classes.tolist() == [[2, 1, 0], [0, 1, 2]]


def test_topk_record_keeps_what_it_was_given():
    outputs = Outputs.from_topk([[7, 3], [1, 9]], [[0.6, 0.2], [0.5, 0.5]])
    assert outputs.truncated
    assert outputs.predictions.tolist() == [7, 1]
    assert outputs.predictions.dtype == np.int64
    assert outputs.confidences.dtype == np.float64
    assert outputs.top(5)[0].shape == (2, 2)
    assert outputs.subset(np.array([1, 1, 0])).predictions.tolist() == [1, 1, 7]
    assert outputs.subset(np.array([False, True])).samples == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Outputs.from_logits([1.0, 2.0]), "(samples, classes)"),
        (lambda: Outputs.from_logits(np.zeros((3, 0))), "(samples, classes)"),
        (lambda: Outputs.from_logits([[0.0, 1.0], [0.0, np.nan]]), "sample 1 hold NaN"),
        (lambda: Outputs.from_probabilities([[-0.5, 1.5]]), "softmax"),
        (lambda: Outputs.from_topk([[1, 2]], [[0.5, 0.2, 0.1]]), "(1, 2)"),
        (lambda: Outputs.from_topk([[1, 2]], [[0.2, 0.5]]), "sample 0 do not fall"),
        (lambda: Outputs.from_topk([[1, 2]], [[7.0, 0.5]]), "0..1"),
    ],
    ids=["one-dimensional", "no-class", "nan", "negative", "shapes", "unsorted", "logits-as-top-k"],
)
def test_bad_arrays_are_refused(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)
