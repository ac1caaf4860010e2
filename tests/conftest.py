"""What holds for every test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings

from tests.command import STARTED, Command, called

# Machines are shared: how long an example takes says nothing about the code.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

PATIENT = (
    "tests/remote/",
    "tests/host/",
    "tests/stream/sources/",
    "tests/stream/sinks/",
    "tests/stream/dashboard/",
    "tests/questions/test_page",
    "tests/bundle/test_shipping",
)
"""Where tests mostly wait, for servers and browsers."""

LONG = (
    "tests/cli/test_cifar10",
    "tests/docs/test_pages",
    "tests/calibrate/test_interruptions",
    "tests/cli/test_ask",
    "tests/cli/test_kill",
    "tests/cli/test_images",
    "tests/cli/test_epochs",
    "tests/calibrate/measured/",
)
"""What computes for long: at the end the other workers would have nothing to do meanwhile."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what other Pythons than the first are tried with."""
    parser.addoption(
        "--each-command-once",
        action="store_true",
        help="skip tests that start a command line in a process of its own a second time, and long "
        "arithmetic: what is the same on every Python",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have it heard where commands are started."""
    STARTED.once = config.getoption("--each-command-once")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put a file that waits before every two that compute, so that several workers use all cores.

    The longest come first: at the end only short ones are left.
    """
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    waiting = [name for name in files if name.startswith(PATIENT)]
    computing = sorted((name for name in files if name not in waiting), key=_lateness)
    order = []
    while waiting or computing:
        order += [*waiting[:1], *computing[:2]]
        del waiting[:1], computing[:2]
    items[:] = [item for name in order for item in files[name]]
    for item in items:
        if STARTED.once and item.get_closest_marker("arithmetic"):
            item.add_marker(pytest.mark.skip(reason="long arithmetic: the same on every Python"))


def _lateness(name: str) -> int:
    return next((place for place, one in enumerate(LONG) if name.startswith(one)), len(LONG))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB, or a reason why there is none."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a tmpfs here: needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A calibration's rounds of timing take as many runs as ever, of these models in no time."""
    from tinysaver_edge.calibrate.measured import images  # what is tested elsewhere has no pydantic

    monkeypatch.setattr(images, "EFFORT", replace(images.EFFORT, min_seconds=0.05))


@pytest.fixture
def command(brief: None) -> Command:
    """Runs the entry point with arguments, in this process."""
    return called
