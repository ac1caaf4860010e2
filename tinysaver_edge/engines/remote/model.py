"""Which hosts serve a model and how they are asked: `RemoteModel`, its addresses, TLS and token.

An address is `grpc://host:port/model[/version]`, or one of its three siblings. A token stands in a
file or in the environment, and nowhere else.
"""

from __future__ import annotations

import ipaddress
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.files import read_file, read_text
from tinysaver_edge._support.limits import MOST_PEM_BYTES, MOST_TOKEN_BYTES
from tinysaver_edge._support.urls import Url, is_loopback
from tinysaver_edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

TRITON_PREFIX = "triton-grpc-protocol-"
"""What Triton puts before the name of a header that guards a protocol, over gRPC."""

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


@dataclass(frozen=True, slots=True)
class Tls:
    """How the two sides prove who they are, for ``grpcs://`` and ``https://``.

    Attributes:
        ca: PEM file of the authorities that may vouch for the host; None takes the system's.
        certificate: PEM file with this side's certificate (chain), where the host asks for one.
        key: PEM file with the certificate's private key.
        server_name: the name that the host's certificate must bear; None takes the URL's.

    Raises:
        InputError: only one of certificate and key is given.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InputError("a client certificate and its private key belong together: give both")

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Return authorities, private key and certificate as PEM.

        Raises:
            InputError: a file cannot be read, is no PEM, or holds something else than it should.
        """
        content = _pem(self.ca), _pem(self.key), _pem(self.certificate)
        self._check()
        return content

    def _check(self) -> None:
        """Refuse what the libraries would only stumble over when they connect."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is not None:
            try:
                context.load_verify_locations(self.ca)
            except ssl.SSLError:
                raise InputError(f"{self.ca}: holds no certificate of an authority") from None
        if self.certificate is not None and self.key is not None:
            try:
                context.load_cert_chain(self.certificate, self.key, password="")
            except ssl.SSLError as error:
                if error.reason == "KEY_VALUES_MISMATCH":
                    why = f"{self.key}: is not the private key of {self.certificate}"
                else:
                    why = (
                        f"{self.certificate} and {self.key}: no certificate with a private key "
                        f"that is not encrypted ({error.reason or error})"
                    )
                raise InputError(why) from None


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token: where it is read from, never the token itself.

    Attributes:
        file: holds the token and nothing else.
        env: the environment variable that holds it.
        header: the header it goes into. Over gRPC it is sent under Triton's name for it as well.

    Raises:
        InputError: not exactly one of file and env is given.
    """

    file: Path | None = None
    env: str | None = None
    header: str = "authorization"

    def __post_init__(self) -> None:
        if (self.file is None) == (self.env is None):
            raise InputError("a token comes from a file or an environment variable: name one")

    def headers(self, *, grpc: bool) -> dict[str, str]:
        """Read the token and return the headers to send.

        Raises:
            InputError: there is none, or it has characters that no header may have.
        """
        bearer = f"Bearer {self._read()}"
        name = self.header.lower()
        return {name: bearer, TRITON_PREFIX + name: bearer} if grpc else {name: bearer}

    def _read(self) -> str:
        if self.file is not None:
            try:
                token = read_text(self.file, most=MOST_TOKEN_BYTES).strip()
                where = f"token file {self.file}"
            except (OSError, UnicodeDecodeError) as error:
                if _may_be_a_token(self.file):
                    why = (
                        "no such file; give the name of a file that holds the token, not the token"
                    )
                    raise InputError(f"token file: {why}") from None
                reason = getattr(error, "strerror", None) or "is no text"
                raise InputError(f"token file {self.file}: {reason}") from None
        else:
            assert self.env is not None
            token, where = os.environ.get(self.env, "").strip(), f"environment variable {self.env}"
            if not token and not _VARIABLE.fullmatch(self.env):
                why = "no such variable; give the name of one that holds the token, not the token"
                raise InputError(f"environment: {why}")
        if not token:
            raise InputError(f"{where}: holds no token")
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise InputError(f"{where}: holds something else than one token")
        return token


_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,59}")


def _may_be_a_token(file: Path) -> bool:
    """Whether a file that is not there may be a token in place of a file's name."""
    with suppress(OSError):  # a name too long
        if file.exists():
            return False
    named = len(file.parts) > 1 or file.suffix or len(file.name) < 16
    return not named or not file.parent.is_dir() or len(file.name) > 60


