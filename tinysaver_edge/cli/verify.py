"""`tinysaver-edge verify`: does a bundle behave here as it did where it was calibrated?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tinysaver_edge._support.text import for_people
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.large_options import host_options, large_from
from tinysaver_edge.cli.options import GroupedCommand, LocalPath, json_option, trusted_option
from tinysaver_edge.errors import VerificationError
from tinysaver_edge.verify.check import LATENCY, Check
from tinysaver_edge.verify.run import verify as run_verify


@click.command(cls=GroupedCommand)
@click.argument("bundle", type=LocalPath())
@host_options
@trusted_option
@json_option
def verify(
    bundle: Path,
    trusted: Path | None,
    as_json: bool,
    **large_settings: Any,  # noqa: ANN401 - what `host_options` adds
) -> None:
    """Check that a bundle behaves here as it did where it was calibrated.

    Compares every file's hash, the engines and their precision, and what the image decoder makes of
    a JPEG; then runs the golden samples and compares resized pixels, probabilities and decisions;
    then times it against the limits of time that it was calibrated for. Exits with 2 when something
    differs, with 3 when it is only too slow.

    With --trusted it must be signed by one of those keys.

    With --large the golden samples go to the large model's hosts: what a device will be answered.

    \b
        tinysaver-edge verify bundle/
        tinysaver-edge verify bundle/ --large grpcs://host:8001/large --large-ca ca.pem
    """
    large = large_from(**large_settings)
    if large is not None:
        terminal.warn(large.warnings)
    with Bundle.load(bundle, trusted=trusted) as opened:
        result = run_verify(opened, large=large)
        signed = opened.signed
    terminal.show_table(
        f"{bundle}",
        ("check", "result", "detail"),
        [(check.name, _mark(check), check.detail) for check in result.checks],
    )
    terminal.say(
        "its signature was not looked at: --trusted KEYS does so"
        if signed is None
        else f"signed: {signed}"
    )
    terminal.warn(f"{one.name}: {one.detail}" for one in result.checks if one.warning)
    try:
        result.raise_if_failed()
    except VerificationError as error:
        if as_json:
            failed = {"error": for_people(str(error)), "exit_code": error.exit_code}
            terminal.show_json({**result.to_dict(), **failed})
        raise
    if as_json:
        terminal.show_json(result.to_dict())
    terminal.next_step(
        f"{terminal.command_line('run', bundle, '--source', '0')}"
        f"{'' if large is None else ', with the same --large'}; what it takes here tells "
        f"{terminal.command_line('bench', bundle)}",
    )


def _mark(check: Check) -> str:
    if check.warning:
        return "WARNING"
    if check.passed is False:
        return "TOO SLOW" if check.name == LATENCY else "DIFFERS"
    return "-" if check.passed is None else "ok"
