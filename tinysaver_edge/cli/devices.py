"""`tinysaver-edge devices`: what kinds of devices are known, and what the one at hand is."""

from __future__ import annotations

import platform
from pathlib import Path

import click

from tinysaver_edge._support.files import check_file_target, write_text
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import LocalPath, json_option
from tinysaver_edge.errors import InputError, RecipeError, from_here
from tinysaver_edge.hardware.probe import check_device_name, draft_profile
from tinysaver_edge.hardware.probe import probe as look
from tinysaver_edge.hardware.profile import (
    DeviceProfile,
    load_profile,
    profile_files,
    read_profile,
    user_devices_dir,
)

_folder_option = click.option(
    "--devices-dir",
    "folders",
    multiple=True,
    type=LocalPath(exists=True, file_okay=False),
    help="A folder of your own profiles, looked through first.",
)


@click.group()
def devices() -> None:
    """List and describe devices; probe the one at hand."""


@devices.command("list")
@_folder_option
@json_option
def list_(folders: tuple[Path, ...], as_json: bool) -> None:
    """List the device profiles that are known."""
    profiles = _readable(folders)
    terminal.show_table(
        "devices",
        ("name", "engines", "memory", "power", "verified", "detail"),
        [_row(one) for one in profiles],
    )
    terminal.next_step("tinysaver-edge devices show NAME; devices probe says which one this is")
    if as_json:
        terminal.show_json({"devices": [one.to_dict() for one in profiles]})


@devices.command()
@click.argument("name")
@_folder_option
@json_option
def show(name: str, folders: tuple[Path, ...], as_json: bool) -> None:
    """Describe one device: engines, limits, set-up, sources. NAME may be a .toml file."""
    profile = load_profile(name, folders=folders)
    terminal.tell(f"{profile.name}: {profile.description}\n{profile.path}\n")
    terminal.show_table("", ("", "detail"), _details(profile))
    terminal.next_step(
        f"calibrate … --device {name} keeps its limits; on the device, once it is set up, "
        "tinysaver-edge doctor"
    )
    if as_json:
        terminal.show_json(profile.to_dict())


_GENERAL = {"x86_64": "generic-x86", "aarch64": "generic-arm64"}


@devices.command()
@_folder_option
@json_option
def probe(folders: tuple[Path, ...], as_json: bool) -> None:
    """Look at this device: what it has, and why it lacks the rest."""
    found = look()
    names = (found.board, None if found.cpu is None else found.cpu.model)
    fitting = [one.name for one in _readable(folders) if one.fits(*names)]
    general = None if fitting else _GENERAL.get(platform.machine())
    for section in found.sections:
        rows = [
            (one.name, one.value if one.value is not None else f"not there: {one.reason}")
            for one in section.findings
        ]
        terminal.show_table(section.title, ("", "detail"), rows)
        terminal.tell("")
    if fitting or general is None:
        terminal.tell(f"profile: {', '.join(fitting) or 'none fits; devices new writes one'}")
    else:
        terminal.tell(
            f"profile: none of this very device, {general} in general; devices new writes one"
        )
    known = [*fitting, *([general] if general else [])]
    terminal.next_step(
        terminal.command_line("devices", "show", known[0])
        if known
        else "tinysaver-edge devices new NAME, then fill in what only you know"
    )
    if as_json:
        profiles = fitting or ([general] if general else [])
        terminal.show_json({**found.to_dict(), "profiles": profiles})


@devices.command()
@click.argument("name")
@click.option(
    "--out",
    type=LocalPath(dir_okay=False),
    help="File to write; by default among your own profiles, where --device finds it by name.",
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def new(name: str, out: Path | None, force: bool) -> None:
    """Write a profile of this device, to be completed."""
    check_device_name(name)
    target = out
    if target is None:
        own = user_devices_dir()
        if own is None:
            raise InputError("this user has no home to keep profiles in: name a file with --out")
        target = own / f"{name}.toml"
    check_file_target(target)
    if target.is_file() and not force:
        raise InputError(f"{target}: is there already; --force writes over it")
    if target.stem != name or target.suffix != ".toml":
        raise InputError(f"--out {target}: the file of device {name!r} must be called {name}.toml")
    write_text(target, draft_profile(name, look()))
    read_profile(target)
    terminal.say(f"wrote {target}: check it, and put the best engine first")
    terminal.next_step(terminal.command_line("devices", "show", name if out is None else target))


def _readable(folders: tuple[Path, ...]) -> list[DeviceProfile]:
    """Return all profiles; a wrong one costs a line, not the others."""
    found = []
    for path in profile_files(folders=folders).values():
        try:
            found.append(read_profile(path))
        except RecipeError as error:
            terminal.warn([str(error)])
    return found


def _row(profile: DeviceProfile) -> tuple[str, ...]:
    choices = dict.fromkeys(f"{one.engine} {one.device}" for one in profile.engines)
    return (
        profile.name,
        "\n".join(choices),
        "?" if profile.memory_mb is None else f"{profile.memory_mb} MiB",
        "?" if profile.power_w is None else f"{profile.power_w:g} W",
        "yes" if profile.verified.on_hardware else "no",
        profile.description,
    )


def _details(profile: DeviceProfile) -> list[tuple[str, str]]:
    engines = [
        f"{one.engine} on {one.device}, {one.precision}" + (f" ({one.note})" if one.note else "")
        for one in profile.engines
    ]
    verified = profile.verified
    told = [
        ("kind", [profile.kind.value]),
        ("memory", [f"{profile.memory_mb} MiB"] if profile.memory_mb else []),
        ("power", [f"at most {profile.power_w:g} W"] if profile.power_w else []),
        ("engines, in order", engines),
        ("budgets", [f"{name}={value:g}" for name, value in profile.budgets.items()]),
        (
            "set-up",
            [f"{number}. {from_here(step)}" for number, step in enumerate(profile.setup, 1)],
        ),
        ("published", [f"{one.fact} [{one.source}]" for one in profile.published]),
        (
            "measured",
            [
                f"{one.latency_ms:g} ms a frame: {one.model}, {one.precision}, {one.engine} "
                f"{one.version} on {one.device}; {one.machine}; {one.who}, {one.when}"
                for one in verified.measured
            ],
        ),
        ("verified here", list(verified.ran) or ["nothing: not verified on hardware"]),
        ("not run", list(verified.not_run)),
    ]
    return [
        (title if number == 0 else "", line)
        for title, lines in told
        for number, line in enumerate(lines)
    ]
