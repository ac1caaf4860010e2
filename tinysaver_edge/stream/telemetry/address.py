"""Where a server listens: read from HOST:PORT, bound with one clear line when that fails."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from tinysaver_edge._support.limits import QUEUED
from tinysaver_edge._support.urls import is_loopback, redacted
from tinysaver_edge.errors import InputError


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
        if not fits or not port.isdigit() or int(port) > 65535:
            raise InputError(f"{option} {redacted(text)}: give HOST:PORT, such as 127.0.0.1:8080")
        return cls(host, int(port), option)

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
        except OSError as error:
            raise InputError(f"{self}: {self.host} cannot be found ({error.strerror})") from error
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
