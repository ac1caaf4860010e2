"""Finding: one thing that a device has, or why not, and what mends it; files that tell of it.

A Linux system is read below a root, which may be a recorded tree.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

ROOT = Path("/")
"""The machine at hand."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        value: what was found, or None where it is not there.
        reason: why it is not there, or None where it is.
    """

    name: str
    value: str | None = None
    reason: str | None = None

    @classmethod
    def of(cls, name: str, value: str | None, reason: str) -> Finding:
        """Return a thing with what was found of it; with the reason where that is nothing."""
        return cls(name, value) if value else cls(name, reason=reason)

    @classmethod
    def absent(cls, name: str, reason: str) -> Finding:
        """Return a thing that is not there."""
        return cls(name, reason=reason)

    @property
    def there(self) -> bool:
        """Whether it was found."""
        return self.value is not None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        if self.value is not None:
            return {"name": self.name, "there": True, "value": self.value}
        return {"name": self.name, "there": False, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Section:
    """Findings of one concern, in the order they are shown."""

    title: str
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {"title": self.title, "findings": [one.to_dict() for one in self.findings]}


def read(root: Path, path: str) -> str | None:
    """Return a small text file without the NULs and line ends around it, or None.

    None stands for a file that is missing or may not be read, and for an empty one.

    Args:
        root: folder that stands for ``/``.
        path: below it, without a leading slash.
    """
    try:
        text = (root / path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.strip("\0 \t\r\n") or None


def read_all(root: Path, pattern: str) -> list[str]:
    """Return what the files that a pattern below the root fits hold, each that can be read."""
    found = (read(root, str(path.relative_to(root))) for path in sorted(root.glob(pattern)))
    return [text for text in found if text is not None]


def read_int(root: Path, path: str) -> int | None:
    """Return the whole number that a file holds, or None."""
    text = read(root, path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def fields(text: str) -> dict[str, str]:
    """Return the ``name : value`` lines of a block of text; the first of a name counts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def installed_packages(root: Path) -> dict[str, str]:
    """Return the versions of the Debian packages that are installed; empty elsewhere."""
    text = read(root, "var/lib/dpkg/status")
    if text is None:
        return {}
    packages: dict[str, str] = {}
    for block in re.split(r"\n\s*\n", text):
        entry = fields(block)
        name, status = entry.get("Package"), entry.get("Status", "")
        if name is not None and status.endswith(" installed"):
            packages[name] = entry.get("Version", "?")
    return packages


class Standing(str, Enum):
    """How one thing stands.

    Attributes:
        NOTE: nothing fails, but something could be had that is not there.
    """

    OK = "ok"
    NOTE = "note"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Checkup:
    """One thing that was looked at.

    Attributes:
        mend: the command that mends it, or "" where there is nothing to mend.
    """

    name: str
    state: Standing
    detail: str
    mend: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {**asdict(self), "state": self.state.value}


def ok(name: str, detail: str) -> Checkup:
    """Return a check of something that is as it should be."""
    return Checkup(name, Standing.OK, detail)


def note(name: str, detail: str, mend: str = "") -> Checkup:
    """Return a check of something that could be had and is not there."""
    return Checkup(name, Standing.NOTE, detail, mend)


def broken(name: str, detail: str, mend: str) -> Checkup:
    """Return a check of something that fails, or will."""
    return Checkup(name, Standing.BROKEN, detail, mend)
