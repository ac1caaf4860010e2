"""Network addresses: one way to take them apart, one to show them, for cameras, brokers and hosts.

User and password are nobody's business but the other end's: no message, name or look-up of ours
holds a part of them. Where it is not beyond doubt which part of an address is the host, as with a
``/`` in a password, the address is refused.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from tinysaver_edge._support.text import brief
from tinysaver_edge.errors import InputError

HINT = "in a user or password / ? # @ are written %2F %3F %23 %40, and so is an @ behind the host"

SCHEMES = ("rtsp", "rtsps", "http", "https", "mqtt", "mqtts", "grpc", "grpcs", "oci")
"""What our addresses begin with."""

_SCHEMES = "|".join((*SCHEMES, "rtmp", "rtmps", "rtp", "udp", "tcp", "srt", "ws", "wss", "ftp"))
_START = re.compile(rf"(?i)({_SCHEMES})://")
_ANYWHERE = re.compile(rf"(?i)(?:{_SCHEMES}):?//?")
_HOST = re.compile(r"[\w.-]+")
_SECRET = re.compile(
    r"(?i)((?:pass\w{0,64}|pwd|psw|pw|token|secret|\w{0,64}key|auth\w{0,64}|user\w{0,64}|usr|login|"
    r"cred\w{0,64}|sess\w{0,64}|sig\w{0,64})=)[^/&;]*"
)
"""Bounded: a text without end would take a time that grows with its square."""


@dataclass(frozen=True, slots=True)
class Url:
    """A network address, taken apart. Its text holds no credentials.

    Attributes:
        scheme: in small letters.
        host: name or address, an IPv6 one without its brackets.
        port: 1 to 65535, or None where none is named.
        path: as it was written.
        query: what stands behind ``?``.
        fragment: what stands behind ``#``.
        user: name to log in with, or None.
        password: password, or None.
    """

    scheme: str
    host: str
    port: int | None
    path: str = field(repr=False)
    query: str = field(repr=False)
    fragment: str = field(repr=False)
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)

    @classmethod
    def parse(cls, text: str, *, what: str, form: str) -> Url:
        """Take an address apart.

        Args:
            text: the address.
            what: what it is, as a message begins: ``source``.
            form: what is expected.

        Raises:
            InputError: it is malformed; the message repeats nothing of it but its scheme.
        """
        scheme = text.partition(":")[0].lower() if _START.match(text) else ""
        start = f"{what} {scheme}:" if scheme else f"{what}:"

        def refused(why: str) -> InputError:
            return InputError(f"{start} {why}; {form}")

        if text[:1] + text[-1:] in ("''", '""', "``"):
            raise refused("the address stands in quotes, which are part of it: take them away")
        if any(not sign.isprintable() for sign in text) or "\\" in text:
            raise refused("the address has a character that none has")
        authority = re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)
        if len(authority) == 2 and "@" in authority[1]:
            raise refused(f"it is not clear where the host begins: {HINT}")
        try:
            parts = urlsplit(text)
            port, host = parts.port, parts.hostname
            if "[" in parts.netloc:  # Python 3.10 takes anything between brackets
                ipaddress.IPv6Address((host or "").partition("%")[0])
            elif host and not _HOST.fullmatch(host):
                raise ValueError
        except ValueError:
            raise refused("the address is malformed (host or port)") from None
        if not host:
            raise refused("the address names no host")
        return cls(
            scheme=parts.scheme,
            host=host,
            port=port,
            path=parts.path,
            query=parts.query,
            fragment=parts.fragment,
            user=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
        )

    def shown(self, *, port: int | None = None) -> str:
        """Return it without user, password and query, fit for a log.

        What looks like a password in the path, as some cameras want it, is taken out too.

        Args:
            port: the scheme's own, which is left out.
        """
        place = f"[{self.host}]" if ":" in self.host else self.host
        where = "" if self.port in (None, port) else f":{self.port}"
        path = hidden(self.path)
        return f"{self.scheme}://{place}{where}{path}"


def is_loopback(host: str) -> bool:
    """Whether a host is this one, by a name or address that cannot be another's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def looks_like_address(text: str) -> bool:
    """Whether somebody may have meant an address: no file is to be looked for under that name."""
    return _ANYWHERE.search(text) is not None or (":" in text.partition("@")[0] and "@" in text)


def hidden(path: str) -> str:
    """Return a path without what looks like a password in it."""
    return _SECRET.sub(r"\1***", path)


def redacted(text: str) -> str:
    """Return what somebody gave in place of something else, fit for a message.

    Of what could be an address with a password nothing is left; of ``photo@2x.png`` what stands
    behind the ``@``.
    """
    _, at, behind = text.rpartition("@")
    if looks_like_address(text):
        text = "…"
    elif at:
        text = f"…@{behind}"
    return brief(hidden(re.split(r"[?#]", text)[0]))
