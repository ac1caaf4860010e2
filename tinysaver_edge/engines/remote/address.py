"""Where a remote model is: `grpc://host:port/model[/version]` and its three siblings."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import SplitResult, urlsplit

from tinysaver_edge.errors import InputError

_FORM = "grpc://host:port/model[/version], grpcs://…, http://… or https://…"
_PART = re.compile(r"[A-Za-z0-9._:@+~-]+")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


class Scheme(str, Enum):
    """Protocol and whether it is encrypted."""

    GRPC = "grpc"
    GRPCS = "grpcs"
    HTTP = "http"
    HTTPS = "https"

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self in (Scheme.GRPCS, Scheme.HTTPS)

    @property
    def is_grpc(self) -> bool:
        """Whether it is gRPC rather than HTTP."""
        return self in (Scheme.GRPC, Scheme.GRPCS)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a model is served.

    Attributes:
        scheme: protocol.
        host: name or address, an IPv6 one without its brackets.
        port: 1 to 65535.
        model: the model's name on the server.
        version: its version there; empty leaves it to the server.
    """

    scheme: Scheme
    host: str
    port: int
    model: str
    version: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL.

        Raises:
            InputError: it is none of the four forms, or holds a password. The message does not
                repeat what stands before an ``@``, nor a query.
        """
        try:
            parts = urlsplit(url)
            scheme, port, host = Scheme(parts.scheme), parts.port, parts.hostname
            if "[" in parts.netloc:  # Python 3.10 takes anything between brackets
                ipaddress.IPv6Address(host or "")
        except ValueError:
            raise InputError(f"remote model {_shown(url)!r}: expected {_FORM}") from None
        _refuse_secrets(parts, url)
        path = parts.path.strip("/").split("/")
        if not port or not _is_host(host):
            raise InputError(f"remote model {_shown(url)!r}: no host or port; expected {_FORM}")
        if len(path) > 2 or not all(_PART.fullmatch(part) for part in path):
            raise InputError(f"remote model {_shown(url)!r}: no model's name; expected {_FORM}")
        assert host is not None
        return cls(scheme, host, port, path[0], path[1] if len(path) == 2 else "")

    @property
    def authority(self) -> str:
        """``host:port``, as both protocols want it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this one, by a name that cannot be another's."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        version = f"/{self.version}" if self.version else ""
        return f"{self.scheme.value}://{self.authority}/{self.model}{version}"


def _is_host(host: str | None) -> bool:
    if host is None or _NAME.fullmatch(host):
        return host is not None
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _refuse_secrets(parts: SplitResult, url: str) -> None:
    if "@" in parts.netloc:
        raise InputError(
            f"remote model {_shown(url)!r}: no passwords in URLs, they end up in logs; "
            "give a token by file or environment variable"
        )
    if parts.query or parts.fragment:
        raise InputError(f"remote model {_shown(url)!r}: nothing may follow the model's version")


def _shown(url: str) -> str:
    """Return a URL without what may be secret in it."""
    kept = re.split(r"[?#]", url)[0]
    return re.sub(r"//.*@", "//…@", kept)
