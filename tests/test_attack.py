"""The benchmark of attacks in short: a few seconds each, with room for machines that are busy."""

from __future__ import annotations

import pytest

from benchmarks.bench_attack import (
    DESCRIPTORS,
    MEMORY_MB,
    ROOT,
    attack_host,
    attack_stream,
    missed,
)
from tests.remote.kserve import VENV, needs_kserve
from tests.small_bundle import small_bundle
from tinysaver_edge._support import limits

SECONDS = 1.0


@pytest.mark.slow
def test_a_stream_goes_on_under_attack(tmp_path) -> None:
    phases = attack_stream(small_bundle(tmp_path / "bundle"), SECONDS)
    assert len(phases) == 6
    assert missed(phases, factor=4.0, least_ms=25.0) == []


@pytest.mark.slow
@needs_kserve
def test_a_host_answers_its_devices_under_attack(tmp_path, jpeg_bundle) -> None:
    phases = attack_host(jpeg_bundle, SECONDS, VENV / "bin/python")
    assert len(phases) == 7
    assert missed(phases, factor=4.0, least_ms=125.0) == []


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
