"""A short form of benchmarks/bench_soak.py: nothing grows, whatever is lost on the way."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_memory_threads_and_descriptors_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    from bench_soak import demo_cascade, soak

    done = soak(demo_cascade(), frames=12_000, stream=4_000)
    assert done.frames == 12_000
    assert done.reconnected > 0
    assert done.threads[0] == done.threads[1]
    assert done.descriptors[0] == done.descriptors[1]
    # So few frames leave room for chance: a leak of one small picture a frame would be 14 MB.
    assert done.slope_mb * done.frames / 1e5 < 3
