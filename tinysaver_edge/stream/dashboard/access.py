"""Who may see the dashboard: this machine's own browser, or whoever knows the token."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.telemetry.address import ListenAddress

COOKIE = "tinysaver_edge"
SHORTEST_TOKEN = 8
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Access:
    """The rule for one dashboard.

    Attributes:
        address: where it listens.
        token: what must be known; None where only this machine can reach it.
        secret: of this process; what a browser keeps is of no use to find out the token.

    Raises:
        InputError: others can reach it and there is no token, or it is too short.
    """

    address: ListenAddress
    token: str | None = field(default=None, repr=False)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def __post_init__(self) -> None:
        if self.token is None and not self.address.is_loopback:
            raise InputError(
                f"{self.address}: others can reach this address, so the dashboard needs a token: "
                f"set TINYSAVER_TOKEN, or listen on 127.0.0.1:{self.address.port}"
            )
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise InputError(
                f"{self.address}: the token is too short: at least {SHORTEST_TOKEN} characters"
            )

    @property
    def cookie(self) -> str:
        """What a browser keeps once it has shown the token, which it does not reveal."""
        return hmac.new(self.secret, f"{self.token}".encode(), "sha256").hexdigest()

    def knows(self, given: str) -> bool:
        """Whether this is the token."""
        return self.token is None or _same(given, self.token)

    def admits(self, cookies: Mapping[str, str]) -> bool:
        """Whether a request may be answered without a token."""
        return self.token is None or _same(cookies.get(COOKIE, ""), self.cookie)

    def addressed_rightly(self, host: str) -> bool:
        """Whether the Host header names this machine.

        A page of another site can have its own name point here and read what is answered; without
        a token, only loopback's own names are answered.
        """
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return self.token is not None or name in (*LOOPBACK_NAMES, self.address.host)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))
