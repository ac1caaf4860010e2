"""The signature of a bundle: who vouches for it, and whether a device trusts them.

`bundle.sig.json` lies beside `bundle.json` and holds one statement, which says the manifest's hash,
the bundle's name and a version that only rises, with an ed25519 signature for each key. The
manifest holds every other file's hash, so the statement covers all. Keys are PEM files, as openssl
and every key store make them; a statement of our own, rather than minisign's, because a device must
also be able to tell an old bundle that somebody sends again, and another product's, from its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.files import parse_json, read_file
from tinysaver_edge._support.packages import needs
from tinysaver_edge._support.text import for_people
from tinysaver_edge.errors import BundleError, InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = "bundle.sig.json"
"""Beside `bundle.json`, and in no manifest."""

TRUSTED_KEYS = "TINYSAVER_TRUSTED_KEYS"
"""Environment variable of a device that loads signed bundles only: a folder of public keys."""

MOST_SIGNATURE_BYTES = _MOST_BYTES = 1 << 16
"""Of a signature file; and of a key's."""

FORMAT = "tinysaver-edge bundle signature 1"
_MOST_SIGNATURES = 16


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signature a bundle needs.

    Attributes:
        keys: a folder of public keys (``*.pem``), or one such file.
        name: the name that the bundle must be signed for; None takes any.
        least_version: the lowest version that is not an older one sent again; None takes any.
    """

    keys: Path
    name: str | None = None
    least_version: int | None = None

    @classmethod
    def of(cls, trusted: str | Path | Trust | None) -> Trust | None:
        """Return what a caller asks for; where he does not, what this device is set to."""
        if isinstance(trusted, Trust):
            return trusted
        keys = os.environ.get(TRUSTED_KEYS) if trusted is None else trusted
        return cls(Path(keys)) if keys else None


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed, and by whom.

    Attributes:
        name: what the bundle is called.
        version: rises with every bundle of that name.
        signed_at: UTC, ISO 8601.
        keys: short names of the trusted keys whose signatures hold, see `key_name`.
    """

    manifest_sha256: str
    name: str
    version: int
    signed_at: str
    keys: tuple[str, ...]

    def __str__(self) -> str:
        by = ", ".join(self.keys)
        return f"{for_people(self.name)}, version {self.version}, signed {self.signed_at} by {by}"

    @property
    def statement(self) -> str:
        """What the keys sign, of the keys themselves nothing."""
        said = {
            "manifest_sha256": self.manifest_sha256,
            "name": self.name,
            "version": self.version,
            "signed_at": self.signed_at,
            "format": FORMAT,
        }
        return json.dumps(said, sort_keys=True)


def check_signature(
    manifest: bytes, signature: bytes | None, trust: Trust, *, shown: Path | str
) -> Signed:
    """Hold a bundle's signature against the keys that are trusted.

    Args:
        manifest: the bytes of `bundle.json`.
        signature: those of `bundle.sig.json`, or None where there is none.
        trust: whose signature is needed.
        shown: the bundle, for messages.

    Raises:
        BundleError: saying whether it is unsigned, signed by others, altered, for another name, or
            an older one.
        InputError: the trusted keys cannot be read.
        MissingDependencyError: the package that checks signatures is not installed.
    """
    trusted = trusted_keys(trust.keys)
    from cryptography.exceptions import InvalidSignature

    if signature is None:
        raise BundleError(
            f"bundle {shown}: is not signed, and only bundles signed by a key in {trust.keys} are "
            "trusted here: sign it with tinysaver-edge bundle sign"
        )
    text, signatures = _parsed(signature, shown)
    holding = []
    for name, value in signatures.items():
        if (key := trusted.get(name)) is None:
            continue
        try:
            key.verify(value, text.encode())
        except InvalidSignature as error:
            raise BundleError(
                f"bundle {shown}: its signature by {name} is forged or damaged: fetch it again "
                "from where it was signed"
            ) from error
        holding.append(name)
    if not holding:
        raise BundleError(
            f"bundle {shown}: is signed by {for_people(', '.join(signatures))}, and none of these "
            f"keys is in {trust.keys}"
        )
    statement = _statement(text, shown)
    if statement["manifest_sha256"] != hashlib.sha256(manifest).hexdigest():
        raise BundleError(
            f"bundle {shown}: its bundle.json is not the one that was signed: it was changed "
            "after, or the signature is another bundle's"
        )
    if trust.name is not None and statement["name"] != trust.name:
        raise BundleError(
            f"bundle {shown}: was signed as {statement['name']!r}, and {trust.name!r} is wanted"
        )
    if trust.least_version is not None and statement["version"] < trust.least_version:
        raise BundleError(
            f"bundle {shown}: is version {statement['version']}, older than version "
            f"{trust.least_version}, which was here before"
        )
    return Signed(**statement, keys=tuple(holding))


