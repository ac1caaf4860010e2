"""The benchmark of attacks in short: a few seconds each, with room for machines that are busy."""

from __future__ import annotations

import pytest

from benchmarks.bench_attack import (
    DESCRIPTORS,
    MEMORY_MB,
    ROOT,
    Turns,
    host_attacks,
    stream_attacks,
)
from tests.remote.kserve import VENV, needs_kserve
from tests.small_bundle import small_bundle
from tinysaver_edge._support import limits

LENIENT = {"rate": 0.5, "factor": 10.0, "least_ms": 50.0, "slack_s": 0.4}
"""A dozen answers on a busy machine say little of time; five minutes each say the rest."""


SHORT = Turns(seconds=0.8, rounds=1, peace_s=0.3)


@pytest.mark.slow
def test_a_stream_goes_on_under_attack(tmp_path) -> None:
    with stream_attacks(small_bundle(tmp_path / "bundle")) as attacks:
        assert len(attacks) == 7
        for attack in attacks.values():
            assert attack(SHORT).missed(**LENIENT) == []


@pytest.mark.slow
@needs_kserve
def test_a_host_answers_its_devices_under_attack(tmp_path, jpeg_bundle) -> None:
    with host_attacks(jpeg_bundle, VENV / "bin/python") as attacks:
        for name in ("dripping clients", "floods of what is free", "half-open gRPC",
                     "wrong tokens over gRPC", "a device that sends bombs"):  # fmt: skip
            assert attacks[f"serve: {name}"](SHORT).missed(**LENIENT) == []


@pytest.fixture
def jpeg_bundle(tmp_path):
    """A bundle whose large model takes a frame's own pixels, which JPEG can carry."""
    pytest.importorskip("tritonclient.grpc")
    from tests.remote.device_bundle import device_bundle

    return device_bundle(tmp_path / "bundle")


def test_the_documents_tell_the_bounds() -> None:
    text = (ROOT / "docs/security.md").read_text()
    assert f"{MEMORY_MB} MB and {DESCRIPTORS} descriptors" in text
    for bound in (limits.MOST_ROWS, limits.MOST_CONNECTIONS, limits.MOST_HALF_SENT):
        assert f"{bound:,}" in text