def _pem(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = read_file(path, most=MOST_PEM_BYTES)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if b"-----BEGIN" not in content:
        raise InputError(f"{path}: no PEM file (it should hold a line -----BEGIN …)")
    return content


DEFAULT_TLS = Tls()
"""The system's authorities, no certificate of our own, the URL's name."""


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model that other hosts serve, and how they are asked.

    Attributes:
        addresses: where it is served; the same model everywhere. URLs, one or several, become
            what they name.
        timeout_s: how long an answer may take, retries included; what is left of a frame's
            deadline, if that is less.
        connect_s: how long a host may take to say what it serves.
        max_in_flight: requests under way at once.
        failures_to_open: after so many failures in a row a host is left alone, but for probes.
        probe_s: time between probes of a host that is left alone.
        retry_share: retries allowed, as a share of the requests.
        jpeg_quality: send JPEG of this quality (1 to 100) as a BYTES tensor; None sends what the
            bundle was calibrated on, JPEG or pixels.
        tls: for the encrypted schemes.
        token: sent with every request, or None.
        insecure: allow plain text to other hosts than this one.
        optional: start although no host can be reached; they are tried until one is.
        vouched: take the user's word that the hosts serve the model that was calibrated, where
            they do not say so themselves.

    Raises:
        InputError: a figure is out of range, a URL cannot be understood, a host is named twice,
            plain text would leave this machine, or TLS is set up and no host is asked over it.
    """

    addresses: tuple[Address, ...]
    timeout_s: float = 1.0
    connect_s: float = 5.0
    max_in_flight: int = 4
    failures_to_open: int = 3
    probe_s: float = 0.5
    retry_share: float = 0.1
    jpeg_quality: int | None = None
    tls: Tls = DEFAULT_TLS
    token: Token | None = None
    insecure: bool = False
    optional: bool = False
    vouched: bool = False

    def __post_init__(self) -> None:
        given: Any = self.addresses
        urls = [given] if isinstance(given, str) else given
        read = (Address.parse(one) if isinstance(one, str) else one for one in urls)
        object.__setattr__(self, "addresses", tuple(read))
        if not self.addresses:
            raise InputError("a remote model needs at least one address")
        for name in ("timeout_s", "connect_s", "probe_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} {getattr(self, name)}: must be a number above 0")
        for name in ("max_in_flight", "failures_to_open"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: must be at least 1")
        if not 0 <= self.retry_share <= 1:
            raise InputError(f"retry_share {self.retry_share}: must be from 0 to 1")
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise InputError(f"jpeg_quality {self.jpeg_quality}: must be from 1 to 100")
        if len(set(self.addresses)) < len(self.addresses):
            twice = next(one for one in self.addresses if self.addresses.count(one) > 1)
            raise InputError(f"{twice}: named twice; name each host once")
        if self.tls != DEFAULT_TLS and not any(one.scheme.secure for one in self.addresses):
            raise InputError(
                f"{self.addresses[0]}: is not encrypted, so certificates and server names do "
                f"nothing; use {self.addresses[0].scheme.value}s://, or leave them out"
            )
        if self.exposed and not self.insecure:
            raise InputError(
                f"{self.exposed[0]}: plain text to another host; use "
                f"{self.exposed[0].scheme.value}s://, or allow it with --insecure"
            )

    @property
    def exposed(self) -> tuple[Address, ...]:
        """Addresses to which frames go in plain text over a network."""
        return tuple(one for one in self.addresses if not (one.scheme.secure or one.is_loopback))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know before frames leave this machine."""
        what = "frames and answers" if self.token is None else "frames, answers and the token"
        return tuple(f"{one}: {what} cross the network in plain text" for one in self.exposed)

    @property
    def name(self) -> str:
        """The model's name on the first host."""
        return self.addresses[0].model

    def __str__(self) -> str:
        return ", ".join(map(str, self.addresses))


def remote_model(model: RemoteModel | str | Sequence[str]) -> RemoteModel:
    """Return a remote model for a URL or several, with everything else as it is by default.

    Raises:
        InputError: a URL cannot be understood.
    """
    if isinstance(model, RemoteModel):
        return model
    urls = [model] if isinstance(model, str) else model
    return RemoteModel(tuple(Address.parse(url) for url in urls))