def claimed(signature: bytes | None, *, shown: Path | str) -> tuple[str, int] | None:
    """Return the name and version that a signature claims, whoever made it; None where it is none.

    For what a device has kept itself, and for labels: nobody is to be believed for it.
    """
    try:
        statement = _statement(_parsed(signature or b"", shown)[0], shown)
    except BundleError:
        return None
    return statement["name"], statement["version"]


def signature_file(statement: str, signatures: Mapping[str, bytes]) -> bytes:
    """Return the content of `bundle.sig.json`."""
    encoded = {key: base64.b64encode(value).decode() for key, value in signatures.items()}
    content = {"statement": statement, "signatures": encoded}
    return json.dumps(content, indent=2).encode() + b"\n"


def key_name(key: Ed25519PublicKey) -> str:
    """Return a public key's short name: the first 16 digits of the hash of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def trusted_keys(place: Path) -> dict[str, Ed25519PublicKey]:
    """Read public keys by their short names.

    Args:
        place: a folder of ``*.pem`` files, or one file.

    Raises:
        InputError: there are none, or one is no public ed25519 key.
        MissingDependencyError: the package that reads keys is not installed.
    """
    try:
        files = sorted(place.glob("*.pem")) if place.is_dir() else [place]
        content = {path: read_key_file(path) for path in files}
    except OSError as error:
        raise InputError(f"trusted keys {place}: {error.strerror}") from error
    if not content:
        raise InputError(f"trusted keys {place}: holds no *.pem, so no bundle could be trusted")
    keys = [_public_key(path, pem) for path, pem in content.items()]
    return {key_name(key): key for key in keys}


def read_key_file(path: Path) -> bytes:
    """Return the content of a key file, as far as any key is long.

    Raises:
        OSError: it cannot be read.
    """
    return read_file(path)[:_MOST_BYTES]


def _public_key(path: Path, pem: bytes) -> Ed25519PublicKey:
    serialization, ed25519 = cryptography()
    if b"PRIVATE KEY" in pem:
        raise InputError(
            f"trusted keys: {path} holds a private key, which signs and belongs on no device: put "
            "the public one there"
        )
    try:
        key: Ed25519PublicKey = serialization.load_pem_public_key(pem)
    except Exception as error:
        raise InputError(f"trusted keys: {path} is no public key in PEM form") from error
    fits = isinstance(key, ed25519.Ed25519PublicKey)
    if not fits:
        raise InputError(f"trusted keys: {path} is no ed25519 key")
    return key


def cryptography() -> tuple[Any, Any]:
    """Return the modules that read keys and that sign.

    Raises:
        MissingDependencyError: they are not installed.
    """
    with needs("cryptography", extra="signed", purpose="a signed bundle"):
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    return serialization, ed25519


def _parsed(content: bytes, shown: Path | str) -> tuple[str, dict[str, bytes]]:
    """Return the statement and each key's signature; nothing is believed yet."""
    try:
        if len(content) > MOST_SIGNATURE_BYTES:
            raise ValueError(f"of {len(content)} bytes")
        values = parse_json(content)
        text, encoded = values["statement"], values["signatures"]
        if not (isinstance(text, str) and 0 < len(encoded) <= _MOST_SIGNATURES):
            raise ValueError("no signature, or too many")
        named = {
            str(name): base64.b64decode(value, validate=True) for name, value in encoded.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(
            f"bundle {shown}: {SIGNATURE} is damaged: fetch the bundle again"
        ) from error
    return text, named


def _statement(text: str, shown: Path | str) -> dict[str, Any]:
    """Read a statement whose signature holds."""
    try:
        values = parse_json(text)
        if values.pop("format") != FORMAT:
            raise ValueError("another format")
        name, version = values["name"], values["version"]
        if not isinstance(name, str) or type(version) is not int:
            raise ValueError("no name and version")
        known = {key: values[key] for key in ("manifest_sha256", "name", "version", "signed_at")}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(
            f"bundle {shown}: what was signed cannot be read here: it takes a newer release"
        ) from error
    return known
