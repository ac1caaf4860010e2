"""Sign a bundle, and make the keys for it: done where bundles are made, never on a device."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from tinysaver_edge._support.files import atomic_write, sha256_of
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.bundle.signature import (
    SIGNATURE,
    Signed,
    cryptography,
    key_name,
    read_key_file,
    signature_file,
)
from tinysaver_edge.bundle.unpack import MANIFEST
from tinysaver_edge.errors import BundleError, InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Password = Callable[[Path], "str | None"]
"""Gives the password of a key file, None where it has none."""


def sign_bundle(
    folder: Path,
    keys: Sequence[Path],
    *,
    name: str,
    version: int | None = None,
    at: datetime | None = None,
    password: Password = lambda path: None,
) -> Signed:
    """Sign a bundle's folder, in place of any signature that it had.

    Args:
        folder: the bundle; every file of it is checked first.
        keys: private keys in PEM form; each of them signs, so that devices that know the old one
            or the new one take it.
        name: what the bundle is called on devices.
        version: rises with every bundle of that name; by default the time, as 20261128053000.
        at: when it is signed, with a time zone; by default now.
        password: asked for the password of each key.

    Raises:
        BundleError: it is no folder, damaged, or cannot be written to.
        InputError: a key cannot be read, or name and version make no sense.
        MissingDependencyError: the package that signs is not installed.
    """
    if not folder.is_dir():
        why = "only a folder can be signed; pack it afterwards"
        raise BundleError(f"bundle {folder}: {why if folder.exists() else 'is not there'}")
    private = [_private_key(path, password) for path in keys]
    now = (at or datetime.now(timezone.utc)).astimezone(timezone.utc)
    if version is None:
        version = int(now.strftime("%Y%m%d%H%M%S"))
    if not private or not name.strip() or len(name) > 200 or not name.isprintable() or version < 0:
        raise InputError(
            f"cannot sign with {len(private)} keys as {name!r}, version {version}: give a key, a "
            "name of up to 200 letters, and a version from 0"
        )
    Bundle.load_untrusted(folder).close()  # nobody vouches for what is damaged
    signed = Signed(
        manifest_sha256=sha256_of(folder / MANIFEST),
        name=name,
        version=version,
        signed_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        keys=tuple(key_name(key.public_key()) for key in private),
    )
    text = signed.statement.encode()
    values = [key.sign(text) for key in private]
    content = signature_file(signed.statement, dict(zip(signed.keys, values, strict=True)))
    try:
        with atomic_write(folder / SIGNATURE) as file:
            file.write(content)
    except OSError as error:
        raise BundleError(f"bundle {folder}: cannot be signed ({error.strerror})") from error
    return signed


def make_key(path: Path, *, password: str | None = None) -> tuple[Path, str]:
    """Make a key pair: a private key, and beside it the public one for the devices.

    Args:
        path: the private key's file, ending in ``.pem``; readable for its owner alone.
        password: encrypts it; None leaves it in the clear.

    Returns:
        The public key's file, ``NAME.pub.pem``, and the key's short name.

    Raises:
        InputError: one of the files is there already, or cannot be written.
        MissingDependencyError: the package that makes keys is not installed.
    """
    serialization, ed25519 = cryptography()
    public_path = path.with_name(f"{path.name.removesuffix('.pem')}.pub.pem")
    key = ed25519.Ed25519PrivateKey.generate()
    encryption = (
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption()
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption)
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    made: list[Path] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for target, content, mode in ((path, private, 0o600), (public_path, public, 0o644)):
            # A key that is there may have signed what is in the field: it is never replaced.
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            made.append(target)
            with os.fdopen(handle, "wb") as out:
                out.write(content)
    except FileExistsError as error:
        _unmake(made)
        raise InputError(f"key {error.filename}: is there already; name another") from error
    except (OSError, ValueError) as error:
        _unmake(made)
        why = getattr(error, "strerror", None) or error
        raise InputError(f"key {path}: cannot be written ({why})") from error
    return public_path, key_name(key.public_key())


def _unmake(made: list[Path]) -> None:
    """Take half a pair away: it would keep the next try from being made under its name."""
    for half in made:
        half.unlink(missing_ok=True)


def _private_key(path: Path, password: Password) -> Ed25519PrivateKey:
    serialization, ed25519 = cryptography()
    try:
        pem = read_key_file(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"key {path}: cannot be read ({why})") from error
    if b"PUBLIC KEY" in pem:
        raise InputError(f"key {path}: is the public key; the private one signs")
    asked = password(path) if b"ENCRYPTED" in pem else None
    try:
        key: Ed25519PrivateKey = serialization.load_pem_private_key(
            pem, asked.encode() if asked else None
        )
    except TypeError as error:  # a password is missing
        raise InputError(f"key {path}: has a password, and none was given") from error
    except Exception as error:
        why = "its password is another" if asked else "is no private key in PEM form"
        raise InputError(f"key {path}: {why}") from error
    fits = isinstance(key, ed25519.Ed25519PrivateKey)
    if not fits:
        raise InputError(f"key {path}: is no ed25519 key: make one with tinysaver-edge bundle key")
    return key
