"""How this package is installed with one of its extras, from where the user stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tinysaver_edge._support.documents import read_toml

PROJECT = "tinysaver-edge"
"""What a checkout's ``pyproject.toml`` names."""

PACKAGE = Path(__file__).resolve().parents[1]

_WRITTEN = re.compile(rf"'{PROJECT}\[([a-z0-9,-]+)\]'")
"""How device profiles and messages write it."""


def install_command(extra: str | None = None, *, package: Path = PACKAGE) -> str:
    """Return the command that installs this package, with an extra where one is named.

    Args:
        extra: for example ``"cpu"``.
        package: folder of the installed package; for tests.
    """
    return f"pip install {_requirement(extra, package)}"


def from_here(text: str, *, package: Path = PACKAGE) -> str:
    """Return a text in which every ``'tinysaver-edge[extra]'`` works from where the user stands."""
    return _WRITTEN.sub(lambda found: _requirement(found[1], package), text)


def is_checkout(root: Path) -> bool:
    """Tell a source checkout from a site-packages that happens to hold such folders."""
    try:
        project = read_toml(root / "pyproject.toml").get("project", {})
    except (OSError, ValueError):
        return False
    return isinstance(project, dict) and project.get("name") == PROJECT


def _requirement(extra: str | None, package: Path) -> str:
    extras = "" if extra is None else f"[{extra}]"
    place = package.parent if is_checkout(package.parent) else _installed_from()
    if isinstance(place, Path):
        here = Path.cwd()
        return f"'{'.' if place == here else place}{extras}'"
    return f"'{PROJECT}{extras}{'' if place is None else f' @ {place}'}'"


def _installed_from() -> Path | str | None:
    """Return the folder, file or address that pip took this package from; None: an index."""
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        said = json.loads(distribution(PROJECT).read_text("direct_url.json") or "{}")
        url = str(said.get("url", ""))
    except (PackageNotFoundError, OSError, ValueError, AttributeError):
        return None
    if "vcs_info" in said:
        return f"git+{url}"
    if url.startswith("file://"):
        place = Path(unquote(urlsplit(url).path))
        return place if place.exists() else None
    return url or None
