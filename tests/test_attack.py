"""The benchmark of attacks in short: a few seconds each, with room for machines that are busy."""

from __future__ import annotations

import pytest

from benchmarks.bench_attack import DESCRIPTORS, MEMORY_MB, ROOT, host_attacks, stream_attacks
from tests.remote.kserve import VENV, needs_kserve
from tests.small_bundle import small_bundle
from tinysaver_edge._support import limits

FACTOR, LEAST_MS = 10.0, 50.0
"""A p99 of a dozen answers on a busy machine says little; five minutes each say the rest."""


def laid(attacks) -> list[str]:
    """Lay all attacks; return what did not hold."""
    return [
        line
        for attack in attacks.values()
        for line in attack(0.6, 1).missed(factor=FACTOR, least_ms=LEAST_MS, slack_s=0.4)
    ]


@pytest.mark.slow
def test_a_stream_goes_on_under_attack(tmp_path) -> None:
    with stream_attacks(small_bundle(tmp_path / "bundle")) as attacks:
        assert len(attacks) == 7
        assert laid(attacks) == []


@pytest.mark.slow
@needs_kserve
def test_a_host_answers_its_devices_under_attack(tmp_path, jpeg_bundle) -> None:
    with host_attacks(jpeg_bundle, VENV / "bin/python") as attacks:
        assert len(attacks) == 9
        assert laid(attacks) == []


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
