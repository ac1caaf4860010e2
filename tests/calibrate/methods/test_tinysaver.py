import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.real_data import needs_records, read_records
from tinysaver_edge.calibrate.methods.sweep import tinysaver_threshold
from tinysaver_edge.errors import InputError


def by_masks(confidences, saver, large):
    """The paper's loop, a mask a step."""
    for k in range(1000, 0, -1):
        accept = confidences > k / 1000
        if accept.any() and saver[accept].mean() < large[accept].mean():
            return k / 1000, int(accept.sum())
    return 0.001, int((confidences > 0.001).sum())


@given(st.integers(1, 80), st.integers(0, 100_000), st.sampled_from([4, 1000, 10**9]))
def test_rule_equals_the_scan_with_masks(n, seed, levels):
    rng = np.random.default_rng(seed)
    confidences = rng.integers(0, levels + 1, size=n) / levels
    saver, large = rng.random((2, n)) < rng.random((2, 1))
    found = tinysaver_threshold(confidences, saver_correct=saver, large_correct=large)
    assert (found.t, found.accepted) == by_masks(confidences, saver, large)
    assert found.accepted == (confidences >= found.threshold).sum()


@needs_records
def test_on_the_real_records_it_stops_at_the_first_noise():
    records = read_records("mobilenetV2", "nasnetlarge")
    saver, large = records.correct("mobilenetV2"), records.correct("nasnetlarge")
    confidences = records.outputs["mobilenetV2"].confidences
    found = tinysaver_threshold(confidences, saver_correct=saver, large_correct=large)
    assert found.t == 0.997
    assert found.accept_rate == pytest.approx(0.0065, abs=5e-5)


def test_lengths_must_agree():
    with pytest.raises(InputError, match="give as many of each"):
        tinysaver_threshold(
            np.zeros(3), saver_correct=np.zeros(3, bool), large_correct=np.zeros(2, bool)
        )
