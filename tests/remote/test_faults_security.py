"""A host's certificate expires, or our token is refused, while frames come; later it is mended."""

from __future__ import annotations

import pytest

from tests.remote.certificates import Authority, needs_openssl
from tests.remote.faulty import check, limits, run_through
from tests.remote.hosts import Repository, repository
from tests.remote.triton import Triton, needs_triton, token_options
from tinysaver_edge.engines.remote import Tls, Token

pytestmark = [pytest.mark.slow, needs_triton]

SECRET = "s3cr3t-t0ken"


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Repository:
    return repository(tmp_path_factory.mktemp("security"))


@needs_openssl
def test_tls_expired(served, tmp_path) -> None:
    """A host is restarted with a certificate that has expired, then with one that is good."""
    authority = Authority(tmp_path / "authority")
    pairs = {
        "good": authority.certificate("good"),
        "expired": authority.certificate("expired", until="20200102000000Z"),
    }
    triton = Triton(tmp_path, served.path)

    def start(which: str) -> None:
        if triton.process is not None:
            triton.kill()
        certificate, key = pairs[which]
        triton.options = (
            "--grpc-use-ssl=1",
            f"--grpc-server-cert={certificate}",
            f"--grpc-server-key={key}",
        )
        triton.start()

    start("good")
    steps = [("expire", 1.0, lambda: start("expired")), ("renew", 2.0, lambda: start("good"))]
    tls = Tls(ca=authority.ca, server_name="localhost")
    try:
        run = run_through(
            served.bundle, limits(triton.url("large", scheme="grpcs"), tls=tls), steps
        )
    finally:
        triton.stop()
    check(run, faulty_from="expire", healed="renew")
    between = [
        one.degraded
        for came_s, one in run.decisions
        if run.times["expire done"] + 1.0 < came_s < run.times["renew"] and one.degraded
    ]
    assert between
    assert any("expired" in why.lower() for why in between), between


def test_wrong_token(served, tmp_path) -> None:
    """The token's file holds another for a while, as when it was revoked and is renewed late."""
    triton = Triton(tmp_path, served.path, *token_options(SECRET)).start()
    file = tmp_path / "token"
    file.write_text(SECRET)
    steps = [
        ("revoke", 1.0, lambda: file.write_text("another")),
        ("renew", 2.0, lambda: file.write_text(SECRET)),
    ]
    try:
        run = run_through(served.bundle, limits(triton.url("large"), token=Token(file=file)), steps)
    finally:
        triton.stop()
    check(run, faulty_from="revoke", healed="renew")
    reasons = [one.degraded for _, one in run.decisions if one.degraded]
    assert any("restricted" in why for why in reasons)
    assert not any(SECRET in why or "another" in why for why in reasons)
