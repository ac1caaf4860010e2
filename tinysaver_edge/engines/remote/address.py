"""Where a remote model is: `grpc://host:port/model[/version]` and its three siblings."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum

from tinysaver_edge._support.urls import Url, is_loopback
from tinysaver_edge.errors import InputError

_FORM = "grpc://host:port/model[/version], grpcs://…, http://… or https://…"
_PART = re.compile(r"[A-Za-z0-9._:+~-]+")
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
            InputError: it is none of the four forms, or holds a password, no part of which is
                repeated.
        """
        found = Url.parse(url, what="remote model", form=f"expected {_FORM}")
        if found.user is not None:
            raise InputError(
                f"remote model {found.shown()}: no passwords in URLs, they end up in logs; "
                "give a token by file or environment variable"
            )
        where = f"remote model {found.shown()!r}"
        if found.scheme not in {one.value for one in Scheme}:
            raise InputError(f"{where}: expected {_FORM}")
        if found.query or found.fragment:
            raise InputError(f"{where}: nothing may follow the model's version")
        path = found.path.strip("/").split("/")
        if not found.port or not _is_host(found.host):
            raise InputError(f"{where}: no host or port; expected {_FORM}")
        if len(path) > 2 or not all(_PART.fullmatch(part) for part in path):
            raise InputError(f"{where}: no model's name; expected {_FORM}")
        version = path[1] if len(path) == 2 else ""
        return cls(Scheme(found.scheme), found.host, found.port, path[0], version)

    @property
    def authority(self) -> str:
        """``host:port``, as both protocols want it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this one, by a name that cannot be another's."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        version = f"/{self.version}" if self.version else ""
        return f"{self.scheme.value}://{self.authority}/{self.model}{version}"


def _is_host(host: str) -> bool:
    if _NAME.fullmatch(host):
        return True
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
