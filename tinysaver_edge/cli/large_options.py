"""Options of commands that can have the large model answered by other hosts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from tinysaver_edge.cli.options import Command, LocalPath, Number, options_of
from tinysaver_edge.engines.remote import RemoteModel, Tls, Token
from tinysaver_edge.engines.remote.model import Address
from tinysaver_edge.errors import InputError

_FILE = LocalPath()

_option = options_of("The large model's hosts")

_HOSTS = (
    _option(
        "--large",
        "large_urls",
        multiple=True,
        metavar="URL",
        help="Where the large model is served: grpc://HOST:PORT/MODEL[/VERSION], grpcs://, http:// "
        "or https://. Given more than once: several hosts of the same model.",
    ),
    _option(
        "--large-timeout-ms",
        type=Number(min=0, min_open=True),
        help="How long the hosts may take to answer a frame. [default: the deadline, or 1000]",
    ),
)

_STREAMS = (
    _option(
        "--large-optional",
        is_flag=True,
        help="Start although no host can be reached; they are tried until one is.",
    ),
    _option(
        "--large-jpeg",
        type=click.IntRange(1, 100),
        metavar="QUALITY",
        help="Send JPEG of this quality. Where the bundle was calibrated on another, or on pixels, "
        "the certificate does not cover the answers. [default: as the bundle was calibrated]",
    ),
)

_SECURITY = (
    _option("--large-ca", type=_FILE, help="PEM file of the authorities that vouch for the hosts."),
    _option("--large-cert", type=_FILE, help="PEM file of our own certificate."),
    _option("--large-key", type=_FILE, help="PEM file of its private key."),
    _option("--large-server-name", metavar="NAME", help="Name in the hosts' certificate."),
    _option("--large-token-file", type=_FILE, help="File that holds a bearer token."),
    _option(
        "--large-token-env", metavar="NAME", help="Environment variable that holds a bearer token."
    ),
    _option("--insecure", is_flag=True, help="Allow plain text to other hosts than this one."),
    _option(
        "--vouch-for-large",
        "vouched",
        is_flag=True,
        help="The hosts serve the model that was calibrated, where they do not tell its hash.",
    ),
)


def large_options(command: Command) -> Command:
    """Add the options to a command, which hands them to `large_from`."""
    return _with((*_HOSTS, *_STREAMS, *_SECURITY), command)


def host_options(command: Command) -> Command:
    """Add those that say which hosts there are and how they are reached, and no more."""
    return _with((*_HOSTS, *_SECURITY), command)


def _with(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def large_from(
    *,
    large_urls: Sequence[str],
    large_timeout_ms: float | None,
    large_ca: Path | None,
    large_cert: Path | None,
    large_key: Path | None,
    large_server_name: str | None,
    large_token_file: Path | None,
    large_token_env: str | None,
    insecure: bool,
    vouched: bool,
    large_optional: bool = False,
    large_jpeg: int | None = None,
    max_in_flight: int = 4,
    deadline_ms: float | None = None,
) -> RemoteModel | None:
    """Return the remote model that the options name; None where they name none.

    Raises:
        InputError: an option makes no sense, alone or beside the others.
    """
    others = {
        "--large-timeout-ms": large_timeout_ms,
        "--large-optional": large_optional,
        "--large-jpeg": large_jpeg,
        "--large-ca": large_ca,
        "--large-cert": large_cert,
        "--large-key": large_key,
        "--large-server-name": large_server_name,
        "--large-token-file": large_token_file,
        "--large-token-env": large_token_env,
        "--insecure": insecure,
        "--vouch-for-large": vouched,
    }
    if not large_urls:
        for name, value in others.items():
            if value:
                raise InputError(f"{name} is about hosts of the large model: name one with --large")
        return None
    token = None
    if large_token_file is not None or large_token_env is not None:
        token = Token(file=large_token_file, env=large_token_env)
    timeout_ms = large_timeout_ms or deadline_ms or 1000.0
    return RemoteModel(
        tuple(Address.parse(url) for url in large_urls),
        timeout_s=timeout_ms / 1e3,
        max_in_flight=max_in_flight,
        jpeg_quality=large_jpeg,
        tls=Tls(large_ca, large_cert, large_key, large_server_name),
        token=token,
        insecure=insecure,
        optional=large_optional,
        vouched=vouched,
    )
