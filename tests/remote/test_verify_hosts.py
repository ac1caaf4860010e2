"""`verify --large`: is what the hosts serve the model that was calibrated?"""

from __future__ import annotations

import pytest

from tests.command import Done, spawned
from tests.remote.device_bundle import jpeg_bundle
from tests.remote.hosts import Repository
from tests.remote.kserve import Served, needs_kserve
from tests.remote.triton import Triton, needs_triton
from tests.small_bundle import small_bundle
from tinysaver_edge.codec import Jpeg

PATIENT = ("--large-timeout-ms", "5000", "--json")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    small_bundle(folder / "bundle")
    small_bundle(folder / "other", names=("saver", "middle"))
    return folder


@pytest.fixture(scope="module")
def host(place):
    served = Served(place, place / "bundle").start()
    yield served
    served.stop()


def checks(done: Done) -> dict[str, dict[str, object]]:
    return {one["name"]: one for one in done.json["checks"]}


@needs_kserve
@pytest.mark.slow
def test_the_right_host_agrees(place, host) -> None:
    done = spawned("verify", place / "bundle", "--large", host.url(), *PATIENT)
    assert done.code == 0, done.err
    found = checks(done)
    assert found["hosts of large"]["passed"] is True
    assert "which is the model that was calibrated" in str(found["hosts of large"]["detail"])
    assert "engine of large" not in found
    for name in ("engine of saver", "answers of saver", "answers of large", "decisions"):
        assert found[name]["passed"] is True


@needs_kserve
@pytest.mark.slow
def test_a_host_of_another_model_is_one_clear_line(place, host) -> None:
    done = spawned("verify", place / "other", "--large", host.url(), *PATIENT)
    assert done.code == 2
    line = done.err.splitlines()[-1]
    assert f"hosts of middle: remote model: {host.url()} serves the model with hash" in line
    assert "the bundle was calibrated with" in line
    assert checks(done)["hosts of middle"]["passed"] is False


@needs_triton
@pytest.mark.slow
def test_a_host_that_does_not_tell_is_compared_and_warned_of(place, tmp_path) -> None:
    """By its answers alone: the right model is a warning, another one a failure."""
    silent = Repository(tmp_path / "served", place / "bundle")
    silent.edit("config.pbtxt", silent.served.sha256, "")
    triton = Triton(tmp_path, silent.path).start()
    try:
        url = triton.url("large")
        good = spawned("verify", place / "bundle", "--large", url, *PATIENT)
        vouched = spawned("verify", place / "bundle", "--large", url, *PATIENT, "--vouch-for-large")
        bad = spawned("verify", place / "other", "--large", url, *PATIENT)
    finally:
        triton.stop()
    assert good.code == 0, good.err
    found = checks(good)
    assert found["hosts of large"]["warning"] is True
    assert "a host does not tell the hash" in str(found["hosts of large"]["detail"])
    assert found["answers of large"]["passed"] is True
    assert checks(vouched)["hosts of large"]["warning"] is False
    assert bad.code == 2
    assert "answers the bundle's golden samples otherwise" in bad.err.splitlines()[-1]


@needs_kserve
@pytest.mark.slow
def test_golden_samples_go_through_the_codec(tmp_path) -> None:
    bundle = jpeg_bundle(tmp_path / "bundle", Jpeg(20))
    served = Served(tmp_path, bundle).start()
    try:
        done = spawned("verify", bundle, "--large", served.url(), *PATIENT)
    finally:
        served.stop()
    assert done.code == 0, done.err
    detail = str(checks(done)["answers of large"]["detail"])
    assert detail.endswith("through JPEG of quality 20")


@needs_kserve
@pytest.mark.slow
def test_every_host_that_is_named_has_to_be_there(place, host) -> None:
    two = ("--large", host.url(), "--large", "grpc://127.0.0.1:9/large")
    done = spawned("verify", place / "bundle", *two, *PATIENT)
    assert done.code == 2
    assert "hosts of large: grpc://127.0.0.1:9/large UNAVAILABLE" in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--large", "grpc://127.0.0.1:9/large"], "hosts of large: remote model: grpc://127.0.0.1"),
        (["--large", "grpc://10.0.0.1:1/large"], "plain text to another host"),
        (["--large", "grpcs://127.0.0.1:9/m", "--large-ca", "/none.pem"], "/none.pem: No such"),
        (["--insecure"], "name one with --large"),
        (["--large", "grpc://127.0.0.1:9/m", "--large-optional"], "No such option"),
    ],
)
def test_mistakes_are_one_clear_line(place, options, complaint) -> None:
    pytest.importorskip("tritonclient.grpc")
    done = spawned("verify", place / "bundle", *options)
    assert done.code == 2
    assert complaint in done.err.splitlines()[-1]
