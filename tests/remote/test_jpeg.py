"""A bundle that was calibrated through JPEG, its large model on real hosts and in process."""

from __future__ import annotations

import json

import pytest

from tests.colours import NAMES, colour_picture
from tests.command import spawned
from tests.remote.device_bundle import jpeg_bundle
from tests.remote.hosts import remote
from tests.remote.kserve import Served, needs_kserve
from tests.remote.triton import Triton, needs_triton
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.errors import EngineError
from tinysaver_edge.host.deploy import Target, deploy

CODEC = Jpeg(20)
FRAMES = [colour_picture(number % len(NAMES), 1000 + number, size=40) for number in range(120)]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return jpeg_bundle(tmp_path_factory.mktemp("jpeg") / "bundle", CODEC)


@pytest.fixture(scope="module")
def here(bundle):
    with Cascade.load(bundle) as cascade:
        decisions = [cascade.decide(frame) for frame in FRAMES]
    assert sum(one.escalated for one in decisions) > 10
    assert all(one.certified for one in decisions)
    return decisions


@pytest.fixture(scope="module")
def served(bundle, tmp_path_factory):
    host = Served(tmp_path_factory.mktemp("host"), bundle).start()
    yield host
    host.stop()


def told(decision):
    return (decision.label, decision.source, decision.degraded, decision.certified)


def check(bundle, url: str, here) -> None:
    """Hold a host's decisions against those made in process, and count what was sent."""
    with Cascade.load(bundle, large=remote(url, timeout_s=5.0)) as cascade:
        answers = [cascade.decide(frame) for frame in FRAMES]
        engine, stage = cascade.stages[-1].engine, cascade.stages[-1]
        asked = [frame for frame, one in zip(FRAMES, answers, strict=True) if one.escalated]
        files = CODEC.encode(stage.prepare_many(asked))
        before = engine.traffic.sent_bytes
        stage.ask(stage.prepare_many(asked))
        assert engine.traffic.sent_bytes - before == sum(map(len, files))
        assert cascade.doubt is None
    assert [told(one) for one in answers] == [told(one) for one in here]
    assert [one.confidence for one in answers] == pytest.approx([one.confidence for one in here])


@needs_kserve
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_serve_takes_what_the_bundle_sends(bundle, served, here, scheme) -> None:
    assert "large takes JPEG files in place of pixels" in served.log()
    check(bundle, served.url(scheme=scheme), here)


@needs_triton
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_triton_runs_what_deploy_writes(bundle, tmp_path, here, scheme) -> None:
    with Bundle.load(bundle) as opened:
        deploy(opened, Target.TRITON, tmp_path / "out")
    readme = (tmp_path / "out/README.md").read_text()
    assert "--large-jpeg" not in readme
    assert readme.rstrip().endswith("the bundle's certificate covers the decisions.")
    triton = Triton(tmp_path, tmp_path / "out/model_repository").start()
    try:
        check(bundle, triton.url("large", scheme=scheme), here)
    finally:
        triton.stop()


@needs_kserve
def test_another_quality_is_answered_but_not_certified(bundle, served) -> None:
    with Cascade.load(bundle, large=remote(served.url(), jpeg_quality=90)) as cascade:
        assert cascade.doubt == (
            "the large model is sent JPEG of quality 90, and was calibrated on JPEG of quality 20"
        )
        answers = [cascade.decide(frame) for frame in FRAMES]
    assert not any(one.degraded or one.certified for one in answers)
    assert any(one.escalated for one in answers)


@needs_kserve
def test_the_command_warns_once_of_another_quality(bundle, served) -> None:
    images = bundle.parent / "images/amber"
    large = ("--large", served.url(), "--large-timeout-ms", "5000", "--json")
    for quality in (20, 90):
        done = spawned("run", bundle, "--source", images, *large, "--large-jpeg", quality)
        assert done.code == 0, done.err
        certified = {json.loads(line)["certified"] for line in done.out.splitlines()}
        assert certified == {quality == 20}
        assert done.err.count("not certified") == (quality != 20)
        assert f"MB sent as JPEG of quality {quality}" in done.err


@needs_kserve
def test_a_host_that_takes_pixels_is_named(bundle, tmp_path) -> None:
    from tests.remote.device_bundle import device_bundle

    host = Served(tmp_path, device_bundle(tmp_path / "pixels")).start()
    try:
        with pytest.raises(EngineError, match=r"takes .* UINT8 .*wants BYTES \(n\) of JPEG files"):
            Cascade.load(bundle, large=host.url())
    finally:
        host.stop()


@needs_kserve
def test_an_empty_file_harms_nobody(served) -> None:
    import numpy as np
    import tritonclient.grpc
    from tritonclient.utils import InferenceServerException

    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{served.grpc_port}") as client:
        given = tritonclient.grpc.InferInput("jpeg", (1,), "BYTES")
        given.set_data_from_numpy(np.array([b""], object))
        with pytest.raises(InferenceServerException, match="expected JPEG files of 16 x 16"):
            client.infer("large", [given])


def test_ovms_decodes_no_jpeg(bundle, tmp_path) -> None:
    done = spawned("deploy", bundle, "--target", "ovms", "--out", tmp_path / "out")
    assert done.code == 2
    assert "calibrated without --large-jpeg" in done.complaint
    assert not (tmp_path / "out").exists()
