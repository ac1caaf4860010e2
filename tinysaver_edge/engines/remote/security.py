"""Who the host is and who we are: TLS, and a token that only a file or the environment holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tinysaver_edge.errors import InputError

TRITON_PREFIX = "triton-grpc-protocol-"
"""What Triton puts before the name of a header that guards a protocol, over gRPC."""


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


DEFAULT_TLS = Tls()
"""The system's authorities, no certificate of our own, the URL's name."""


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
                token, where = self.file.read_text().strip(), f"token file {self.file}"
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "is no text"
                raise InputError(f"token file {self.file}: {reason}") from None
        else:
            assert self.env is not None
            token, where = os.environ.get(self.env, "").strip(), f"environment variable {self.env}"
        if not token:
            raise InputError(f"{where}: holds no token")
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise InputError(f"{where}: holds something else than one token")
        return token


def _pem(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if b"-----BEGIN" not in content:
        raise InputError(f"{path}: no PEM file (it should hold a line -----BEGIN …)")
    return content
