"""`tinysaver-edge bundle`: name, sign and ship a finished bundle."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import click

from tinysaver_edge.bundle.shipping import parted, pull_bundle, push_bundle
from tinysaver_edge.bundle.signature import Trust
from tinysaver_edge.bundle.signing import make_key, sign_bundle
from tinysaver_edge.bundle.target import open_target
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import LocalPath, json_option, trusted_option
from tinysaver_edge.deciding.naming import name_classes
from tinysaver_edge.errors import InputError

KEY_PASSWORD = "TINYSAVER_KEY_PASSWORD"
"""Environment variable with the password of private keys, for who signs without a terminal."""

_PATH = LocalPath()


@click.group()
def bundle() -> None:
    """Finish a bundle: name its classes, sign it for devices that trust only you, ship it."""


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


@bundle.command()
@click.argument("bundle", type=_PATH)
@click.argument("target", metavar="TARGET[:TAG]")
@json_option
def push(bundle: Path, target: str, as_json: bool) -> None:
    """Push a bundle to where devices pull it from: a folder, a web server, an OCI registry.

    A signed bundle is found by its version from then on, and by TAG if there is one: stable,
    canary, any word. Files that are there already are not sent again.

    \b
        tinysaver-edge bundle push bundle/ /srv/www/belt:canary
        tinysaver-edge bundle push bundle/ https://files.example/belt:canary
        tinysaver-edge bundle push bundle/ oci://registry.example/belt:stable

    TINYSAVER_TARGET_LOGIN holds USER:PASSWORD where the target wants them.
    """
    place, tag = parted(target)
    with closing(open_target(place)) as opened:
        pushed = push_bundle(bundle, opened, tag)
        shown = opened.shown
    terminal.say(
        f"pushed {bundle} to {shown} as {', '.join(pushed.tags)}: "
        f"{pushed.sent_bytes / 1e6:.2f} MB sent, {pushed.there_bytes / 1e6:.2f} MB were there"
    )
    if pushed.newer is not None:
        terminal.warn(
            [
                f"{pushed.tags[-1]} stood for version {pushed.newer} until now, which is newer: "
                f"devices that have it refuse {pushed.tags[0]}. To go back to what it holds, sign "
                "it again, as a new version (was the clock set back where it was signed?)"
            ]
        )
    if as_json:
        terminal.show_json(
            {
                "target": shown,
                "tags": list(pushed.tags),
                "digest": pushed.digest,
                "sent_bytes": pushed.sent_bytes,
                "there_bytes": pushed.there_bytes,
            }
        )
    fetch = terminal.command_line("bundle", "pull", f"{shown}:{pushed.tags[-1]}", "bundle/")
    terminal.next_step(f"{fetch} --trusted KEYS on a device, or run --follow")


@bundle.command()
@click.argument("target", metavar="TARGET:TAG")
@click.argument("folder", type=_PATH)
@trusted_option
@click.option("--name", help="Take a bundle that was signed by this name only. [default: the "
              "name of the one that is there]")  # fmt: skip
@click.option("--allow-older", is_flag=True, help="Go back to an older version by hand.")
@json_option
def pull(
    target: str,
    folder: Path,
    trusted: Path | None,
    name: str | None,
    allow_older: bool,
    as_json: bool,
) -> None:
    """Pull a bundle into a folder; what is there stays until the new one is whole and checked.

    With --trusted it must be signed, by the name and no older a version than the bundle that is
    there. A transfer that breaks off goes on from where it ended when it is started again.

    \b
        tinysaver-edge bundle pull https://files.example/belt:stable bundle/ --trusted keys/
    """
    place, tag = parted(target)
    if tag is None:
        raise InputError(f"target {place}: name a tag, as in TARGET:stable")
    trust = Trust.of(trusted)
    if trust is None and (name is not None or allow_older):
        raise InputError("--name and --allow-older are about signed bundles: say --trusted KEYS")
    if trust is not None and name is not None:
        trust = replace(trust, name=name)
    with closing(open_target(place)) as opened:
        pulled = pull_bundle(opened, tag, folder, trust=trust, allow_older=allow_older)
    signed = "its signature was not looked at" if pulled.signed is None else f"{pulled.signed}"
    what = (
        f"{pulled.fetched_bytes / 1e6:.2f} MB fetched, {pulled.kept_bytes / 1e6:.2f} MB were here"
        if pulled.changed
        else "nothing has changed"
    )
    terminal.say(f"{folder}: {what}; {signed}")
    if as_json:
        terminal.show_json(
            {
                "bundle": str(folder),
                "digest": pulled.digest,
                "changed": pulled.changed,
                "fetched_bytes": pulled.fetched_bytes,
                "kept_bytes": pulled.kept_bytes,
                "version": None if pulled.signed is None else pulled.signed.version,
            }
        )
    terminal.next_step(terminal.command_line("verify", folder))


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
