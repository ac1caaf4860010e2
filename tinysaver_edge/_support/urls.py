"""Network addresses: one way to take them apart, one to show them, one to listen on them.

User and password are nobody's business but the other end's: no message, name or look-up of ours
holds a part of them. Where it is not beyond doubt which part of an address is the host, as with a
``/`` in a password, the address is refused.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from tinysaver_edge._support.limits import QUEUED
from tinysaver_edge._support.text import brief, hidden
from tinysaver_edge.errors import InputError

HINT = "in a user or password / ? # @ are written %2F %3F %23 %40, and so is an @ behind the host"

SCHEMES = ("rtsp", "rtsps", "http", "https", "mqtt", "mqtts", "grpc", "grpcs", "oci")
"""What our addresses begin with."""

_SCHEMES = "|".join((*SCHEMES, "rtmp", "rtmps", "rtp", "udp", "tcp", "srt", "ws", "wss", "ftp"))
_START = re.compile(rf"(?i)({_SCHEMES})://")
_ANYWHERE = re.compile(rf"(?i)(?:{_SCHEMES}):?//?")
_HOST = re.compile(r"[\w.-]+")
_PRIVATE = (".local", ".localdomain", ".internal", ".lan", ".home.arpa", ".svc")
"""Ends of names that nobody can own in the public DNS."""


@dataclass(frozen=True, slots=True)
class Url:
    """A network address, taken apart. Its text holds no credentials.

    Attributes:
        scheme: in small letters.
        host: name or address, an IPv6 one without its brackets.
        port: 1 to 65535, or None where none is named.
        path: as it was written.
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
            else:
                (host or "").encode("idna")  # no part of a name is empty, or longer than 63 letters
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


SHORTEST_TOKEN = 8
"""Characters of a token that a page or the metrics are asked with: shorter ones are guessed."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A host and a port to listen on.

    Attributes:
        host: a name or an address of this machine.
        port: TCP port; 0 takes any that is free.
        option: the command's option that named it, for messages.
    """

    host: str
    port: int
    option: str

    @classmethod
    def parse(cls, text: str, *, option: str) -> ListenAddress:
        """Read ``HOST:PORT`` or ``[IPV6]:PORT``.

        Raises:
            InputError: it is of another form.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        fits = colon and host and (bracketed or ":" not in host) and port.isascii()
        if not fits or not port.isdigit() or len(port) > 5 or int(port) > 65535:
            raise InputError(f"{option} {redacted(text)}: give HOST:PORT, such as 127.0.0.1:8080")
        return cls(host, int(port), option)

    def check_token(self, token: str | None) -> None:
        """Refuse a token that would protect nothing, or that nobody could send.

        Raises:
            InputError: it is too short, or holds what no request may.
        """
        if token is not None and len(token) < SHORTEST_TOKEN:
            raise InputError(
                f"{self}: the token is too short: at least {SHORTEST_TOKEN} characters"
            )
        if token is not None and not token.isprintable():
            raise InputError(f"{self}: the token holds a character that cannot be sent")

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach it."""
        return is_loopback(self.host)

    def bind(self) -> socket.socket:
        """Return a listening socket.

        Raises:
            InputError: the port is taken, not allowed, or the host is not this machine's.
        """
        try:
            family = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][0]
            listening = socket.socket(family, socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # the latter: a part is empty, or too long
            why = getattr(error, "strerror", None) or "no name is like this"
            raise InputError(f"{self}: {self.host} cannot be found ({why})") from error
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self.host, self.port))
            listening.listen(QUEUED)
        except OSError as error:
            listening.close()
            raise InputError(f"{self}: {_reason(error)}") from error
        return listening

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.option} {host}:{self.port}"


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is taken by another program; name another"
    if error.errno == errno.EACCES:
        return "this user may not listen on that port; name one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return f"cannot listen there ({error.strerror})"


def url_of(listening: socket.socket) -> str:
    """Return the address that a socket listens on, as a browser takes it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_own_name(host: str, bound: str) -> bool:
    """Whether a Host header can be this machine's.

    A page of another site can have its own name point here and read what is answered without a
    token. Addresses, names without a dot and names of private networks cannot be such a site's.

    Args:
        host: the header; who sends none is no browser.
        bound: what the server was told to listen on.
    """
    name = (host if host.endswith("]") else host.rpartition(":")[0] or host).strip("[]").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        own = {bound.lower(), socket.gethostname().lower()}
        return "." not in name or name in own or name.endswith(_PRIVATE)
    return True
