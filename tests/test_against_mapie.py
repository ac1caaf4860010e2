"""An independent implementation of the same statistics, where it overlaps with ours."""

import numpy as np
import pytest

from tinysaver_edge.calibrate.methods.sweep import hoeffding_bentkus
from tinysaver_edge.certificate.p_values import consistency_p_value, walk

methods = pytest.importorskip(
    "mapie.risk_control.methods", reason="MAPIE is not installed: pip install mapie"
)

SIZES = [32, 512, 8192]  # powers of two, for which k / n * n is k again in floating point
RATES = np.array([0.0, 0.03125, 0.125, 0.1875, 0.25, 0.5])


def theirs(rates, n, bound, *, binary):
    p = methods.compute_hoeffding_bentkus_p_value(rates, n, np.array([bound]), binary)
    return np.minimum(p[:, 0], 1.0)


@pytest.mark.parametrize("bound", [0.05, 0.2, 0.5025])
@pytest.mark.parametrize("n", SIZES)
def test_hoeffding_bentkus(n, bound):
    ours = hoeffding_bentkus(RATES, n, bound=bound)
    assert np.allclose(ours, theirs(RATES, n, bound, binary=False), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("bound", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("n", SIZES)
def test_consistency_is_the_p_value_of_a_binary_risk(n, bound):
    ours = consistency_p_value(np.round(RATES * n), n, epsilon=bound)
    reference = theirs(RATES, n, bound, binary=True)
    # Theirs is the smaller of the exact binomial tail and Hoeffding's bound, which is looser.
    assert np.allclose(ours, reference, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("seed", range(20))
def test_walk_is_fixed_sequence_testing(seed):
    fwer = pytest.importorskip("mapie.risk_control").FWERFixedSequenceTesting(n_starts=1)
    p = np.random.default_rng(seed).random(12) * 0.2
    rejected = fwer.run(p, 0.1)
    last = walk(p, risk=0.1)
    assert rejected.tolist() == list(range(0 if last is None else last + 1))
