"""`tinysaver-edge bundle`: name, sign and vouch for a finished bundle."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tinysaver_edge.bundle.signing import make_key, sign_bundle
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import json_option
from tinysaver_edge.deciding.naming import name_classes

KEY_PASSWORD = "TINYSAVER_KEY_PASSWORD"
"""Environment variable with the password of private keys, for who signs without a terminal."""

_PATH = click.Path(path_type=Path)


@click.group()
def bundle() -> None:
    """Finish a bundle: name its classes, sign it for devices that trust only you."""


@bundle.command()
@click.argument("bundle", type=_PATH)
@click.argument("names", type=_PATH)
def labels(bundle: Path, names: Path) -> None:
    """Give the classes of a bundle names, from a file with one a line.

    Models, threshold, golden samples and certificate stay what they are; a signature does not.

    \b
        tinysaver-edge bundle labels bundle/ names.txt
    """
    found = name_classes(bundle, names)
    more = ", …" if len(found) > 5 else ""
    terminal.say(f"named {len(found)} classes in {bundle}: {', '.join(found[:5])}{more}")
    terminal.next_step(terminal.command_line("verify", bundle))


@bundle.command()
@click.argument("file", type=_PATH)
def key(file: Path) -> None:
    """Make a key pair to sign bundles with.

    FILE.pem keeps the private key, FILE.pub.pem is the public one, which goes to devices.
    TINYSAVER_KEY_PASSWORD, or what is typed, encrypts the private key; an empty one does not.

    \b
        tinysaver-edge bundle key release.pem
    """
    public, name = make_key(file, password=_password(file, new=True))
    terminal.say(f"key {name}: {file} signs, and stays here; {public} goes to the devices")
    terminal.next_step(terminal.command_line("bundle", "sign", "BUNDLE", "--key", file))


@bundle.command()
@click.argument("bundle", type=_PATH)
@click.option("--key", "keys", type=_PATH, multiple=True, required=True,
              help="Private key (PEM, ed25519); several while keys change.")  # fmt: skip
@click.option("--name", help="What devices know the bundle by. [default: the folder's name]")
@click.option("--version", type=click.IntRange(min=0),
              help="Rises with every bundle of the name. [default: the time]")  # fmt: skip
@json_option
def sign(
    bundle: Path, keys: tuple[Path, ...], name: str | None, version: int | None, as_json: bool
) -> None:
    """Sign a bundle's folder, so that devices can tell it from what others made of it.

    The signature covers bundle.json, which holds the hash of every other file.

    \b
        tinysaver-edge bundle sign bundle/ --key release.pem
        tinysaver-edge run bundle/ --source 0 --trusted keys/
    """
    signed = sign_bundle(
        bundle, keys, name=name or bundle.resolve().name, version=version, password=_password
    )
    terminal.say(f"signed {signed}")
    if as_json:
        terminal.show_json(
            {
                "name": signed.name,
                "version": signed.version,
                "signed_at": signed.signed_at,
                "manifest_sha256": signed.manifest_sha256,
                "keys": list(signed.keys),
            }
        )
    terminal.next_step(
        f"{terminal.command_line('verify', bundle, '--trusted', 'KEYS')} on a device that has the "
        "public key in the folder KEYS"
    )


def _password(path: Path, *, new: bool = False) -> str | None:
    """Return a key's password: from the environment, or typed; None for none."""
    if KEY_PASSWORD in os.environ:
        return os.environ[KEY_PASSWORD] or None
    if not os.isatty(0):
        return None
    asked: str = click.prompt(
        f"password of {path}", default="", hide_input=True, confirmation_prompt=new, err=True,
        show_default=False,
    )  # fmt: skip
    return asked or None
