"""Where the device profiles and the recipes lie: beside a checkout, or copied into the package."""

from __future__ import annotations

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


def _data_dir(name: str, package: Path) -> Path:
    root = package.parent
    place = root / name if is_checkout(root) else package / _COPIES / name
    if not place.is_dir():
        raise TinySaverError(
            f"{place}: the folder is missing from this installation of {PROJECT}: "
            f"{install_command()} --force-reinstall --no-deps"
        )
    return place
