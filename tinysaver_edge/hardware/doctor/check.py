"""Check: one thing that can make an installation fail, how it stands, and what mends it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class Standing(str, Enum):
    """How one thing stands.

    Attributes:
        OK: it is as it should be.
        NOTE: nothing fails, but something could be had that is not there.
        BROKEN: something fails, or will.
    """

    OK = "ok"
    NOTE = "note"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Checkup:
    """One thing that was looked at.

    Attributes:
        state: how it stands.
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
