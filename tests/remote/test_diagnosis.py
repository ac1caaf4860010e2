"""A host with several addresses: the error that is told is that of the one that answers."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager

import pytest

from tests.remote.certificates import Authority, needs_openssl
from tinysaver_edge.engines.remote import RemoteModel, Tls
from tinysaver_edge.engines.remote.diagnosis import explained, refused_by_tls
from tinysaver_edge.engines.remote.endpoint import open_transport
from tinysaver_edge.engines.remote.facts import Kind, RequestError
from tinysaver_edge.engines.remote.model import Address
from tinysaver_edge.errors import InputError

pytestmark = needs_openssl

EXPIRED = "20210101000000Z"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("diagnosis") / "authority")


@contextmanager
def listening(certificate, key):
    """Shake hands over TLS on 127.0.0.1 with whoever comes, and no more; yields the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_server(("127.0.0.1", 0)) as door:

        def answer():
            while True:
                try:
                    guest, _ = door.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(guest, server_side=True).close()
                except OSError:
                    guest.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield door.getsockname()[1]
        door.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.fixture
def two_addresses(monkeypatch):
    """Have `localhost` mean two addresses; nobody listens at the other. Returns a setter."""

    def set_(places, *, grpc=False):
        def getaddrinfo(host, port, *more, **options):
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, (place, int(port))) for place in places]

        monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
        # gRPC's resolver is its own: it takes both addresses written out, and tries them in order.
        target = property(lambda self: "ipv4:" + ",".join(f"{one}:{self.port}" for one in places))
        if grpc:
            monkeypatch.setattr(Address, "authority", target)

    return set_


@pytest.mark.parametrize("places", [("127.0.0.2", "127.0.0.1"), ("127.0.0.1", "127.0.0.2")])
@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_an_expired_certificate_is_not_hidden(authority, two_addresses, scheme, places) -> None:
    tls = Tls(ca=authority.ca, server_name="localhost")
    with listening(*authority.certificate("expired", until=EXPIRED)) as port:
        two_addresses(places, grpc=scheme == "grpcs")
        address = Address.parse(f"{scheme}://localhost:{port}/m")
        transport = open_transport(address, RemoteModel((address,), tls=tls))
        try:
            with pytest.raises(RequestError, match="expired"):
                transport.describe(timeout_s=5.0)
        finally:
            transport.close()


def test_where_nothing_is_wrong_nothing_is_said(authority, two_addresses) -> None:
    tls = Tls(ca=authority.ca)
    with listening(*authority.certificate("good")) as port:
        address = Address.parse(f"grpcs://localhost:{port}/m")
        two_addresses(("127.0.0.2", "127.0.0.1"))
        assert refused_by_tls(address, tls, timeout_s=5.0) is None
        assert refused_by_tls(address, tls, timeout_s=0.0) is None
        plain = Address.parse(f"grpc://localhost:{port}/m")
        assert refused_by_tls(plain, tls, timeout_s=5.0) is None
        unknown = refused_by_tls(address, Tls(), timeout_s=5.0)
        assert unknown is not None
        assert unknown.startswith("at 127.0.0.1: ")
    assert refused_by_tls(address, Tls(), timeout_s=5.0) is None


@pytest.mark.parametrize(
    ("scheme", "message", "told"),
    [
        ("grpcs", "UNAVAILABLE: WRONG_VERSION_NUMBER: OK", "it speaks no TLS on this port ("),
        ("grpc", "UNAVAILABLE: (Trying to connect an http1.x server)", "it speaks HTTP on this"),
        ("http", "BadStatusLine: HALLO", "it speaks no HTTP on this port"),
        ("grpc", "UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed", "hung up; perhaps it wants grpcs"),
        (
            "https",
            "Remote end closed connection without response",
            "hung up; perhaps it wants a client",
        ),
        ("http", "[Errno 111] Connection refused", "[Errno 111] Connection refused"),
    ],
)
def test_what_is_known_is_told_in_plain_words(scheme, message, told) -> None:
    address = Address.parse(f"{scheme}://127.0.0.1:1/m")
    failure = RequestError(Kind.UNREACHABLE, message)
    found = explained(failure, address, Tls(), timeout_s=1.0)
    assert str(found).startswith(told)
    assert message in str(found)
    assert found.kind is Kind.UNREACHABLE
    denied = RequestError(Kind.DENIED, message)
    assert explained(denied, address, Tls(), timeout_s=1.0) is denied


def test_files_of_tls_that_are_something_else_are_refused_by_name(authority, tmp_path) -> None:
    certificate, key = authority.certificate("one")
    _, other = authority.certificate("two")
    Tls(ca=authority.ca, certificate=certificate, key=key).read()
    for wrong, complaint in (
        (Tls(ca=key), f"{key}: holds no certificate of an authority"),
        (
            Tls(certificate=certificate, key=other),
            f"{other}: is not the private key of {certificate}",
        ),
        (Tls(certificate=key, key=key), f"{key} and {key}: no certificate with a private key"),
        (Tls(certificate=certificate, key=certificate), "no certificate with a private key"),
    ):
        with pytest.raises(InputError) as caught:
            wrong.read()
        assert complaint in str(caught.value)
    sealed = tmp_path / "sealed.key"
    command = ["openssl", "rsa", "-aes128", "-passout", "pass:geheim", "-in", key, "-out", sealed]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(InputError, match="that is not encrypted"):
        Tls(certificate=certificate, key=sealed).read()
