"""TLS and tokens against a real Triton: what is accepted, and what is refused in one clear line."""

from __future__ import annotations

import time

import pytest

from tests.colours import NAMES, colour_picture
from tests.remote.certificates import Authority, needs_openssl
from tests.remote.hosts import Repository, remote, repository
from tests.remote.triton import Triton, needs_triton, token_options
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.engines.remote import Tls, Token
from tinysaver_edge.engines.remote.traffic import State
from tinysaver_edge.errors import EngineError, InputError

pytestmark = [pytest.mark.slow, needs_triton, needs_openssl]

FRAMES = [colour_picture(number % len(NAMES), number) for number in range(30)]
SECRET = "s3cr3t-t0ken"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("security")


@pytest.fixture(scope="module")
def served(place) -> Repository:
    return repository(place)


@pytest.fixture(scope="module")
def authority(place) -> Authority:
    return Authority(place / "authority")


def tls_host(folder, served, certificate, key, *more) -> Triton:
    folder.mkdir()
    return Triton(
        folder,
        served.path,
        "--grpc-use-ssl=1",
        f"--grpc-server-cert={certificate}",
        f"--grpc-server-key={key}",
        *more,
    )


def load(place, url, **limits) -> Cascade:
    return Cascade.load(place / "bundle", large=remote(url, connect_s=2.0, **limits))


def decided(cascade: Cascade) -> list:
    return [cascade.decide(frame) for frame in FRAMES]


def test_tls(place, served, authority) -> None:
    triton = tls_host(place / "tls", served, *authority.certificate("good")).start()
    url = f"grpcs://localhost:{triton.grpc_port}/large"
    try:
        with load(place, url, tls=Tls(ca=authority.ca)) as cascade:
            assert not any(one.degraded for one in decided(cascade))
        with pytest.raises(EngineError, match="UNAVAILABLE"):  # an authority nobody knows
            load(place, url)
        address = url.replace("localhost", "127.0.0.1")
        with pytest.raises(EngineError, match="UNAVAILABLE"):  # not the certificate's name
            load(place, address, tls=Tls(ca=authority.ca))
        with load(place, address, tls=Tls(ca=authority.ca, server_name="localhost")) as cascade:
            assert not any(one.degraded for one in decided(cascade))
        with pytest.raises(EngineError, match="UNAVAILABLE"):  # plain text to a TLS port
            load(place, url.replace("grpcs", "grpc"))
    finally:
        triton.stop()


def test_a_client_certificate_where_the_host_asks_for_one(place, served, authority) -> None:
    triton = tls_host(
        place / "mutual",
        served,
        *authority.certificate("server"),
        "--grpc-use-ssl-mutual=1",
        f"--grpc-root-cert={authority.ca}",
    ).start()
    url = f"grpcs://localhost:{triton.grpc_port}/large"
    certificate, key = authority.certificate("client", "camera-7")
    try:
        own = Tls(ca=authority.ca, certificate=certificate, key=key)
        with load(place, url, tls=own) as cascade:
            assert not any(one.degraded for one in decided(cascade))
        with pytest.raises(EngineError, match="UNAVAILABLE"):
            load(place, url, tls=Tls(ca=authority.ca))
    finally:
        triton.stop()


def test_an_expired_certificate_is_refused_until_it_is_renewed(place, served, authority) -> None:
    expired = authority.certificate("expired", until="20200102000000Z")
    triton = tls_host(place / "expired", served, *expired).start()
    url = f"grpcs://localhost:{triton.grpc_port}/large"
    tls = Tls(ca=authority.ca)
    try:
        with pytest.raises(EngineError, match=r"(?i)expired"):
            load(place, url, tls=tls)
        with load(place, url, tls=tls, optional=True, probe_s=0.2) as cascade:
            early = decided(cascade)
            assert all(one.degraded for one in early if one.escalated)
            triton.kill()
            good = authority.certificate("renewed")
            triton.options = (
                "--grpc-use-ssl=1",
                f"--grpc-server-cert={good[0]}",
                f"--grpc-server-key={good[1]}",
            )
            triton.start()
            engine, due_s = cascade.stages[-1].engine, time.monotonic() + 2
            while State.CLOSED not in engine.states.values() and time.monotonic() < due_s:
                time.sleep(0.02)
            assert not any(one.degraded for one in decided(cascade))
    finally:
        triton.stop()


def test_tokens(place, served, tmp_path) -> None:
    (tmp_path / "guarded").mkdir()
    triton = Triton(tmp_path / "guarded", served.path, *token_options(SECRET)).start()
    file = tmp_path / "token"
    url = triton.url("large")
    try:
        file.write_text(SECRET)
        with load(place, url, token=Token(file=file), probe_s=0.2) as cascade:
            assert not any(one.degraded for one in decided(cascade))
            file.write_text("another")  # revoked while it runs
            refused = decided(cascade)
            wrong = [one.degraded for one in refused if one.escalated]
            assert wrong
            assert all(wrong)
            assert all(SECRET not in why and "another" not in why for why in wrong)
            assert all("restricted" in why for why in wrong)
            file.write_text(SECRET)
            engine, due_s = cascade.stages[-1].engine, time.monotonic() + 2
            while State.CLOSED not in engine.states.values() and time.monotonic() < due_s:
                time.sleep(0.02)
            assert not any(one.degraded for one in decided(cascade))
        with pytest.raises(EngineError) as caught:
            load(place, url)
        assert "large" in str(caught.value)
        file.unlink()
        with pytest.raises((EngineError, InputError), match="No such file"):
            load(place, url, token=Token(file=file))
    finally:
        triton.stop()
