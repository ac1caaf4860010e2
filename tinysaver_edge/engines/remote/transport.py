"""The two protocols behind one face: what a host serves, and one request."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from tinysaver_edge.engines.remote.address import Address
from tinysaver_edge.engines.remote.facts import Contract, ModelFacts, Reply
from tinysaver_edge.engines.remote.model import RemoteModel


class Transport(Protocol):
    """Talks to one host. Any number of threads may use it; every call ends within its time."""

    def describe(self, *, timeout_s: float) -> ModelFacts:
        """Ask whether the host is live and its model ready, and what it takes and gives.

        Raises:
            RequestError: it is not, or does not say in time.
        """

    def infer(
        self, tensor: NDArray[Any], contract: Contract, *, datatype: str, timeout_s: float
    ) -> Reply:
        """Have one batch answered.

        Raises:
            RequestError: there is no answer in time, or it cannot be read.
        """

    def close(self) -> None:
        """Let go of the connection. Legal in every state."""


def open_transport(address: Address, model: RemoteModel) -> Transport:
    """Return what talks to an address; nothing is sent yet.

    Raises:
        MissingDependencyError: the client library is not installed.
        InputError: a certificate cannot be read.
    """
    if address.scheme.is_grpc:
        from tinysaver_edge.engines.remote.grpc import GrpcTransport

        return GrpcTransport(address, model)
    from tinysaver_edge.engines.remote.http import HttpTransport

    return HttpTransport(address, model)
