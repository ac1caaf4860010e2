"""What holds for every test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.command import STARTED

# Machines are shared: how long an example takes says nothing about the code.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

PATIENT = (
    "tests/remote/",
    "tests/host/",
    "tests/stream/sources/test_rtsp",
    "tests/stream/dashboard/",
    "tests/questions/test_page",
)
"""Where tests mostly wait, for servers and browsers."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what other Pythons than the first are tried with."""
    parser.addoption(
        "--each-command-once",
        action="store_true",
        help="skip tests that start a command line in a process of its own a second time",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have it heard where commands are started."""
    STARTED.once = config.getoption("--each-command-once")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that wait first: of several workers, none is left alone with them at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(PATIENT))


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
