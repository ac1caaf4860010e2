"""Where device profiles and recipes lie: a checkout's, the package's copies, and a user's own."""

from __future__ import annotations

import os
from pathlib import Path

from tinysaver_edge.errors import PACKAGE, PROJECT, TinySaverError, install_command, is_checkout

_COPIES = "_data.d"
"""Folder of a wheel's copies. No import reaches a name with a dot in it: it is data for good."""


def devices_dir(*, package: Path = PACKAGE) -> Path:
    """Return the folder of device profiles, one TOML a device.

    Raises:
        TinySaverError: the installation has lost the folder.
    """
    return _data_dir("devices", package)


def calibration_dir(*, package: Path = PACKAGE) -> Path:
    """Return the folder of recipes (TOML) and published results (CSV).

    Raises:
        TinySaverError: the installation has lost the folder.
    """
    return _data_dir("calibration", package)


def user_dir(variable: str, usual: str) -> Path | None:
    """Return a folder of the user's for this program; it need not be there.

    Args:
        variable: of the environment, ``XDG_CACHE_HOME``.
        usual: its place below the user's home where that says nothing.

    Returns:
        None for a user without a home, as containers are run by a number that no name belongs to.
    """
    base = os.environ.get(variable)
    try:
        return (Path(base) if base else Path.home() / usual) / PROJECT
    except RuntimeError:
        return None


def default_cache_dir() -> Path | None:
    """Return the user's cache folder for compiled models, or None where none can be written."""
    folder = user_dir("XDG_CACHE_HOME", ".cache")
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if folder is not None and os.access(folder, os.W_OK) else None


def _data_dir(name: str, package: Path) -> Path:
    root = package.parent
    place = root / name if is_checkout(root) else package / _COPIES / name
    if not place.is_dir():
        raise TinySaverError(
            f"{place}: the folder is missing from this installation of {PROJECT}: "
            f"{install_command()} --force-reinstall --no-deps"
        )
    return place
