"""RemoteModel: which hosts serve a model, and how they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinysaver_edge.engines.remote.address import Address
from tinysaver_edge.engines.remote.security import DEFAULT_TLS, Tls, Token
from tinysaver_edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model that other hosts serve, and how they are asked.

    Attributes:
        addresses: where it is served; the same model everywhere.
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
        InputError: a figure is out of range, a host is named twice, plain text would leave this
            machine, or TLS is set up and no host is asked over it.
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
