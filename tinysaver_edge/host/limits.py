"""Where a host listens, who may ask it, and how much."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from pathlib import Path

from tinysaver_edge._support.urls import redacted
from tinysaver_edge.engines.remote.address import Address, Scheme
from tinysaver_edge.engines.remote.security import Token
from tinysaver_edge.errors import InputError

MOST_REQUEST_MB = 2047
"""gRPC knows no higher limit."""

LONGEST_DRAIN_S = 3600.0
"""An hour: whoever stops a host wants it to stop."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a host listens, who may ask it, and how much.

    Attributes:
        host: name or address to listen on.
        grpc_port: port for gRPC.
        http_port: port for HTTP, health and metrics; None for none.
        certificate: PEM file with the host's certificate (chain); None for plain text.
        key: PEM file with its private key.
        client_ca: PEM file of authorities; only clients with a certificate of theirs are let in.
        token: clients must send it; None lets in whoever can connect.
        insecure: allow plain text on an address that others can reach.
        max_requests: requests taken in at once; beyond it they are refused.
        max_request_bytes: longer requests are refused.
        drain_s: how long requests under way may take once the host is told to stop.

    Raises:
        InputError: options that belong together are not, or plain text would leave this machine.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int | None = None
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    token: Token | None = None
    insecure: bool = False
    max_requests: int = 16
    max_request_bytes: int = 32 << 20
    drain_s: float = 5.0

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InputError("--tls-cert and --tls-key belong together: give both")
        if self.client_ca is not None and self.certificate is None:
            raise InputError("--client-ca needs TLS: give --tls-cert and --tls-key as well")
        if self.certificate is None and not (self.is_loopback or self.insecure):
            raise InputError(
                f"--bind {self.host}: others can reach it, and nothing is encrypted; give "
                "--tls-cert and --tls-key, listen on 127.0.0.1, or allow it with --insecure"
            )
        if self.http_port == self.grpc_port:
            raise InputError(f"gRPC and HTTP cannot both listen on port {self.grpc_port}")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return Address(Scheme.GRPC, self.host, self.grpc_port, "model").is_loopback

    @property
    def authority(self) -> str:
        """``host:port`` for gRPC."""
        return Address(Scheme.GRPC, self.host, self.grpc_port, "model").authority

    def expected(self) -> str | None:
        """Return the header's value that clients must send, or None.

        Raises:
            InputError: the token cannot be read.
        """
        if self.token is None:
            return None
        return self.token.headers(grpc=False)[self.token.header.lower()]


def parse_bind(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``, an IPv6 address in brackets.

    Raises:
        InputError: it is something else.
    """
    try:
        address = Address.parse(f"grpc://{text}/model")
    except InputError:
        raise InputError(
            f"--bind {redacted(text)!r}: expected HOST:PORT, as 127.0.0.1:8001"
        ) from None
    return address.host, address.port


def same_token(given: str | None, expected: str | None) -> bool:
    """Compare in constant time; without an expected token anything will do."""
    if expected is None:
        return True
    return given is not None and hmac.compare_digest(given.encode(), expected.encode())
