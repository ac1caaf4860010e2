"""What really stops a connection, where a client library tells too little of it."""

from __future__ import annotations

import socket
import ssl
import time
from types import MappingProxyType
from typing import Any

from tinysaver_edge._support.http_client import looked_up
from tinysaver_edge.engines.remote.facts import Kind, RequestError
from tinysaver_edge.engines.remote.model import Address, Tls

_HINTS = MappingProxyType(
    {
        "WRONG_VERSION_NUMBER": "it speaks no TLS on this port",
        "an http1.x server": "it speaks HTTP on this port; gRPC has another",
        "BadStatusLine": "it speaks no HTTP on this port; perhaps it is gRPC's",
    }
)
"""What a message of the libraries means, by a piece of it."""

_HUNG_UP = ("Socket closed", "Remote end closed connection")


def explained(
    failure: RequestError, address: Address, tls: Tls, *, timeout_s: float
) -> RequestError:
    """Return why a host could not be asked what it serves, in plainer words where there are any."""
    if failure.kind is not Kind.UNREACHABLE:
        return failure
    message = str(failure)
    for piece, meaning in _HINTS.items():
        if piece in message:
            return RequestError(failure.kind, f"{meaning} ({message})")
    if any(piece in message for piece in _HUNG_UP):
        wants = "a client certificate" if address.scheme.secure else f"{address.scheme.value}s://"
        return RequestError(failure.kind, f"hung up; perhaps it wants {wants} ({message})")
    why = refused_by_tls(address, tls, timeout_s=timeout_s)
    return failure if why is None else RequestError(failure.kind, f"UNAVAILABLE: {why}")


def refused_by_tls(address: Address, tls: Tls, *, timeout_s: float) -> str | None:
    """Look for the address of a host that is connected to, but whose TLS is not accepted.

    A name often has several addresses, as ``localhost`` has ::1 and 127.0.0.1. The libraries try
    them all and tell what stopped them at one: "connection refused" where nobody listens, say,
    and not "certificate has expired" where the host does.

    Returns:
        The address and what is wrong there; None where the name has but one address, the scheme
        no TLS, or nothing was found.
    """
    if not address.scheme.secure:
        return None
    due_s = time.monotonic() + timeout_s
    try:
        places = looked_up(address.host, address.port, due_s)
    except OSError:
        return None
    if len(places) < 2:
        return None
    for family, place in places:
        why = _refusal(family, place, address, tls, left_s=due_s - time.monotonic())
        if why is not None:
            return f"at {place[0]}: {why}"
    return None


def _refusal(
    family: int,
    place: Any,  # noqa: ANN401 - as the family of addresses has them
    address: Address,
    tls: Tls,
    *,
    left_s: float,
) -> str | None:
    """Shake hands at one address; return what is wrong with that, None where nothing is."""
    if left_s <= 0:
        return None
    try:
        context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13's; gRPC is not so strict
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
        if address.scheme.is_grpc:
            context.set_alpn_protocols(["h2"])
        with socket.socket(family, socket.SOCK_STREAM) as plain:
            plain.settimeout(left_s)
            plain.connect(place)
            name = tls.server_name or address.host
            with context.wrap_socket(plain, server_hostname=name):
                return None
    except ssl.SSLError as error:
        return str(getattr(error, "verify_message", "") or error.reason or error)
    except (OSError, ValueError):  # nobody listens there, or hangs up
        return None
