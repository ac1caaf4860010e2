"""Finding: one thing that a device has, or why it has it not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        name: what it is.
        value: what was found, or None where it is not there.
        reason: why it is not there, or None where it is.
    """

    name: str
    value: str | None = None
    reason: str | None = None

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
