import numpy as np
import pytest

from tinysaver_edge.output_format import SMALLEST_PROBABILITY, OutputFormat, OutputKind
from tinysaver_edge.outputs import Outputs

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]], np.float32)
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def softmax(logits):
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def test_float_logits_are_not_copied():
    assert OutputFormat().to_logits(LOGITS) is LOGITS


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_become_float32(dtype):
    logits = OutputFormat().to_logits(LOGITS.astype(dtype))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, LOGITS, atol=1e-3)


def test_the_softmax_of_probabilities_is_the_probabilities():
    logits = OutputFormat(OutputKind.PROBABILITIES).to_logits(PROBABILITIES)
    np.testing.assert_allclose(softmax(logits), PROBABILITIES, atol=1e-6)


def test_a_probability_of_zero_has_a_logarithm():
    logits = OutputFormat(OutputKind.PROBABILITIES).to_logits(np.array([[1.0, 0.0]], np.float32))
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(softmax(logits), [[1.0, 0.0]], atol=2 * SMALLEST_PROBABILITY)


@pytest.mark.parametrize("kind", list(OutputKind))
def test_nan_stays_nan(kind):
    assert np.isnan(OutputFormat(kind).to_logits(np.array([[np.nan, 1.0]], np.float32))).any()


@pytest.mark.parametrize("kind", list(OutputKind))
def test_a_background_class_is_left_out_and_the_rest_adds_up_to_one(kind):
    raw = np.array([[0.6, 0.1, 0.3]], np.float32)
    if kind is OutputKind.LOGITS:
        raw = np.log(raw)
    logits = OutputFormat(kind, class_offset=1).to_logits(raw)
    np.testing.assert_allclose(softmax(logits), [[0.25, 0.75]], atol=1e-6)


def test_classes_are_put_into_the_bundles_order_after_the_offset():
    raw = np.array([[9.0, 1.0, 2.0, 3.0]], np.float32)
    form = OutputFormat(class_offset=1, class_order=(2, 0))
    assert form.to_logits(raw).tolist() == [[3.0, 1.0]]


@pytest.mark.parametrize(
    ("raw", "form", "probabilities"),
    [
        (np.array([[0, 64, 192]], np.uint8), {}, [0, 0.25, 0.75]),
        (np.array([[-128, -64, 64]], np.int8), {}, [0, 0.25, 0.75]),
        (
            np.array([[10, 35, 85]], np.uint8),
            {"quantization_scale": 0.01, "quantization_zero_point": 10},
            [0, 0.25, 0.75],
        ),
        (
            np.array([[0, 25, 75]], np.int8),
            {"quantization_scale": 0.01, "quantization_zero_point": 0},
            [0, 0.25, 0.75],
        ),
    ],
    ids=["uint8", "int8", "uint8 stated", "int8, zero point 0"],
)
def test_quantised_probabilities(raw, form, probabilities):
    logits = OutputFormat(OutputKind.PROBABILITIES, **form).to_logits(raw)
    np.testing.assert_allclose(softmax(logits)[0], probabilities, atol=1e-6)


def test_quantised_logits():
    raw = np.array([[-128, 0, 127]], np.int8)
    assert OutputFormat().to_logits(raw).tolist() == [[-128.0, 0.0, 127.0]]
    stated = OutputFormat(quantization_scale=0.5, quantization_zero_point=-128)
    assert stated.to_logits(raw).tolist() == [[0.0, 64.0, 127.5]]


def test_ties_of_a_quantised_softmax_go_to_the_lower_class():
    raw = np.array([[0, 128, 128, 0]], np.uint8)
    outputs = Outputs(logits=OutputFormat(OutputKind.PROBABILITIES).to_logits(raw))
    assert outputs.predictions.tolist() == [1]
    np.testing.assert_allclose(outputs.top(2)[1], [[0.5, 0.5]], atol=1e-6)
