"""What can go wrong with one request, and what follows from it."""

from __future__ import annotations

from enum import Enum

from tinysaver_edge._support.text import brief


class Kind(str, Enum):
    """Why a host gave no answer.

    Attributes:
        UNREACHABLE: refused, killed, cut off, or the handshake failed.
        BUSY: the host has more requests than it takes.
        DRAINING: a model that was ready is not there at the moment.
        TIMEOUT: no answer in time.
        DENIED: the token or the client certificate is not accepted.
        REJECTED: the host could not make anything of the request, or failed at it.
        WRONG: the host serves another model, or its answer is none.
        CLOSED: we have closed the connection.
    """

    UNREACHABLE = "unreachable"
    BUSY = "busy"
    DRAINING = "draining"
    TIMEOUT = "timeout"
    DENIED = "denied"
    REJECTED = "rejected"
    WRONG = "wrong"
    CLOSED = "closed"

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed if it is made again at once."""
        return self in (Kind.UNREACHABLE, Kind.BUSY, Kind.DRAINING)

    @property
    def lasting(self) -> bool:
        """Whether the host is of no use until something there is changed."""
        return self in (Kind.DENIED, Kind.WRONG)


class RequestError(Exception):
    """A host gave no answer; stays inside the engine, which tells it as an `EngineError`.

    Hosts are strangers: what they say is made printable and short here, once for all.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(brief(message))
        self.kind = kind
